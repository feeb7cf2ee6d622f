"""Presets against what Keras does with the same arguments, and AugmentConfig: its rules, ranges, JSON and merging."""

import json
import os
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.augment.apply import augment_image
from engine.augment.config import AMOUNTS, FACTORS, MANNERS, PROBABILITIES, AugmentConfig, Interpolation, Range
from engine.augment.geometry import augment_geometry, flipped, rotated, sheared, shifted, zoomed
from engine.augment.presets import (
    Flips,
    LayerFill,
    image_data_generator,
    random_flip,
    random_rotation,
    random_translation,
    random_zoom,
)
from engine.config import RunConfig
from engine.errors import InputError
from tests.conftest import TINY
from tests.test_augment_geometry import LEVELS, draw_keys, places, random_image, warps

FILL_VALUE = 37.0
# Keras reads through a name that scipy has deprecated.
through_old_name = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras on the JAX backend."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras", reason="Keras comes with the dev extra")


@pytest.fixture(scope="module")
def generator(keras) -> Any:
    """The class ImageDataGenerator, which Keras 3 keeps where it is not documented."""
    return pytest.importorskip("keras.src.legacy.preprocessing.image").ImageDataGenerator


# A layer of Keras and our preset with the same arguments, which leave nothing to chance.
LAYERS: dict[str, tuple[str, Any, tuple]] = {
    "rotation": ("RandomRotation", random_rotation, ((0.07, 0.07),)),
    "rotation clockwise": ("RandomRotation", random_rotation, ((-0.31, -0.31),)),
    "translation": ("RandomTranslation", random_translation, ((0.213, 0.213), (-0.31, -0.31))),
    "zoom out": ("RandomZoom", random_zoom, ((0.3, 0.3),)),
    "zoom in, width apart": ("RandomZoom", random_zoom, ((-0.43, -0.43), (0.2, 0.2))),
}


@pytest.mark.parametrize("fill", get_args(LayerFill))
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_preset_of_a_layer_gives_the_pixels_of_keras(keras, fill: LayerFill, interpolation: Interpolation):
    image = random_image((9, 7, 3))
    manner = {"fill_mode": fill, "interpolation": interpolation, "fill_value": FILL_VALUE}
    for name, (layer, preset, arguments) in LAYERS.items():
        expected = getattr(keras.layers, layer)(*arguments, **manner)(image[None], training=True)[0]
        result = augment_geometry(jax.random.key(0), jnp.asarray(image), preset(*arguments, **manner))
        np.testing.assert_allclose(result, np.asarray(expected), rtol=0, atol=LEVELS, err_msg=name)
        assert np.abs(np.asarray(result) - image).mean() > 5


def test_factors_of_one_number_stand_for_the_ranges_of_keras(keras):
    layers = keras.layers
    turn = layers.RandomRotation(0.1)
    assert random_rotation(0.1).range("rotation") == pytest.approx(tuple(360 * factor for factor in turn.factor))
    for factors in ((0.2, 0.3), ((-0.1, 0.2), (0.0, 0.4))):
        shift, zoom = layers.RandomTranslation(*factors), layers.RandomZoom(*factors)
        ours = random_translation(*factors)
        assert ours.range("height_shift") == (shift.height_lower, shift.height_upper)
        assert ours.range("width_shift") == (shift.width_lower, shift.width_upper)
        ours = random_zoom(*factors)
        assert ours.range("zoom") == (1 + zoom.height_lower, 1 + zoom.height_upper)
        assert ours.range("width_zoom") == (1 + zoom.width_lower, 1 + zoom.width_upper)
    assert random_zoom(0.2).width_zoom is None
    assert random_zoom(0.2).range("zoom") == (0.8, 1.2)


def test_manner_of_a_layer_is_the_default_of_keras(keras):
    layers = keras.layers
    for layer in (layers.RandomRotation(0.1), layers.RandomTranslation(0.1, 0.1), layers.RandomZoom(0.1)):
        theirs = (layer.fill_mode, layer.interpolation, layer.fill_value)
        for ours in (random_rotation(0.1), random_translation(0.1, 0.1), random_zoom(0.1)):
            assert (ours.fill, ours.interpolation, ours.fill_value) == theirs


@pytest.mark.parametrize("mode", get_args(Flips))
def test_random_flip_has_the_outcomes_of_keras(keras, mode: Flips):
    images = jnp.stack([random_image((4, 5, 1))] * 64)
    config = random_flip(mode)
    ours = jax.vmap(lambda key, image: augment_geometry(key, image, config))(draw_keys()[:64], images)
    theirs = keras.layers.RandomFlip(mode, seed=0)(images, training=True)
    ours, theirs = ({np.asarray(image).tobytes() for image in flips} for flips in (ours, theirs))
    if mode == "horizontal_and_vertical":  # Keras 3 flips both or none; we draw each
        assert ours > theirs
        assert len(ours) == 4
    else:
        assert ours == theirs
        assert len(ours) == 2


def test_random_flip_without_a_mode_flips_both_ways():
    assert random_flip() == AugmentConfig(horizontal_flip=True, vertical_flip=True)


TRANSFORMS: list[dict[str, Any]] = [
    {"theta": 25.0},
    {"tx": 1.3, "ty": -2.0},
    {"shear": 20.0},
    {"shear": -35.0},
    {"zx": 0.7, "zy": 1.4},
    {"theta": -40.0, "tx": 0.8, "ty": -1.6, "shear": 15.0, "zx": 1.2, "zy": 0.8},
    {"theta": 10.0, "shear": 15.0, "flip_horizontal": True, "flip_vertical": True},
    {"theta": 10.0, "tx": -2.1, "flip_horizontal": True},
]


def matrix_of(transform: dict[str, Any]) -> jax.Array:
    """What Keras does, with our builders: the affine part before the flips. It exchanges the two axes of shift and
    zoom (its x is the height when drawn, the width when applied), and moves where we read from."""
    affine = rotated(transform.get("theta", 0.0))
    affine = affine @ shifted(-transform.get("ty", 0.0), -transform.get("tx", 0.0))
    affine = affine @ sheared(transform.get("shear", 0.0)) @ zoomed(transform.get("zy", 1.0), transform.get("zx", 1.0))
    return affine @ flipped(transform.get("flip_vertical", False), transform.get("flip_horizontal", False))


@through_old_name
@pytest.mark.parametrize("fill", ["nearest", "reflect", "constant"])
def test_matrices_give_the_pixels_of_the_image_data_generator(generator, fill: LayerFill):
    size = 9  # square: Keras takes the centres of height and width for each other
    image = random_image((size, size, 3))
    ours = image_data_generator(fill_mode=fill, cval=FILL_VALUE)
    matrices = np.stack([matrix_of(transform) for transform in TRANSFORMS])
    results = warps(ours.fill, "bilinear")(image, matrices)
    for transform, matrix, result in zip(TRANSFORMS, matrices, results, strict=True):
        made = generator(fill_mode=fill, cval=FILL_VALUE, interpolation_order=1, dtype="float32")
        expected, at = made.apply_transform(image.copy(), transform), places(matrix, size, size)
        near_border = np.any(((at > -1.01) & (at < 0.01)) | ((at > size - 1.01) & (at < size + 0.01)), axis=0)
        # Around the border we blend towards a constant, where Keras's scipy mode ends at once.
        compared = ~near_border if fill == "constant" else np.ones_like(near_border)
        assert compared.mean() > 0.4
        np.testing.assert_allclose(np.asarray(result)[compared], expected[compared], rtol=0, atol=LEVELS)


def test_brightness_is_that_of_the_image_data_generator(generator):
    image = random_image((6, 7, 3))
    expected = generator(brightness_range=(1.4, 1.4)).apply_transform(image.copy(), {"brightness": 1.4})
    result = augment_image(jax.random.key(0), jnp.asarray(image), image_data_generator(brightness_range=(1.4, 1.4)))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1.01)  # Pillow cuts to whole levels


HEIGHT, WIDTH = 20, 32
ARGUMENTS: list[dict[str, Any]] = [
    {"rotation_range": 30, "shear_range": 12.0, "zoom_range": 0.2, "channel_shift_range": 25.0},
    {"zoom_range": [0.5, 1.1], "brightness_range": [0.4, 1.3]},
    {"height_shift_range": 0.1, "width_shift_range": 0.3},
    {"horizontal_flip": True, "vertical_flip": True, "rotation_range": 90},
    {"height_shift_range": 0.2},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_ranges_are_those_of_the_image_data_generator(generator, arguments: dict[str, Any]):
    ours, made = image_data_generator(**arguments), generator(**arguments)
    draws = [made.get_random_transform((HEIGHT, WIDTH, 3), seed=seed) for seed in range(300)]
    scales = {"rotation": ("theta", 1), "shear": ("shear", 1), "zoom": ("zx", 1), "width_zoom": ("zy", 1)}
    scales |= {"height_shift": ("tx", HEIGHT), "width_shift": ("ty", WIDTH), "brightness": ("brightness", 1)}
    scales["channel_shift"] = ("channel_shift_intensity", 1)
    for name, (theirs, scale) in scales.items():
        values = np.array([draw[theirs] for draw in draws])
        if not ours.changes(name):
            assert np.all((values == None) | (values == (1 if name in FACTORS else 0))), name  # noqa: E711
            continue
        (low, high), values = ours.range(name), values.astype(float) / scale
        assert low <= values.min() < low + 0.05 * (high - low), name
        assert high >= values.max() > high - 0.05 * (high - low), name
    for name in ("horizontal", "vertical"):
        assert getattr(ours, f"{name}_flip") == any(draw[f"flip_{name}"] for draw in draws)


@pytest.mark.parametrize("arguments", [{"height_shift_range": 3}, {"height_shift_range": 2, "width_shift_range": 4}])
def test_shifts_by_pixels_are_those_of_the_image_data_generator(generator, arguments: dict[str, int]):
    ours, made = image_data_generator(**arguments), generator(**arguments)
    draws = [made.get_random_transform((HEIGHT, WIDTH, 3), seed=seed) for seed in range(300)]
    assert ours.shift_unit == "pixels"
    for name, theirs in (("height_shift", "tx"), ("width_shift", "ty")):
        low, high = map(round, ours.range(name))
        assert {int(draw[theirs]) for draw in draws} == set(range(low, high + 1))


def test_image_data_generator_takes_the_arguments_and_defaults_of_keras(generator):
    made, ours = generator(), image_data_generator()
    assert not ours.is_active
    assert (made.fill_mode, made.cval) == ("nearest", 0.0)
    assert (ours.fill, ours.fill_value) == ("edge", 0.0)
    for name in image_data_generator.__kwdefaults__:
        assert hasattr(made, name), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height_shift_range": 2.5}, r"height_shift_range: got 2\.5; expected a fraction .* or an int of pixels"),
        ({"width_shift_range": -0.1}, r"width_shift_range: got -0\.1; expected a fraction from 0"),
        (
            {"height_shift_range": 3, "width_shift_range": 0.1},
            r"height_shift_range: got a number of pixels beside a fraction; expected both",
        ),
        ({"fill_mode": "edge"}, r"fill_mode: got 'edge'; expected one of constant, nearest, reflect, wrap"),
        ({"rotation_range": -5}, r"augment\.rotation: got -5"),
    ],
)
def test_image_data_generator_refuses_what_it_cannot_do(arguments: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        image_data_generator(**arguments)


def test_layers_refuse_unknown_names_listing_the_known():
    with pytest.raises(InputError, match=r"mode: got 'horizontall'; expected one of.*Did you mean 'horizontal'\?"):
        random_flip("horizontall")  # type: ignore[arg-type]
    for preset, arguments in ((random_rotation, (0.1,)), (random_translation, (0.1, 0.1)), (random_zoom, (0.1,))):
        with pytest.raises(InputError, match=r"fill_mode: got 'nearrest'.*Did you mean 'nearest'\?"):
            preset(*arguments, fill_mode="nearrest")
        with pytest.raises(InputError, match=r"augment\.interpolation: got 'cubic'; expected one of bilinear, nearest"):
            preset(*arguments, interpolation="cubic")


def test_presets_add_up_to_one_config():
    stack = random_flip("horizontal") | random_rotation(0.1, "nearest") | random_zoom(0.1) | random_zoom(0.1)
    expected = AugmentConfig(horizontal_flip=True, rotation=36.0, zoom=(0.9, 1.1), fill="edge")
    assert stack == expected == expected | AugmentConfig() == AugmentConfig() | expected


def test_adding_what_contradicts_is_refused_naming_every_field_and_both_values():
    with pytest.raises(InputError) as error:
        _ = AugmentConfig(rotation=10, zoom=0.1, hue=0.1) | AugmentConfig(rotation=20, zoom=0.1, hue=(0.0, 0.2))
    lines = str(error.value).splitlines()
    assert [line.split(";")[0] for line in lines] == ["augment.rotation: got 20.0", "augment.hue: got (0.0, 0.2)"]
    assert "expected 10.0 as before it" in lines[0]


# For every field values other than its default; a new field must be put here, and its wrong values below.
RIGHT: dict[str, list[Any]] = {
    "horizontal_flip": [True],
    "vertical_flip": [True],
    "rotation": [20.0, (-5.0, 400.0)],
    "height_shift": [0.2, (0.1, 0.1)],
    "width_shift": [0.2, (-0.1, 2.0)],
    "shift_unit": ["pixels"],
    "shear": [89.0, (-10.0, 0.0)],
    "zoom": [0.2, (0.01, 5.0)],
    "width_zoom": [0.2, (1.5, 2.5)],
    "crop_padding": [4],
    "crop_area": [(0.08, 1.0), (1.0, 1.0)],
    "crop_ratio": [(0.5, 2.0)],
    "fill": ["constant", "edge", "wrap"],
    "fill_value": [255.0],
    "interpolation": ["nearest"],
    "brightness": [1.0, (0.0, 3.0)],
    "contrast": [0.3, (0.2, 0.3)],
    "saturation": [0.3, (0.0, 2.0)],
    "hue": [0.5, (-0.1, 0.2)],
    "channel_shift": [255.0, (0.0, 10.0)],
    "grayscale": [0.1, 1.0],
    "posterize": [0.1],
    "posterize_bits": [1, 8],
    "solarize": [0.1],
    "solarize_threshold": [0.0, 255.0],
    "autocontrast": [0.1],
    "equalize": [0.1],
    "sharpness": [0.5, (0.0, 4.0)],
    "blur": [(0.0, 1.5)],
    "noise": [3.0],
    "policy": ["rand_augment", "trivial_augment"],
    "policy_ops": [1, 16],
    "policy_magnitude": [0, 30],
    "erasing": [0.5],
    "erasing_area": [(0.1, 0.1)],
    "erasing_ratio": [(1.0, 1.0)],
    "erasing_value": [128.0],
    "mixup": [0.2],
    "cutmix": [1.0],
}
WRONG_FACTORS = [1.5, -0.1, (-0.1, 1.0), (1.2, 0.8), (1.0,), "some"]
WRONG_PROBABILITIES = [1.5, -0.1, (0.0, 0.5), "often", float("nan")]
WRONG: dict[str, list[Any]] = {
    "horizontal_flip": ["yes", 2],
    "vertical_flip": [0.5],
    "rotation": [-5.0, (10.0, -10.0), "left", float("inf"), (0.0, 1.0, 2.0)],
    "height_shift": [-0.1, (0.2, -0.2), None],
    "width_shift": [-0.1, (0.2, -0.2), True],
    "shift_unit": ["inches"],
    "shear": [90.0, (-95.0, 0.0), -1.0],
    "zoom": [1.0, (0.0, 1.0), *WRONG_FACTORS],
    "width_zoom": [1.0, (0.0, 1.0), *WRONG_FACTORS],
    "crop_padding": [-1, 1.5],
    "crop_area": [(0.0, 1.0), (0.5, 0.2), (0.5, 1.5), 0.5, (0.1, 0.2, 0.3)],
    "crop_ratio": [(0.0, 1.0), (2.0, 1.0), None],
    "fill": ["mirror", 3],
    "fill_value": [-1.0, 256.0],
    "interpolation": ["cubic"],
    "brightness": WRONG_FACTORS,
    "contrast": WRONG_FACTORS,
    "saturation": WRONG_FACTORS,
    "hue": [0.6, (-0.6, 0.0), -0.1],
    "channel_shift": [256.0, (-300.0, 0.0)],
    "grayscale": WRONG_PROBABILITIES,
    "posterize": WRONG_PROBABILITIES,
    "posterize_bits": [0, 9, 4.5],
    "solarize": WRONG_PROBABILITIES,
    "solarize_threshold": [-1.0, 300.0],
    "autocontrast": WRONG_PROBABILITIES,
    "equalize": WRONG_PROBABILITIES,
    "sharpness": WRONG_FACTORS,
    "blur": [(1.0, 0.5), (-1.0, 0.0), (0.0, 30.0), 2.0],
    "noise": [-1.0],
    "policy": ["autoaugment"],
    "policy_ops": [0, 17],
    "policy_magnitude": [-1, 31],
    "erasing": WRONG_PROBABILITIES,
    "erasing_area": [(0.0, 0.5), (0.5, 0.2), (0.5, 1.1)],
    "erasing_ratio": [(0.0, 1.0), (2.0, 1.0)],
    "erasing_value": [-1.0, 256.0],
    "mixup": [-0.1, (0.1, 0.2)],
    "cutmix": [-1.0],
}
NAMES = [field.name for field in fields(AugmentConfig)]


def test_cases_name_every_field():
    assert list(RIGHT) == list(WRONG) == NAMES
    groups = [*AMOUNTS, *FACTORS, *PROBABILITIES, *MANNERS]
    assert len(set(groups)) == len(groups)
    assert set(groups) <= set(NAMES)


def test_every_range_is_one_of_amounts_or_of_factors_and_no_other_field_is():
    ranges = {name for name, kind in get_type_hints(AugmentConfig).items() if kind in (Range, Range | None)}
    assert ranges == {*AMOUNTS, *FACTORS}


def test_default_changes_nothing():
    assert not AugmentConfig().is_active
    assert not AugmentConfig().pairs_examples
    assert not any(map(AugmentConfig().changes, NAMES))
    image = jnp.asarray(random_image((5, 4, 3)))
    np.testing.assert_array_equal(augment_image(jax.random.key(0), image, AugmentConfig()), image)


@pytest.mark.parametrize("name", NAMES)
def test_field_alone_makes_the_config_active_unless_it_only_says_how(name: str):
    for value in RIGHT[name]:
        config = AugmentConfig(**{name: value})
        assert getattr(config, name) == value != getattr(AugmentConfig(), name)
        assert config.is_active == config.changes(name) == (name not in MANNERS)
        assert not any(config.changes(other) for other in NAMES if other != name)
        assert config.pairs_examples == (name in ("mixup", "cutmix"))


@pytest.mark.parametrize("name", [*AMOUNTS, *FACTORS])
def test_range_of_the_identity_alone_changes_nothing(name: str):
    neutral = 1.0 if name in FACTORS else 0.0
    for value in (0.0, (neutral, neutral)):
        config = AugmentConfig(**{name: value})
        assert config.range(name) == (neutral, neutral)
        assert not config.is_active
    assert AugmentConfig(**{name: 0.25}).range(name) == (neutral - 0.25, neutral + 0.25)
    assert AugmentConfig(**{name: (0.25, 0.5)}).range(name) == (0.25, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_value_is_refused_naming_the_field(name: str):
    for value in WRONG[name]:
        with pytest.raises(InputError, match=rf"^augment\.{name}(\[\d\])?: got .*; expected "):
            AugmentConfig(**{name: value})


def test_all_wrong_fields_are_told_at_once():
    with pytest.raises(InputError) as error:
        AugmentConfig(rotation=-1, zoom=(2.0, 1.0), grayscale=7, fill="mirror", blur=(3, 1))  # type: ignore[arg-type]
    named = {line.split(":")[0].removeprefix("augment.") for line in str(error.value).splitlines()}
    assert named == {"rotation", "zoom", "grayscale", "fill", "blur"}


@pytest.mark.parametrize("name", NAMES)
def test_config_survives_json(name: str):
    for value in RIGHT[name]:
        config = RunConfig("run", TINY, augment=AugmentConfig(**{name: value}))
        read = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
        assert read == config
        assert getattr(read.augment, name) == value
        assert hash(read.augment) == hash(config.augment)


def test_lists_and_whole_numbers_are_put_right():
    config = AugmentConfig(rotation=[-10, 20], crop_area=[0.5, 1], zoom=0, noise=3)  # type: ignore[arg-type]
    assert config == AugmentConfig(rotation=(-10.0, 20.0), crop_area=(0.5, 1.0), noise=3.0)
    assert isinstance(config.rotation, tuple)
    assert replace(config, rotation=0.0).rotation == 0

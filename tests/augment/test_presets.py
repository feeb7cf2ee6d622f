"""Presets against what Keras does with the same arguments, and AugmentConfig: its rules, ranges, JSON and merging."""

import inspect
import json
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.augment import presets
from engine.augment.apply import augment_image
from engine.augment.config import AugmentConfig
from engine.augment.generator import PREPROCESSING
from engine.augment.geometry import augment_geometry, draw_matrix
from engine.augment.presets import (
    Flips,
    aug_mix,
    auto_augment,
    image_data_generator,
    random_flip,
    random_perspective,
    random_rotation,
    random_shear,
    random_translation,
    random_zoom,
)
from engine.augment.rules import MANNERS, AmountRange, find_marks
from engine.config import RunConfig
from engine.config.contract import InputSpec
from engine.config.data import DataConfig
from engine.errors import InputError
from engine.networks.network import normalize
from engine.records.custom import Custom
from tests.augment.test_geometry import draw_keys, random_image
from tests.conftest import TINY

AMOUNTS, FACTORS, PROBABILITIES = (
    [name for name, mark in find_marks(AugmentConfig).items() if mark.kind == kind]
    for kind in ("amount", "factor", "probability")
)


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
    for layer, ours in (
        (layers.RandomRotation(0.1), random_rotation(0.1)),
        (layers.RandomTranslation(0.1, 0.1), random_translation(0.1, 0.1)),
        (layers.RandomZoom(0.1), random_zoom(0.1)),
        (layers.RandomShear(0.1), random_shear(0.1)),
    ):
        assert (ours.fill, ours.interpolation, ours.fill_value) == (layer.fill_mode, layer.interpolation, 0)
    layer, ours = layers.RandomPerspective(), random_perspective()
    assert (ours.interpolation, ours.fill_value) == (layer.interpolation, layer.fill_value)


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


HEIGHT, WIDTH = 20, 32
ARGUMENTS: list[dict[str, Any]] = [
    {"rotation_range": 30, "shear_range": 12.0, "zoom_range": 0.2, "channel_shift_range": 25.0},
    {"zoom_range": [0.5, 1.1], "brightness_range": [0.4, 1.3]},
    {"height_shift_range": 0.1, "width_shift_range": 0.3},
    {"horizontal_flip": True, "vertical_flip": True, "rotation_range": 90},
    {"height_shift_range": 2.5, "width_shift_range": 0.2},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_ranges_are_those_of_the_image_data_generator(generator, arguments: dict[str, Any]):
    ours, made = image_data_generator(**arguments), generator(**arguments)
    draws = [made.get_random_transform((HEIGHT, WIDTH, 3), seed=seed) for seed in range(300)]
    scales = {"rotation": ("theta", 1), "shear": ("shear", 1), "zoom": ("zx", 1), "width_zoom": ("zy", 1)}
    scales |= {"height_shift": ("tx", HEIGHT), "width_shift": ("ty", WIDTH)}
    scales |= {"level_shift": ("channel_shift_intensity", 1), "whole_brightness": ("brightness", 1)}
    for name, (theirs, scale) in scales.items():
        values = np.array([draw[theirs] for draw in draws])
        if not ours.changes(name):
            assert np.all((values == None) | (values == (1 if name in FACTORS else 0))), name  # noqa: E711
            continue
        (low, high), values = ours.range(name), values.astype(float) / scale
        if low <= -1:  # pixels, which the draws have already
            values = values * scale
        assert low <= values.min() < low + 0.05 * (high - low), name
        assert high >= values.max() > high - 0.05 * (high - low), name
    for name in ("horizontal", "vertical"):
        assert getattr(ours, f"{name}_flip") == any(draw[f"flip_{name}"] for draw in draws)


@pytest.mark.parametrize("height", [3, 1, [2, 4], (0.1, 0.3), np.array([5, 7])], ids=str)
@pytest.mark.parametrize("width", [0.0, 4], ids=str)
def test_steps_of_shifts_are_those_of_the_image_data_generator(generator, height: Any, width: Any):
    made = generator(height_shift_range=0, width_shift_range=width)
    made.height_shift_range = list(height) if isinstance(height, (tuple, np.ndarray)) else height
    ours = image_data_generator(height_shift_range=height, width_shift_range=width)
    draws = [made.get_random_transform((HEIGHT, WIDTH, 3), seed=seed) for seed in range(300)]
    keys = jax.random.split(jax.random.key(3), 300)
    moves = np.asarray(jax.vmap(lambda key: draw_matrix(key, HEIGHT, WIDTH, ours))(keys))[:, [0, 1], [2, 2]]
    for theirs, drawn in (("tx", moves[:, 1]), ("ty", moves[:, 0])):  # what is drawn for the height moves the width
        values, counts = np.unique(np.round([draw[theirs] for draw in draws], 4), return_counts=True)
        found, ours_counts = np.unique(np.round(drawn, 4), return_counts=True)
        np.testing.assert_allclose(found, values, atol=1e-3)
        np.testing.assert_allclose(ours_counts, counts, atol=60)


def test_image_data_generator_takes_the_arguments_and_defaults_of_keras(generator):
    made, ours = generator(), image_data_generator()
    assert not ours.is_active
    assert ours.data.given() == {}
    ours = image_data_generator(rotation_range=10)
    assert (made.fill_mode, made.cval, made.interpolation_order) == ("nearest", 0.0, 1)
    assert (ours.fill, ours.fill_value, ours.interpolation) == ("edge", 0.0, "bilinear")
    theirs = {*inspect.signature(type(made)).parameters} - {"data_format", "dtype"}  # of arrays at hand
    assert {*image_data_generator.__kwdefaults__} == theirs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width_shift_range": -0.1}, r"width_shift_range: got -0\.1; expected a fraction from 0"),
        ({"height_shift_range": [2, "3"]}, r"height_shift_range: got \[2, '3'\]; expected a fraction from 0"),
        ({"interpolation_order": 3}, r"interpolation_order: got 3; expected 0 .* or 1"),
        ({"validation_split": 1.5}, r"validation_split: got 1\.5; expected 0 ≤ share < 1"),
        ({"preprocessing_function": np.tanh}, r"preprocessing_function: got tanh; expected the name of an application"),
        ({"preprocessing_function": "vgg16"}, r"preprocessing_function: got 'vgg16'; expected one that keeps red"),
        ({"preprocessing_function": "mobilenetv2"}, r"Did you mean 'mobilenet_v2'\?"),
        ({"rescale": 0.0}, r"rescale: got 0\.0; expected a positive number"),
        ({"samplewise_center": True, "zca_whitening": True}, r"samplewise_center: got it beside"),
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
        with pytest.raises(InputError, match=r"^interpolation: got 'cubic'; expected one of bilinear, nearest"):
            preset(*arguments, interpolation="cubic")


def test_presets_add_up_to_one_config():
    zoom = random_zoom(0.1, fill_mode="nearest")
    stack = random_flip("horizontal") | random_rotation(0.1, "nearest") | zoom | zoom
    expected = AugmentConfig(horizontal_flip=True, rotation=36.0, zoom=(0.9, 1.1), fill="edge")
    assert stack == expected == expected | AugmentConfig() == AugmentConfig() | expected


def test_adding_what_contradicts_is_refused_naming_every_field_and_both_values():
    with pytest.raises(InputError) as error:
        _ = AugmentConfig(rotation=10, zoom=0.1, hue=0.1) | AugmentConfig(rotation=20, zoom=0.1, hue=(0.0, 0.2))
    lines = str(error.value).splitlines()
    assert [line.split(";")[0] for line in lines] == ["augment.rotation: got 20.0", "augment.hue: got (0.0, 0.2)"]
    assert "expected 10.0 as before it" in lines[0]


def test_warps_that_read_beyond_the_border_in_other_ways_do_not_add_up():
    with pytest.raises(
        InputError, match=r"augment\.fill: got reflect; expected edge as before it, because all geometry"
    ):
        _ = random_rotation(0.1, "nearest") | random_zoom(0.1)
    with pytest.raises(InputError, match=r"augment\.fill: got constant; expected reflect as before it"):
        _ = random_translation(0.1, 0.1) | random_perspective()
    with pytest.raises(InputError, match=r"augment\.fill: got constant; expected reflect as before it"):
        _ = random_rotation(0.1) | auto_augment()
    with pytest.raises(InputError, match=r"augment\.interpolation: got nearest_away; expected bilinear as before it"):
        _ = random_rotation(0.1, "nearest") | aug_mix(interpolation="nearest")
    both = aug_mix() | random_rotation(0.1, "nearest")  # the chains of which are mirrored at the border in any case
    assert (both.policy, both.fill) == ("aug_mix", "edge")
    flipped = image_data_generator(horizontal_flip=True) | random_rotation(0.1)  # as the layer reads
    assert (flipped.fill, flipped.generator_geometry, flipped.rotation) == ("reflect", False, 36.0)
    assert (random_flip() | random_zoom(0.1, fill_mode="wrap")).fill == "tensorflow_wrap"  # a flip reads no further


def test_data_of_a_generator_goes_to_the_data_of_the_run():
    generator = image_data_generator(
        rotation_range=20, rescale=1 / 128, validation_split=0.25, featurewise_std_normalization=True
    )
    config = RunConfig("run", TINY, augment=generator)
    assert type(config.augment) is AugmentConfig
    assert config.augment.rotation == 20
    assert config.data == DataConfig(scale=1 / 128, validation_fraction=0.25, standardize="dataset")
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    flipped = RunConfig("run", TINY, augment=generator | random_flip("horizontal"))
    assert flipped == RunConfig("run", TINY, augment=random_flip("horizontal") | generator)
    assert flipped.data == config.data
    assert flipped.augment.horizontal_flip


def test_data_of_a_generator_and_of_the_run_that_contradict_are_refused_naming_both():
    generator = image_data_generator(rescale=1 / 128, validation_split=0.25)
    with pytest.raises(InputError) as error:
        RunConfig("run", TINY, DataConfig(validation_fraction=0.2, scale=1.0), augment=generator)
    assert str(error.value).splitlines() == [
        "data.validation_fraction: got 0.2; expected 0.25, as the preset says. Leave out one of them.",
        "data.scale: got 1.0; expected 0.0078125, as the preset says. Leave out one of them.",
    ]
    same = RunConfig("run", TINY, DataConfig(validation_fraction=0.25), augment=generator)
    assert same.data.scale == 1 / 128


@pytest.mark.parametrize(
    ("arguments", "standardize"),
    [
        ({"featurewise_center": True}, "dataset_center"),
        ({"featurewise_center": True, "featurewise_std_normalization": True}, "dataset"),
        ({"featurewise_std_normalization": True}, "dataset"),
        ({"samplewise_center": True}, "example_center"),
        ({"samplewise_std_normalization": True}, "example"),
        ({"zca_whitening": True, "featurewise_std_normalization": True}, "zca"),
    ],
)
def test_standardization_of_a_generator_is_that_of_data(arguments: dict[str, bool], standardize: str):
    assert RunConfig("run", TINY, augment=image_data_generator(**arguments)).data.standardize == standardize


@pytest.mark.parametrize("name", sorted(PREPROCESSING))
def test_preprocessing_by_name_is_that_of_keras(keras, name: str):
    levels = random_image((2, 3, 3))
    expected = np.asarray(getattr(keras.applications, name).preprocess_input(levels.copy()))
    for rescale in (None, 0.5):
        data = RunConfig("run", TINY, augment=image_data_generator(preprocessing_function=name, rescale=rescale)).data
        spec = InputSpec((2, 3, 3), scale=data.scale, mean=data.mean, std=data.std)
        shown = normalize(jnp.asarray(levels)[None], spec)[0]
        np.testing.assert_allclose(shown, expected * (rescale or 1), rtol=0, atol=1e-5)


# For every field values other than its default; a new field must be put here, and its wrong values below.
def fade(key: jax.Array, image: jax.Array) -> jax.Array:
    return image


RIGHT: dict[str, list[Any]] = {
    "horizontal_flip": [True],
    "vertical_flip": [True],
    "rotation": [20.0, (-5.0, 400.0)],
    "height_shift": [0.2, (0.1, 0.1)],
    "width_shift": [0.2, (-0.1, 2.0)],
    "shift_unit": ["pixels"],
    "height_shift_steps": [(1.0, 3.0), (0.25,)],
    "width_shift_steps": [(2.0, 0.0, 5.0)],
    "shear": [89.0, (-10.0, 0.0)],
    "shear_x": [0.3, (0.1, 0.2)],
    "shear_y": [1.0, (-0.2, 0.2)],
    "zoom": [0.2, (0.01, 5.0)],
    "width_zoom": [0.2, (1.5, 2.5)],
    "perspective": [0.5, 1.0],
    "perspective_scale": [0.0, 0.4],
    "crop_padding": [4],
    "crop_area": [(0.08, 1.0), (1.0, 1.0)],
    "crop_ratio": [(0.5, 2.0)],
    "random_crop": [(24, 32)],
    "elastic": [0.3],
    "elastic_scale": [(0.5, 0.5), (0.0, 0.1)],
    "generator_geometry": [True],
    "fill": ["constant", "edge", "wrap", "tensorflow_reflect", "tensorflow_wrap", "scipy_wrap", "scipy_constant"],
    "fill_value": [255.0],
    "interpolation": ["nearest", "nearest_away"],
    "brightness": [1.0, (0.0, 3.0)],
    "brightness_shift": [1.0, (-0.5, 0.2)],
    "contrast": [0.3, (0.2, 0.3)],
    "channel_contrast": [0.3, (1.0, 1.6)],
    "saturation": [0.3, (0.0, 2.0)],
    "hsv_saturation": [(-1.0, 1.0), (0.0, 0.0)],
    "hue": [0.5, (-0.1, 0.2)],
    "hue_either_way": [True],
    "level_shift": [255.0, (0.0, 10.0)],
    "whole_brightness": [(0.0, 0.0), (1.0, 1.0), (0.5, 3.0)],
    "channel_shift": [255.0, (0.0, 10.0)],
    "grayscale": [0.1, 1.0],
    "invert": [0.2],
    "posterize": [0.1],
    "posterize_bits": [1, 8],
    "solarize": [0.1],
    "solarize_threshold": [0.0, 255.0],
    "autocontrast": [0.1],
    "equalize": [0.1],
    "sharpness": [0.5, (0.0, 4.0)],
    "blur": [(0.0, 1.5)],
    "noise": [3.0],
    "policy": ["rand_augment", "trivial_augment", "auto_augment_imagenet", "keras_rand_augment", "aug_mix"],
    "policy_ops": [1, 16],
    "policy_magnitude": [0, 30],
    "policy_factor": [(0.0, 1.0), (0.2, 0.2)],
    "policy_chains": [1, 16],
    "policy_depth": [1, 16],
    "policy_alpha": [0.1],
    "policy_all_ops": [False],
    "custom": [(Custom("mine:fade"),), (Custom("mine:fade"), Custom("mine:frame", {"width": 2}))],
    "erasing": [0.5],
    "erasing_area": [(0.1, 0.1)],
    "erasing_ratio": [(1.0, 1.0), None],
    "erasing_value": [128.0, (0.0, 255.0, 3.0), None],
    "mixup": [0.2],
    "cutmix": [1.0],
    "cutmix_inside": [(0.0, 0.0), (0.2, 1.0)],
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
    "height_shift_steps": [(-1.0,), 3.0, ("a",)],
    "width_shift_steps": [(1.0, -0.5)],
    "shear": [90.0, (-95.0, 0.0), -1.0],
    "shear_x": [1.5, (0.2, 0.1), -0.1],
    "shear_y": [(-2.0, 0.0)],
    "zoom": [1.0, (0.0, 1.0), *WRONG_FACTORS],
    "width_zoom": [1.0, (0.0, 1.0), *WRONG_FACTORS],
    "perspective": WRONG_PROBABILITIES,
    "perspective_scale": [-0.1, 1.1],
    "crop_padding": [-1, 1.5],
    "crop_area": [(0.0, 1.0), (0.5, 0.2), (0.5, 1.5), 0.5, (0.1, 0.2, 0.3)],
    "crop_ratio": [(0.0, 1.0), (2.0, 1.0), None],
    "random_crop": [(0, 3), (2.5, 3), 24, (1, 2, 3)],
    "elastic": WRONG_PROBABILITIES,
    "elastic_scale": [(0.5, 0.2), (0.0, 1.5), 0.5],
    "generator_geometry": ["yes"],
    "fill": ["mirror", 3],
    "fill_value": [-1.0, 256.0],
    "interpolation": ["cubic"],
    "brightness": WRONG_FACTORS,
    "brightness_shift": [1.5, (-2.0, 0.0), -0.1],
    "contrast": WRONG_FACTORS,
    "channel_contrast": WRONG_FACTORS,
    "saturation": WRONG_FACTORS,
    "hsv_saturation": [(0.5, 0.1), (-2.0, 0.0), (0.0, 1.5), 0.5],
    "hue": [0.6, (-0.6, 0.0), -0.1],
    "hue_either_way": [1],
    "level_shift": [256.0, (-300.0, 0.0)],
    "whole_brightness": [(1.5, 0.5), (-1.0, 1.0), 1.0],
    "channel_shift": [256.0, (-300.0, 0.0)],
    "grayscale": WRONG_PROBABILITIES,
    "invert": WRONG_PROBABILITIES,
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
    "policy_factor": [(0.5, 0.1), (0.0, 1.5)],
    "policy_chains": [0, 17],
    "policy_depth": [0, 17],
    "policy_alpha": [0.0, -1.0],
    "policy_all_ops": [0],
    "custom": ["mine:fade", (fade,)],
    "erasing": WRONG_PROBABILITIES,
    "erasing_area": [(0.0, 0.5), (0.5, 0.2), (0.5, 1.1)],
    "erasing_ratio": [(0.0, 1.0), (2.0, 1.0)],
    "erasing_value": [-1.0, 256.0, (0.0, 1.0), (0.0, 300.0, 0.0)],
    "mixup": [-0.1, (0.1, 0.2)],
    "cutmix": [-1.0],
    "cutmix_inside": [(0.5, 0.1), (-0.1, 0.5), (0.0, 1.5)],
}
NAMES = [field.name for field in fields(AugmentConfig)]


def test_cases_name_every_field():
    assert list(RIGHT) == list(WRONG) == NAMES
    groups = [*AMOUNTS, *FACTORS, *PROBABILITIES, *MANNERS]
    assert len(set(groups)) == len(groups)
    assert set(groups) <= set(NAMES)


def test_every_range_is_one_of_amounts_or_of_factors_and_no_other_field_is():
    ranges = {name for name, kind in get_type_hints(AugmentConfig).items() if kind in (AmountRange, AmountRange | None)}
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
        assert config.pairs_examples == (name in ("mixup", "cutmix", "cutmix_inside"))


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
        data = DataConfig(center_crop="24x32" if name == "random_crop" else None)
        config = RunConfig("run", TINY, data, augment=AugmentConfig(**{name: value}))
        read = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
        assert read == config
        assert getattr(read.augment, name) == value
        assert hash(read.augment) == hash(config.augment)


def test_lists_and_whole_numbers_are_put_right():
    config = AugmentConfig(rotation=[-10, 20], crop_area=[0.5, 1], zoom=0, noise=3)  # type: ignore[arg-type]
    assert config == AugmentConfig(rotation=(-10.0, 20.0), crop_area=(0.5, 1.0), noise=3.0)
    assert isinstance(config.rotation, tuple)
    assert replace(config, rotation=0.0).rotation == 0


def test_numbers_of_numpy_are_taken_and_ranges_that_are_none_refused():
    assert presets.random_brightness(np.float32(0.25)) == presets.random_brightness(0.25)
    assert presets.center_crop(np.int64(5), 4) == presets.center_crop(5, 4)
    with pytest.raises(InputError, match="value_range: got None"):
        presets.random_brightness(0.2, value_range=None)


@pytest.mark.parametrize(
    ("field", "value", "rule"), [("rotation", "a", "a number or a list"), ("rotation", np.ones(2), "JSON can hold"),
                                 ("erasing_value", np.ones(3), "JSON can hold")],
)  # fmt: skip
def test_values_of_another_type_are_refused_by_what_is_taken(field, value, rule):
    with pytest.raises(InputError, match=f"augment.{field}: got .* expected .*{rule}"):
        AugmentConfig(**{field: value})

"""Presets against Keras: the same pixels for the same draw, on TensorFlow (recorded) and on JAX."""

import re
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.augment import as_keras, presets
from engine.augment.apply import augment_image
from engine.augment.config import AugmentConfig
from engine.augment.displacement import displaced
from engine.augment.geometry import (
    _about_transposed_centre,
    _product,
    draw_matrix,
    flipped,
    rotated,
    seen_in_perspective,
    sheared,
    shifted,
    warp,
    zoomed,
)
from engine.augment.mixing import _box_inside, cutmix_inside
from engine.augment.presets import image_data_generator
from tests.augment.test_geometry import places
from tests.keras_layers import (
    CORNERS,
    ELASTIC,
    ELASTIC_SHAPE,
    FILE,
    FILL_VALUE,
    INTERPOLATIONS,
    LAYERS,
    Layer,
    image,
    of_keras,
)

HALF = 0.5  # of a level
# Keras reads through a name that scipy has deprecated.
through_old_name = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
KEYS = jax.random.split(jax.random.key(1), 12)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """What Keras on TensorFlow made, by the names of LAYERS."""
    with np.load(FILE) as stored:
        return dict(stored)


def preset_of(layer: Layer) -> AugmentConfig:
    """Our preset of the same name, with the same arguments."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", layer.name).lower()
    return getattr(presets, name)(**layer.arguments)


@cache
def warps(fill: Any, interpolation: Any, shape: tuple[int, ...]) -> Any:
    """(image, matrices [n 3 3]) → [n h w c]."""
    one = partial(warp, fill=fill, fill_value=FILL_VALUE, interpolation=interpolation)
    return jax.jit(jax.vmap(one, in_axes=(None, 0)))


def drawn(layer: Layer) -> np.ndarray:
    """[n h w c]: what the preset makes of the image for so many keys."""
    config, shown = preset_of(layer), jnp.asarray(image(layer.shape))
    if layer.name in ("RandomRotation", "RandomTranslation", "RandomZoom", "RandomShear"):
        matrices = jnp.stack([draw_matrix(key, *layer.shape[:2], config) for key in KEYS])
        return np.asarray(warps(config.fill, config.interpolation, layer.shape)(shown, matrices))
    return np.asarray(jax.jit(jax.vmap(lambda key: augment_image(key, shown, config)))(KEYS))


def assert_same_outcomes(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Every image [n h w c] of one side is one of the other, up to half a level."""
    distances = np.abs(ours[:, None] - np.clip(theirs, 0, 255)[None]).max((2, 3, 4))
    assert distances.min(1).max() < HALF
    assert distances.min(0).max() < HALF


# Keras lets negative levels stand, which our other changes could not go on with: cut to 0 on both sides.
@pytest.mark.parametrize("kind", sorted({name.split(",")[0] for name in LAYERS}))
def test_preset_of_a_layer_gives_the_pixels_of_keras_on_tensorflow(recorded, kind: str):
    for name in (name for name in LAYERS if name.split(",")[0] == kind):
        ours = drawn(LAYERS[name])
        assert_same_outcomes(ours, recorded[name])
        assert np.abs(ours - image(LAYERS[name].shape)).max() > 1


@pytest.mark.parametrize("name", ["shear, reflect, bilinear", "jitter", "saturation negative"])
def test_recorded_pixels_are_those_of_the_keras_that_is_installed(keras, recorded, name: str):
    assert_same_outcomes(of_keras(keras, LAYERS[name]), np.clip(recorded[name], 0, 255))


def test_whole_path_gives_the_pixels_of_keras(recorded):
    for name in ("rotation, wrap, bilinear", "zoom out twice, reflect, nearest", "shear, constant, bilinear"):
        config, shown = preset_of(LAYERS[name]), jnp.asarray(image(LAYERS[name].shape))
        results = jax.jit(jax.vmap(lambda key, config=config, shown=shown: augment_image(key, shown, config)))(KEYS)
        assert_same_outcomes(np.asarray(results), recorded[name])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_perspective_gives_the_pixels_of_keras_on_tensorflow(recorded, interpolation: str):
    config = presets.random_perspective(interpolation=interpolation, fill_value=FILL_VALUE)  # type: ignore[arg-type]
    shown, moves = jnp.asarray(image()), jnp.array(CORNERS).reshape(4, 2)
    matrix = seen_in_perspective(*image().shape[:2], moves)
    result = warp(shown, matrix, config.fill, config.fill_value, config.interpolation, is_projective=True)
    np.testing.assert_allclose(result, recorded[f"perspective, {interpolation}"], rtol=0, atol=HALF)


def test_perspective_draws_corners_within_its_scale_and_half_of_the_time():
    config = presets.random_perspective(scale=0.6)
    assert (config.perspective, config.fill) == (0.5, "constant")
    keys = jax.random.split(jax.random.key(0), 400)
    matrices = np.asarray(jax.vmap(lambda key: draw_matrix(key, 9, 7, config))(keys), np.float64)
    is_same = np.all(matrices == np.eye(3), axis=(1, 2))
    assert 140 < is_same.sum() < 260
    seen = np.linalg.inv(matrices[~is_same]) @ np.array([[-4, -4, 4, 4], [-3, 3, -3, 3], [1, 1, 1, 1]])
    seen = (seen[:, :2] / seen[:, 2:]) + np.array([4, 3])[:, None]  # from the first pixel
    np.testing.assert_allclose(seen[:, :, 0], 0, atol=1e-4)  # upper left
    moves = np.stack([seen[:, 1, 1] / 6, seen[:, 0, 2] / 8, seen[:, 0, 3] / 8, seen[:, 1, 3] / 6], 1) - 1
    assert 0.28 < np.abs(moves).max() < 0.3001
    assert np.abs(np.corrcoef(moves.T) - np.eye(4)).max() < 0.25


@pytest.mark.parametrize(("scale", "fill"), ELASTIC)
def test_elastic_gives_the_pixels_of_keras_on_tensorflow_for_its_noise(recorded, scale: float, fill: str):
    config = presets.random_elastic_transform(fill_mode=fill, fill_value=FILL_VALUE)  # type: ignore[arg-type]
    noise = jnp.asarray(recorded["elastic noise"])
    moves = displaced(jnp.stack([noise, noise]), scale, config.elastic_scale[1])
    shown = image(ELASTIC_SHAPE)
    result = warp(jnp.asarray(shown), jnp.eye(3), config.fill, FILL_VALUE, "bilinear", moves)
    np.testing.assert_allclose(result, recorded[f"elastic {scale}, {fill}"], rtol=0, atol=HALF)
    assert np.abs(np.asarray(result) - shown).mean() > 20


def test_elastic_happens_half_of_the_time_and_moves_both_ways_apart():
    config, shown = presets.random_elastic_transform(scale=(0.5, 0.5)), jnp.asarray(image((20, 20, 1)))
    keys = jax.random.split(jax.random.key(0), 60)
    results = np.asarray(jax.jit(jax.vmap(lambda key: augment_image(key, shown, config)))(keys))
    is_same = np.all(results == np.asarray(shown), axis=(1, 2, 3))
    assert 15 < is_same.sum() < 45
    assert len({result.tobytes() for result in results}) == 1 + (~is_same).sum()


@pytest.mark.parametrize("factor", [0.2, 1.0, 1.7])
def test_contrast_is_that_of_keras(keras, factor: float):
    layer = keras.layers.RandomContrast(0.9)
    expected = layer.transform_images(jnp.asarray(image()[None]), {"contrast_factor": factor})[0]
    np.testing.assert_allclose(as_keras.adjust_channel_contrast(image(), factor), expected, rtol=0, atol=HALF)
    config = AugmentConfig(channel_contrast=(factor, factor))
    np.testing.assert_allclose(augment_image(KEYS[0], jnp.asarray(image()), config), expected, rtol=0, atol=HALF)


def test_ranges_of_factors_are_those_of_keras(keras):
    layers = keras.layers
    for factor in (0.3, (0.1, 0.4)):
        contrast = layers.RandomContrast(factor)
        limits = (1 - contrast.factor[0], 1 + contrast.factor[1])
        assert presets.random_contrast(factor).range("channel_contrast") == limits
        assert presets.random_brightness(factor).range("brightness_shift") == layers.RandomBrightness(factor).factor
        assert presets.random_saturation(factor).hsv_saturation == layers.RandomSaturation(factor).factor
        hue = presets.random_hue(factor)
        assert (hue.range("hue"), hue.hue_either_way) == (
            tuple(limit / 2 for limit in layers.RandomHue(factor).factor),
            True,
        )
        for preset, layer, name in (
            (presets.random_invert, layers.RandomInvert, "invert"),
            (presets.random_perspective, layers.RandomPerspective, "perspective"),
            (presets.random_elastic_transform, layers.RandomElasticTransform, "elastic"),
            (presets.random_erasing, layers.RandomErasing, "erasing"),
        ):
            assert getattr(preset(factor), name) == pytest.approx(sum(layer(factor).factor) / 2)
        assert presets.random_erasing(scale=factor).erasing_area == layers.RandomErasing(scale=factor).scale
        assert presets.cut_mix(factor).cutmix_inside == layers.CutMix(factor).factor
        elastic = presets.random_elastic_transform(scale=factor)
        assert elastic.elastic_scale == layers.RandomElasticTransform(scale=factor).scale
        shear = presets.random_shear(factor, factor)
        assert shear.range("shear_x") == shear.range("shear_y") == layers.RandomShear(factor, factor).x_factor
        assert presets.aug_mix(factor=factor).policy_factor == layers.AugMix(factor=factor).factor
        assert presets.rand_augment(factor=factor).policy_factor == layers.RandAugment(factor=factor).factor


def test_defaults_are_those_of_keras(keras):
    layers = keras.layers
    mixed, augmented = presets.aug_mix(), layers.AugMix()
    assert (mixed.policy_chains, mixed.policy_depth) == (augmented.num_chains, augmented.chain_depth)
    assert (mixed.policy_alpha, mixed.policy_all_ops) == (augmented.alpha, augmented.all_ops)
    assert mixed.policy_factor == augmented.factor
    assert presets.rand_augment().policy_ops == layers.RandAugment().num_ops
    assert presets.mix_up().mixup == layers.MixUp().alpha
    assert presets.cut_mix().cutmix_inside == layers.CutMix().factor
    erased = layers.RandomErasing()
    assert presets.random_erasing().erasing_area == erased.scale
    assert presets.random_erasing().erasing_value is erased.fill_value is None
    assert presets.random_grayscale().grayscale == layers.RandomGrayscale().factor


# ---- boxes ----


def at_place(layer: Any, place: float) -> Any:
    """The layer, which now lays its boxes at that share of the room they have, in both directions."""

    def bounds(batch_size: int, length: int, ratio: Any, seed: Any) -> tuple[Any, Any]:
        start = place * (length - ratio * length)
        return start, start + ratio * length

    layer._compute_crop_bounds = bounds
    return layer


@pytest.mark.parametrize("share", [0.05, 0.33, 0.6])
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
def test_box_of_random_erasing_is_that_of_keras(keras, share: float, place: float):
    layer = at_place(keras.layers.RandomErasing((1.0, 1.0), (share, share), 128.0), place)
    shown = image((12, 17, 3))
    drawn = layer.get_random_transformation(shown[None])
    side = np.sqrt(np.float32(share))
    inside = _box_inside(jnp.array([place, place]), side * 12, side * 17, 12, 17)
    np.testing.assert_array_equal(np.broadcast_to(inside, shown.shape), drawn["batch_masks"][0])


def test_random_erasing_covers_as_keras_does():
    shown, keys = jnp.asarray(image((16, 16, 3))), jax.random.split(jax.random.key(0), 200)
    config = presets.random_erasing((1.0, 1.0), (0.25, 0.25), [10, 200, 30])  # type: ignore[arg-type]
    results = np.asarray(jax.vmap(lambda key: augment_image(key, shown, config))(keys))
    covered = np.all(results == np.array([10, 200, 30]), axis=-1)
    np.testing.assert_array_equal(covered.sum((1, 2)), 64)  # both sides are half
    np.testing.assert_array_equal(results[~covered], np.broadcast_to(shown, results.shape)[~covered])
    corners = np.array([np.argwhere(one)[0] for one in covered])
    for axis in (0, 1):  # a place from 0 to below 8, of which the first pixel that begins in the box is taken
        assert set(corners[:, axis]) == set(range(1, 9))


def test_random_erasing_fills_with_noise_of_the_distribution_of_keras():
    shown, keys = jnp.full((16, 16, 3), 100.5), jax.random.split(jax.random.key(0), 40)
    config = presets.random_erasing((1.0, 1.0), (1.0, 1.0))
    levels = np.asarray(jax.vmap(lambda key: augment_image(key, shown, config))(keys)).ravel()
    # clip(255 · N(0, 1)): half is black, 16 % are white, evenly distributed hardly at all between
    assert abs((levels == 0).mean() - 0.5) < 0.02
    assert abs((levels == 255).mean() - 0.1587) < 0.02
    assert abs(np.median(levels[(levels > 0) & (levels < 255)]) - 0.4587 * 255) < 8


@pytest.mark.parametrize("place", [0.0, 0.4, 0.999])
def test_box_and_share_of_cut_mix_are_those_of_keras(keras, place: float):
    layer = at_place(keras.layers.CutMix((0.7, 0.7)), place)
    layer._generate_mix_weight = lambda batch_size, seed: jnp.full(batch_size, 0.64)
    shown = np.stack([image((12, 17, 3), seed) for seed in range(2)])
    drawn = layer.get_random_transformation(shown)
    side = jnp.sqrt(1 - jnp.float32(0.64))
    inside = _box_inside(jnp.array([place, place]), side * 12, side * 17, 12, 17)
    np.testing.assert_array_equal(np.broadcast_to(inside, shown[0].shape), drawn["batch_masks"][0])
    np.testing.assert_allclose(np.ravel(drawn["mix_weight"])[0], 0.64, rtol=1e-5)


def test_share_of_cut_mix_is_drawn_from_beta_and_the_box_keeps_it():
    first, second = jnp.zeros((64, 64, 1)), jnp.ones((64, 64, 1))
    keys = jax.random.split(jax.random.key(0), 500)
    images, shares = jax.vmap(lambda key: cutmix_inside(key, first, second, (1.0, 1.0)))(keys)
    np.testing.assert_allclose(1 - np.asarray(images).mean((1, 2, 3)), shares, atol=0.04)  # a row of pixels
    assert abs(np.mean(shares) - 0.5) < 0.05
    assert abs(np.var(shares) - 1 / 12) < 0.02


# ---- ImageDataGenerator ----

TRANSFORMS: list[dict[str, Any]] = [
    {"theta": 25.0},
    {"tx": 1.3, "ty": -2.0},
    {"shear": 20.0},
    {"shear": -35.0},
    {"zx": 0.7, "zy": 1.4},
    {"theta": -40.0, "tx": 0.8, "ty": -1.6, "shear": 15.0, "zx": 1.2, "zy": 0.8},
    {"theta": 10.0, "shear": 15.0, "flip_horizontal": True, "flip_vertical": True},
    {"theta": 10.0, "tx": -2.1, "flip_horizontal": True},
    {"tx": 9.4, "ty": -17.25},
]


def matrix_of(transform: dict[str, Any], height: int, width: int) -> jax.Array:
    """What ImageDataGenerator does, with our builders: its x is the height when drawn, the width when applied."""
    matrices = [rotated(transform.get("theta", 0.0)), shifted(-transform.get("ty", 0.0), -transform.get("tx", 0.0))]
    matrices += [sheared(transform.get("shear", 0.0)), zoomed(transform.get("zy", 1.0), transform.get("zx", 1.0))]
    flips = flipped(transform.get("flip_vertical", False), transform.get("flip_horizontal", False))
    config = image_data_generator(horizontal_flip=True)
    return _about_transposed_centre([flips, *matrices], height, width, config)


def is_undecided(matrix: np.ndarray, size: tuple[int, int], order: int) -> np.ndarray:
    """bool[h w]: places on the border, or in the middle between two pixels if the nearest is read, up to rounding."""
    at = places(matrix, *size)
    last = np.array(size).reshape(2, 1, 1) - 1
    undecided = (np.abs(at) < 1e-3) | (np.abs(at - last) < 1e-3)
    if order == 0:
        undecided |= np.abs(at - np.floor(at) - 0.5) < 1e-3
    return np.any(undecided, axis=0)


@through_old_name
@pytest.mark.parametrize("fill", ["nearest", "reflect", "constant", "wrap"])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("shape", [(9, 9, 3), (8, 11, 3)], ids=str)
def test_matrices_give_the_pixels_of_the_image_data_generator(generator, fill: Any, order: int, shape: Any):
    shown = image(shape)
    ours = image_data_generator(rotation_range=1, fill_mode=fill, cval=FILL_VALUE, interpolation_order=order)
    matrices = np.stack([matrix_of(transform, *shape[:2]) for transform in TRANSFORMS])
    results = np.asarray(warps(ours.fill, ours.interpolation, shape)(shown, matrices))
    made = generator(fill_mode=fill, cval=FILL_VALUE, interpolation_order=order, dtype="float32")
    for transform, matrix, result in zip(TRANSFORMS, matrices, results, strict=True):
        expected = made.apply_transform(shown.copy(), transform)
        compared = ~is_undecided(matrix, shape[:2], order)
        assert compared.mean() > 0.7
        difference = np.abs(result - expected)[compared]
        assert difference.max() < HALF, transform


@through_old_name
@pytest.mark.parametrize("arguments", [
    {"height_shift_range": [3]},
    {"width_shift_range": [2, 5]},
    {"height_shift_range": [0.25], "fill_mode": "wrap"},
    {"width_shift_range": 2, "fill_mode": "constant"},
    {"zoom_range": [0.7, 0.7], "brightness_range": [0.6, 0.6], "horizontal_flip": True},
    {"zoom_range": [1.3, 1.3], "brightness_range": [1.7, 1.7], "vertical_flip": True, "fill_mode": "reflect"},
], ids=str)  # fmt: skip
def test_outcomes_are_those_of_the_image_data_generator(generator, arguments: dict[str, Any]):
    shown, config = image((8, 11, 3)), image_data_generator(**arguments)
    made = generator(**arguments, dtype="float32")
    theirs = np.stack([made.random_transform(shown.copy(), seed=seed) for seed in range(40)])
    keys = jax.random.split(jax.random.key(2), 40)
    ours = np.asarray(jax.jit(jax.vmap(lambda key: augment_image(key, jnp.asarray(shown), config)))(keys))
    assert_same_outcomes(ours, theirs)


@pytest.mark.parametrize("amount", [-70.0, 0.5, 120.0])
def test_channel_shift_is_that_of_the_image_data_generator(generator, amount: float):
    shown = image() * 0.5 + 60  # so that its own extremes are other than 0 and 255
    expected = generator().apply_transform(shown.copy(), {"channel_shift_intensity": amount})
    np.testing.assert_allclose(as_keras.shift_levels(shown, amount), expected, rtol=0, atol=1e-3)
    config = image_data_generator(channel_shift_range=40.0)
    assert config.range("level_shift") == (-40.0, 40.0)
    moved = np.asarray(augment_image(KEYS[0], jnp.asarray(shown), config)) - shown
    inside = np.abs(moved - np.median(moved)) < 1e-3
    assert inside.mean() > 0.5  # one amount for all channels, but for those that end at the extremes


@pytest.mark.parametrize("factor", [0.0, 0.37, 1.0, 1.9])
def test_brightness_is_that_of_the_image_data_generator(generator, factor: float):
    shown = image() * 0.93
    expected = generator().apply_transform(shown.copy(), {"brightness": factor})
    config = image_data_generator(brightness_range=(factor, factor))
    np.testing.assert_allclose(augment_image(KEYS[0], jnp.asarray(shown), config), expected, rtol=0, atol=HALF)
    np.testing.assert_array_equal(as_keras.adjust_whole_brightness(shown, factor), expected)


def test_product_and_centre_are_told_apart():
    matrices = [rotated(30.0), shifted(1.0, 2.0)]
    config = image_data_generator(rotation_range=1)
    square, oblong = (_about_transposed_centre(matrices, 8, width, config) for width in (8, 11))
    np.testing.assert_allclose(square, _product(matrices), atol=1e-6)
    assert np.abs(np.asarray(oblong) - np.asarray(square)).max() > 0.1

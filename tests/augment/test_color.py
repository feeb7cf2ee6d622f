"""The colour operations against Pillow, scipy and scikit-image; their draws as distributions.

Pillow works on whole levels: it rounds grey images and means to the nearest and cuts the result, which is where the
tolerances come from.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from engine.augment import color
from engine.augment.color import augment_color
from engine.augment.config import AugmentConfig
from engine.augment.rules import MANNERS
from tests.further import choose_examples
from tests.harnesses import HARNESSES, looped

skimage_color = pytest.importorskip("skimage.color", reason="scikit-image comes with the dev extra")

SETTINGS = settings(max_examples=choose_examples(6, 15), derandomize=True, deadline=None, database=None)
# Few, for each is compiled: no inside at all, and enough pixels for equalize to act.
SHAPES = [(1, 2, 3), (24, 19, 1), (24, 19, 3)]
RADIUS = 6


class Case(NamedTuple):
    """An operation beside its reference, both functions of (image, strength)."""

    ours: Callable[[jax.Array, Any], jax.Array]
    reference: Callable[[np.ndarray, float], np.ndarray]
    lowest: float
    highest: float
    tolerance: Callable[[float], float]
    """Levels, for a strength."""
    is_whole: bool = False
    """Whether strengths are whole numbers."""


def pillow(operation: Callable[..., Image.Image]) -> Callable[[np.ndarray, float], np.ndarray]:
    """A reference that turns arrays into Pillow's images and back."""

    def reference(image: np.ndarray, strength: float) -> np.ndarray:
        levels = image.astype(np.uint8)
        result = operation(Image.fromarray(levels[..., 0] if image.shape[2] == 1 else levels), strength)
        return np.asarray(result).reshape(image.shape)

    return reference


def turned_hue(image: np.ndarray, turns: float) -> np.ndarray:
    if image.shape[2] == 1:
        return image
    hsv = skimage_color.rgb2hsv(image.astype(np.float64) / 255)
    hsv[..., 0] = (hsv[..., 0] + turns) % 1
    return skimage_color.hsv2rgb(hsv) * 255


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(
        image.astype(np.float64), (sigma, sigma, 0), mode="reflect", radius=(RADIUS, RADIUS, 0)
    )


def as_grey(image: Image.Image, _: float) -> Image.Image:
    return image.convert("L").convert(image.mode)


CASES = {
    "brightness": Case(
        color.adjust_brightness, pillow(lambda i, f: ImageEnhance.Brightness(i).enhance(f)), 0, 3, lambda f: 1.01
    ),
    "contrast": Case(  # cut, and grey and its mean rounded by half each
        color.adjust_contrast,
        pillow(lambda i, f: ImageEnhance.Contrast(i).enhance(f)),
        0,
        3,
        lambda f: 1.01 + abs(1 - f),
    ),
    "saturation": Case(  # cut, and grey rounded
        color.adjust_saturation,
        pillow(lambda i, f: ImageEnhance.Color(i).enhance(f)),
        0,
        3,
        lambda f: 1.01 + abs(1 - f) / 2,
    ),
    "sharpness": Case(  # cut, and the smoothed image rounded
        color.adjust_sharpness,
        pillow(lambda i, f: ImageEnhance.Sharpness(i).enhance(f)),
        0,
        3,
        lambda f: 1.01 + abs(1 - f) / 2,
    ),
    "hue": Case(color.adjust_hue, turned_hue, -0.5, 0.5, lambda turns: 1e-3),  # float32 against float64
    "grayscale": Case(lambda i, _: color.grayscale(i), pillow(as_grey), 0, 1, lambda _: 0.51),  # rounded
    "posterize": Case(color.posterize, pillow(lambda i, b: ImageOps.posterize(i, int(b))), 1, 8, lambda b: 0, True),
    "solarize": Case(color.solarize, pillow(lambda i, t: ImageOps.solarize(i, int(t))), 0, 256, lambda t: 0, True),
    "autocontrast": Case(
        lambda i, _: color.autocontrast(i), pillow(lambda i, _: ImageOps.autocontrast(i)), 0, 1, lambda _: 1.01
    ),  # cut
    "equalize": Case(lambda i, _: color.equalize(i), pillow(lambda i, _: ImageOps.equalize(i)), 0, 1, lambda _: 0),
    "blur": Case(
        lambda i, s: color.gaussian_blur(i, s, RADIUS), blurred, 0.2, 9, lambda s: 1e-3
    ),  # float32 against float64
}


def random_levels(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Whole levels as float32: over all the range, over a part of it, few different ones, mostly white, or just one."""
    draw = np.random.default_rng(seed)
    low, high = np.sort(draw.choice(256, 2, replace=False))
    kinds = [
        lambda: draw.integers(0, 256, shape),
        lambda: draw.integers(low, high + 1, shape),
        lambda: draw.choice([low, (low + high) // 2, high], shape),
        lambda: np.where(draw.random(shape) < 0.9, 255, draw.integers(0, 256, shape)),
        lambda: np.full(shape, low),
    ]
    return kinds[seed % len(kinds)]().astype(np.float32)


@cache
def compiled(name: str) -> Callable[[jax.Array, Any], jax.Array]:
    return jax.jit(CASES[name].ours)


@pytest.mark.parametrize("name", CASES)
@SETTINGS
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_operation_is_that_of_the_reference(name: str, shape: tuple[int, ...], seed: int, share: float):
    case, image = CASES[name], random_levels(shape, seed)
    strength = case.lowest + share * (case.highest - case.lowest)
    strength = float(round(strength)) if case.is_whole else float(np.float32(strength))
    expected = np.asarray(case.reference(image, strength), np.float64)
    np.testing.assert_allclose(compiled(name)(image, strength), expected, rtol=0, atol=case.tolerance(strength))


def test_blur_with_a_radius_beyond_the_image_mirrors_it_again_and_again():
    image = random_levels((3, 4, 1), 0)
    expected = ndimage.gaussian_filter(image.astype(np.float64), (5, 5, 0), mode="reflect", radius=(20, 20, 0))
    np.testing.assert_allclose(color.gaussian_blur(jnp.asarray(image), 5.0, 20), expected, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_operation_gives_the_same_under_every_transformation(name: str):
    case, num = CASES[name], 3
    images = jnp.stack([random_levels((20, 17, 3), seed) for seed in range(num)])
    strengths = jnp.linspace(case.lowest, case.highest, num)
    strengths = jnp.round(strengths) if case.is_whole else strengths
    expected = looped(case.ours, images, strengths)
    for harness in HARNESSES.values():  # fused multiply-adds round otherwise
        np.testing.assert_allclose(harness(case.ours, images, strengths), expected, rtol=0, atol=1e-3)


IDENTITIES: dict[str, Callable[[jax.Array, Any], jax.Array]] = {  # of (image, a traced 0)
    "brightness": lambda image, zero: color.adjust_brightness(image, 1 + zero),
    "contrast": lambda image, zero: color.adjust_contrast(image, 1 + zero),
    "saturation": lambda image, zero: color.adjust_saturation(image, 1 + zero),
    "sharpness": lambda image, zero: color.adjust_sharpness(image, 1 + zero),
    "hue": color.adjust_hue,
    "channel_shift": lambda image, zero: color.channel_shift(image, jnp.full(image.shape[2], zero)),
    "posterize": lambda image, zero: color.posterize(image, 8 + zero),
    "solarize": lambda image, zero: color.solarize(image, 256 + zero),
    "blur": lambda image, zero: color.gaussian_blur(image, zero, 3),
    "noise": lambda image, zero: color.add_noise(jax.random.key(0), image, zero),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", IDENTITIES)
def test_strength_of_no_change_gives_the_image_back_to_the_bit(name: str, channels: int):
    image = jax.random.uniform(jax.random.key(1), (7, 6, channels), maxval=255).at[0, 0].set(0).at[0, 1].set(255)
    np.testing.assert_array_equal(jax.jit(IDENTITIES[name])(image, jnp.float32(0)), image)


@pytest.mark.parametrize("name", ["saturation", "hue", "grayscale"])
def test_colour_of_a_grey_image_stays_to_the_bit(name: str):
    image = jax.random.uniform(jax.random.key(1), (5, 4, 1), maxval=255)
    np.testing.assert_array_equal(CASES[name].ours(image, 0.3), image)


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_flat_image_with_the_rounding_of_a_warp_stays(name: str):
    image = 100 + jax.random.uniform(jax.random.key(0), (24, 24, 3), minval=-1e-4, maxval=1e-4)
    np.testing.assert_array_equal(CASES[name].ours(image, 0), image)


EXTREMES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "brightness": lambda image: color.adjust_brightness(image, 1e4),
    "contrast": lambda image: color.adjust_contrast(image, 1e4),
    "saturation": lambda image: color.adjust_saturation(image, 1e4),
    "sharpness": lambda image: color.adjust_sharpness(image, 1e4),
    "hue": lambda image: color.adjust_hue(image, 0.4999),
    "shift up": lambda image: color.channel_shift(image, jnp.full(3, 255.0)),
    "shift down": lambda image: color.channel_shift(image, jnp.full(3, -255.0)),
    "grayscale": color.grayscale,
    "posterize": lambda image: color.posterize(image, 1),
    "solarize": lambda image: color.solarize(image, 0),
    "autocontrast": lambda image: color.autocontrast(100 + image / 255 * 1.001),
    "equalize": color.equalize,
    "blur": lambda image: color.gaussian_blur(image, 1e4, 4),
    "noise": lambda image: color.add_noise(jax.random.key(0), image, 1e4),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_levels_stay_within_0_and_255_as_float32(name: str):
    for image in (random_levels((24, 19, 3), 0), np.full((24, 19, 3), 255, np.float32)):
        result = jax.jit(EXTREMES[name])(jnp.asarray(image))
        assert result.dtype == jnp.float32
        assert result.shape == image.shape
        assert 0 <= result.min() <= result.max() <= 255


# The colour fields in their order, each switched on by itself.
FIELDS: dict[str, dict[str, Any]] = {
    "brightness": {"brightness": 0.5},
    "brightness_shift": {"brightness_shift": 0.2},
    "contrast": {"contrast": (0.6, 1.3)},
    "channel_contrast": {"channel_contrast": 0.3},
    "saturation": {"saturation": 0.4},
    "hsv_saturation": {"hsv_saturation": (0.3, 0.6)},
    "hue": {"hue": 0.2},
    "level_shift": {"level_shift": 20.0},
    "whole_brightness": {"whole_brightness": (0.8, 1.1)},
    "channel_shift": {"channel_shift": 30.0},
    "grayscale": {"grayscale": 0.4},
    "invert": {"invert": 0.3},
    "posterize": {"posterize": 0.5, "posterize_bits": 3},
    "solarize": {"solarize": 0.5, "solarize_threshold": 90.0},
    "autocontrast": {"autocontrast": 0.5},
    "equalize": {"equalize": 0.5},
    "sharpness": {"sharpness": 0.7},
    "blur": {"blur": (0.1, 1.0)},
    "noise": {"noise": 5.0},
}
ALL_ON = AugmentConfig(**{name: value for on in FIELDS.values() for name, value in on.items()})


def draw_many(config: AugmentConfig, image: jax.Array, num: int = 2000) -> np.ndarray:
    """[num h w c]: what as many keys make of an image."""
    keys = jax.random.split(jax.random.key(7), num)
    return np.asarray(jax.jit(jax.vmap(lambda key: augment_color(key, image, config)))(keys))


def test_cases_name_all_colour_fields_in_their_order():
    names = [field.name for field in fields(AugmentConfig)]
    between = names[names.index("brightness") : names.index("policy")]
    assert [name for name in between if name not in MANNERS] == list(FIELDS)


def test_config_without_colour_does_nothing_at_all():
    image = jnp.ones((4, 4, 3))
    assert augment_color(jax.random.key(0), image, AugmentConfig(rotation=10, horizontal_flip=True)) is image


def test_fields_together_are_the_fields_one_by_one_with_the_same_draws():
    image = jnp.asarray(random_levels((24, 19, 3), 0))
    key, expected = jax.random.key(0), image
    for on in FIELDS.values():
        expected = augment_color(key, expected, AugmentConfig(**on))
    np.testing.assert_array_equal(augment_color(key, image, ALL_ON), expected)


def test_batch_is_changed_image_by_image_and_draws_are_a_function_of_the_key_alone():
    config = replace(ALL_ON, posterize=0.0, solarize=0.0, equalize=0.0)  # they make jumps of rounding
    images = jnp.stack([random_levels((20, 17, 3), 0)] * 4)
    keys = jax.vmap(jax.random.key)(jnp.array([3, 4, 5, 3]))
    together, one_by_one = (
        HARNESSES[name](partial(augment_color, config=config), keys, images) for name in ("vmap", "jit")
    )
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-2)
    np.testing.assert_array_equal(one_by_one[0], one_by_one[3])
    assert np.any(np.asarray(one_by_one[0] != one_by_one[1]))


def is_uniform(values: np.ndarray, low: float, high: float) -> bool:
    """Whether values lie within [low, high] and look drawn from it uniformly; fails a sound draw 1 time in 1000."""
    slack = 1e-4 * (high - low)
    within = low - slack <= values.min() and values.max() <= high + slack
    return within and stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_brightness_is_drawn_uniformly():
    results = draw_many(AugmentConfig(brightness=(0.5, 1.8)), jnp.full((1, 1, 1), 100.0))
    assert is_uniform(results[:, 0, 0, 0] / 100, 0.5, 1.8)


def test_contrast_is_drawn_uniformly():
    results = draw_many(AugmentConfig(contrast=0.6), jnp.array([90.0, 110.0])[:, None, None])
    assert is_uniform((results[:, 1, 0, 0] - 100) / 10, 0.4, 1.6)


def test_saturation_is_drawn_uniformly():
    colour = jnp.array([110.0, 100.0, 90.0])[None, None, :]
    results = draw_many(AugmentConfig(saturation=(0.0, 2.0)), colour)
    assert is_uniform((results[:, 0, 0, 0] - results[:, 0, 0, 2]) / 20, 0.0, 2.0)


def test_sharpness_is_drawn_uniformly():
    spot = jnp.full((3, 3, 1), 100.0).at[1, 1].set(113.0)  # smoothed: 105
    results = draw_many(AugmentConfig(sharpness=0.9), spot)
    assert is_uniform((results[:, 1, 1, 0] - 105) / 8, 0.1, 1.9)


def test_hue_is_drawn_uniformly():
    results = draw_many(AugmentConfig(hue=(-0.1, 0.3)), jnp.array([200.0, 40.0, 40.0])[None, None, :])
    hues = skimage_color.rgb2hsv(results.astype(np.float64) / 255)[:, 0, 0, 0]
    assert is_uniform((hues + 0.5) % 1 - 0.5, -0.1, 0.3)


def test_hue_either_way_turns_as_often_one_way_as_the_other():
    image = jnp.full((1, 1, 3), jnp.array([200.0, 100.0, 50.0]))
    drawn = draw_many(AugmentConfig(hue=(0.1, 0.1), hue_either_way=True), image, 400)
    values, counts = np.unique(np.round(drawn[:, 0, 0, 1]), return_counts=True)
    assert len(values) == 2
    assert 160 < counts[0] < 240


def test_channel_shift_is_drawn_uniformly_for_each_channel_apart():
    results = draw_many(AugmentConfig(channel_shift=50.0), jnp.full((2, 1, 3), 100.0))
    shifts = results[:, 0, 0] - 100
    np.testing.assert_array_equal(results[:, 0], results[:, 1])
    assert all(is_uniform(shifts[:, channel], -50, 50) for channel in range(3))
    assert np.abs(np.corrcoef(shifts.T) - np.eye(3)).max() < 0.1


def test_blur_is_drawn_uniformly():
    spot = jnp.zeros((1, 41, 1)).at[0, 20].set(255.0)
    results = draw_many(AugmentConfig(blur=(1.0, 3.0)), spot)[:, 0, :, 0].astype(np.float64)
    variance = (results / results.sum(1, keepdims=True)) @ (np.arange(41.0) - 20) ** 2
    assert is_uniform(np.sqrt(variance), 1.0, 3.0)


def test_noise_is_normal_of_its_deviation_and_independent_between_pixels():
    noise = draw_many(AugmentConfig(noise=8.0), jnp.full((1, 2, 3), 127.0)) - 127
    assert stats.kstest(noise.reshape(-1), stats.norm(0, 8).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(noise.reshape(-1, 6).T) - np.eye(6)).max() < 0.1


@pytest.mark.parametrize("name", ["grayscale", "posterize", "solarize", "autocontrast", "equalize"])
@pytest.mark.parametrize("probability", [0.2, 1.0])
def test_probability_is_how_often_it_happens(name: str, probability: float):
    image = jnp.asarray(random_levels((24, 19, 3), 0)) * 0.5 + 60
    num = 400
    results = draw_many(AugmentConfig(**{name: probability}), image, num)
    changed = np.any(results != np.asarray(image), axis=(1, 2, 3))
    assert stats.binomtest(int(changed.sum()), num, probability).pvalue > 1e-3

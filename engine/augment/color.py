"""Changes of colour and of detail, one image at a time, and the drawing of their strengths.

Images are float32[h w c] of levels from 0 to 255, c = 1 or 3, and so are the results, clipped to that range. Strengths
are numbers or traced scalars; those that mean no change give the image back to the bit. What each operation means is
what Pillow means by it, without Pillow's rounding of the result to whole levels. Batches: vmap.
"""

import zlib
from collections.abc import Callable, Iterable
from functools import reduce

import jax
import jax.numpy as jnp

from engine.augment import as_keras
from engine.augment.config import AugmentConfig

Scalar = float | jax.Array

# Standard deviations at which a blur is cut off; 3e-4 of the weight lies beyond. scipy's default too.
BLUR_REACH = 4.0


def augment_color(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c] after the colour fields of `config` that ask for a change, in their order.

    Each draws with a key of its own name: switching one on leaves the draws of the others as they were.
    """
    for name, change in _CHANGES.items():
        if config.changes(name):  # known when traced: what is off costs nothing
            image = change(jax.random.fold_in(key, zlib.crc32(name.encode())), image, config)
    return image


def adjust_brightness(image: jax.Array, factor: Scalar) -> jax.Array:
    """All levels times `factor` (0 or more): 0 is black."""
    return _clip(image * factor)


def adjust_contrast(image: jax.Array, factor: Scalar) -> jax.Array:
    """Levels at `factor` times their distance from the mean of the grey image: 0 is one even grey.

    Pillow rounds that mean to a whole level; here it keeps its fraction.
    """
    mean = _luma(jnp.mean(image, axis=(0, 1), keepdims=True))  # five times as fast as the mean of the luma
    return _extrapolate(image, mean, factor)


def adjust_saturation(image: jax.Array, factor: Scalar) -> jax.Array:
    """Levels at `factor` times their distance from the grey image: 0 is without colour (Pillow's Color)."""
    return image if _is_grey(image) else _extrapolate(image, _luma(image), factor)


def adjust_sharpness(image: jax.Array, factor: Scalar) -> jax.Array:
    """Levels at `factor` times their distance from the smoothed image: below 1 blurs, above 1 sharpens.

    Smoothing weighs a pixel by 5 and its eight neighbours by 1, over 13; pixels on the border stay as they are.
    """
    h, w, c = image.shape
    flat = image.reshape(h, w * c)  # a long inner axis: 2 times as fast as [h w 3] on the CPU
    padded = jnp.pad(flat, ((1, 1), (c, c)))
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    box = rows[:, : -2 * c] + rows[:, c:-c] + rows[:, 2 * c :]
    y, x = jnp.arange(h)[:, None], jnp.arange(w * c)[None, :] // c
    is_inside = (y > 0) & (y < h - 1) & (x > 0) & (x < w - 1)
    smoothed = jnp.where(is_inside, (box + 4 * flat) / 13, flat)
    return _extrapolate(flat, smoothed, factor).reshape(h, w, c)


def adjust_hue(image: jax.Array, turns: Scalar) -> jax.Array:
    """Colours turned by `turns` of the circle of HSV; value and saturation stay.

    Formula: https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative, which knows no cases.
    """
    if _is_grey(image):
        return image
    red, green, blue = _channels(image)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = 1 / jnp.where(chroma == 0, 1, chroma)  # a pixel without colour has any hue
    from_green_or_blue = jnp.where(value == green, (blue - red) * scale + 2, (red - green) * scale + 4)
    sixths = jnp.where(value == red, (green - blue) * scale, from_green_or_blue) + 6 * turns
    offsets = sixths + jnp.array([5.0, 3.0, 1.0])[None, None, :]  # where each channel's ramp begins
    offsets = offsets - 6 * jnp.floor(offsets / 6)  # `%` takes several times as long on the CPU
    turned = value - chroma * jnp.clip(jnp.minimum(offsets, 4 - offsets), 0, 1)
    return jnp.where(turns == 0, image, _clip(turned))


def channel_shift(image: jax.Array, amounts: jax.Array) -> jax.Array:
    """Levels plus `amounts` (float32[c]), a number for each channel."""
    return _clip(image + amounts[None, None, :])


def grayscale(image: jax.Array) -> jax.Array:
    """All channels at the luma of ITU-R BT.601."""
    return image if _is_grey(image) else jnp.broadcast_to(_clip(_luma(image)), image.shape)


def invert(image: jax.Array) -> jax.Array:
    """255 less each level."""
    return 255 - image


def posterize(image: jax.Array, bits: Scalar) -> jax.Array:
    """The upper `bits` bits (whole, 1 to 8) of each level; 8 changes nothing."""
    step = 2.0 ** (8 - bits)
    return jnp.where(step == 1, image, jnp.floor(_nearest_levels(image) / step) * step)


def solarize(image: jax.Array, threshold: Scalar) -> jax.Array:
    """Levels from `threshold` on inverted; a threshold above 255 changes nothing."""
    return jnp.where(image >= threshold, 255 - image, image)


def autocontrast(image: jax.Array) -> jax.Array:
    """Each channel stretched to 0–255; a channel that spans less than a level stays as it is."""
    low, high = (limit(image, axis=(0, 1), keepdims=True) for limit in (jnp.min, jnp.max))
    span = high - low
    return jnp.where(span < 1, image, _clip((image - low) * (255 / jnp.maximum(span, 1))))


def equalize(image: jax.Array) -> jax.Array:
    """Each channel mapped so that all levels are about equally frequent; whole levels come out.

    As in Pillow, a level maps to how many pixels lie below it, in steps of a 255th of all pixels but those of the
    highest level. A channel stays as it is where that step is 0: in small images, and where the highest level rules.
    """
    h, w, c = image.shape
    # Flat indices: several times as fast on the CPU as pairs of level and channel. Sorting, one-hot comparisons and
    # their products count 5 to 100 times slower.
    levels = _nearest_levels(image)
    first = 256 * jnp.arange(c)[None, None, :]  # where each channel's 256 levels begin
    places = jnp.clip(levels.astype(jnp.int32), 0, 255) + first  # the clip keeps the promise below, whatever comes in
    counts = jnp.zeros(256 * c, jnp.int32).at[places].add(1, mode="promise_in_bounds").reshape(c, 256)
    up_to = jnp.cumsum(counts, axis=1)
    below_highest = jnp.max(jnp.where(up_to == h * w, 0, up_to), axis=1, keepdims=True)  # [c 1]
    step = below_highest // 255
    table = jnp.minimum((step // 2 + up_to - counts) // jnp.maximum(step, 1), 255).astype(jnp.float32)  # [c 256]
    # By way of uint8: an index that XLA has seen before it stores and reads back, which takes 1.5 times as long.
    again = levels.astype(jnp.uint8).astype(jnp.int32) + first
    equalized = table.reshape(-1).at[again].get(mode="promise_in_bounds")
    return jnp.where(step.reshape(1, 1, c) == 0, image, equalized)


def gaussian_blur(image: jax.Array, sigma: Scalar, radius: int) -> jax.Array:
    """Blurred by a Gaussian of `sigma` pixels (0: unchanged), cut off `radius` pixels away; the border is mirrored.

    `radius` is fixed when traced, and the time grows with it; BLUR_REACH times the largest sigma is enough.
    """
    h, w, c = image.shape
    distances = jnp.arange(-radius, radius + 1) / jnp.maximum(sigma, 0.01)  # from 0.01 down only the middle has weight
    weights = jnp.exp(-(distances**2) / 2)
    weights = weights / jnp.sum(weights)
    # Sums of shifted [h wc]: 2 to 6 times as fast as banded matrices up to a radius of 12, convolution is far slower.
    rows = jnp.pad(image, ((radius, radius), (0, 0), (0, 0)), mode="symmetric").reshape(-1, w * c)
    image = _sum(weights[n] * rows[n : n + h] for n in range(2 * radius + 1)).reshape(h, w, c)
    columns = jnp.pad(image, ((0, 0), (radius, radius), (0, 0)), mode="symmetric").reshape(h, -1)
    blurred = _sum(weights[n] * columns[:, n * c : (n + w) * c] for n in range(2 * radius + 1))
    return _clip(blurred.reshape(h, w, c))


def add_noise(key: jax.Array, image: jax.Array, deviation: Scalar) -> jax.Array:
    """Levels plus Gaussian noise of standard deviation `deviation`, drawn for each pixel and channel."""
    return _clip(image + deviation * jax.random.normal(key, image.shape))


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return reduce(jnp.add, terms)


def _clip(image: jax.Array) -> jax.Array:
    return jnp.clip(image, 0, 255)


def _extrapolate(image: jax.Array, degenerate: jax.Array, factor: Scalar) -> jax.Array:
    """`degenerate` at factor 0, `image` at 1 (to the bit, hence this form), beyond it above 1."""
    return _clip(image + (factor - 1) * (image - degenerate))


def _is_grey(image: jax.Array) -> bool:
    return image.shape[-1] == 1


def _channels(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Three times [h w 1]."""
    return image[..., 0:1], image[..., 1:2], image[..., 2:3]


def _luma(image: jax.Array) -> jax.Array:
    """[h w 1] of [h w c], by the weights of ITU-R BT.601; of a grey image itself."""
    if _is_grey(image):
        return image
    red, green, blue = _channels(image)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _nearest_levels(image: jax.Array) -> jax.Array:
    """Whole levels, as float32. Rounded, not cut: a warp's 99.99999 would be 99, the neighbour's 100.00001 100."""
    return jnp.round(image)


_Change = Callable[[jax.Array, jax.Array, AugmentConfig], jax.Array]


def _ranged(name: str, adjust: Callable[[jax.Array, Scalar], jax.Array]) -> _Change:
    """A change by a strength from a range field."""

    def change(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
        return adjust(image, _draw(key, config.range(name)))

    return change


def _chance(name: str, alter: Callable[[jax.Array, AugmentConfig], jax.Array]) -> _Change:
    """A change with the probability that a field gives."""

    def change(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key, getattr(config, name)), alter(image, config), image)

    return change


def _draw(key: jax.Array, limits: tuple[float, float], shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, minval=limits[0], maxval=limits[1])


def _shift_channels(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    return channel_shift(image, _draw(key, config.range("channel_shift"), image.shape[-1:]))


def _turn_hue(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    turns = _draw(key, config.range("hue"))
    if config.hue_either_way:
        turns = turns * jax.random.rademacher(jax.random.fold_in(key, 1), ())
    return adjust_hue(image, turns)


def _blur(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    radius = int(BLUR_REACH * config.blur[1] + 0.5)
    return gaussian_blur(image, _draw(key, config.blur), radius)


# In the order of AugmentConfig's fields.
_CHANGES: dict[str, _Change] = {
    "brightness": _ranged("brightness", adjust_brightness),
    "brightness_shift": _ranged("brightness_shift", as_keras.shift_brightness),
    "contrast": _ranged("contrast", adjust_contrast),
    "channel_contrast": _ranged("channel_contrast", as_keras.adjust_channel_contrast),
    "saturation": _ranged("saturation", adjust_saturation),
    "hsv_saturation": _ranged("hsv_saturation", as_keras.adjust_hsv_saturation),
    "hue": _turn_hue,
    "level_shift": _ranged("level_shift", as_keras.shift_levels),
    "whole_brightness": _ranged("whole_brightness", as_keras.adjust_whole_brightness),
    "channel_shift": _shift_channels,
    "grayscale": _chance("grayscale", lambda image, config: grayscale(image)),
    "invert": _chance("invert", lambda image, config: invert(image)),
    "posterize": _chance("posterize", lambda image, config: posterize(image, config.posterize_bits)),
    "solarize": _chance("solarize", lambda image, config: solarize(image, config.solarize_threshold)),
    "autocontrast": _chance("autocontrast", lambda image, config: autocontrast(image)),
    "equalize": _chance("equalize", lambda image, config: equalize(image)),
    "sharpness": _ranged("sharpness", adjust_sharpness),
    "blur": _blur,
    "noise": lambda key, image, config: add_noise(key, image, config.noise),
}

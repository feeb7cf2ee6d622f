"""Changes of colour in the form of Keras's layers and of its ImageDataGenerator, where that is not Pillow's.

Images are float32[h w c] of levels from 0 to 255, c = 1 or 3, and so are the results, clipped to that range.
"""

import jax
import jax.numpy as jnp

Scalar = float | jax.Array

# Where Keras cuts to whole levels, 99.99998, which float32 makes of an interpolated 100, is 100 and not 99.
_ROUNDING = 1e-3


def shift_brightness(image: jax.Array, share: Scalar) -> jax.Array:
    """`RandomBrightness`: levels plus `share` of 255."""
    return _clip(image + 255 * share)


def adjust_channel_contrast(image: jax.Array, factor: Scalar) -> jax.Array:
    """`RandomContrast`: levels at `factor` times their distance from the mean of their channel."""
    mean = jnp.mean(image, axis=(0, 1), keepdims=True)
    return _clip((image - mean) * factor + mean)


def adjust_hsv_saturation(image: jax.Array, draw: Scalar) -> jax.Array:
    """`RandomSaturation`: the saturation of HSV times u / (1 − u) for the draw u; a negative product counts as 0.

    With S = 1 − min/max a pixel keeps its largest channel, and the others' distance from that is scaled. Keras lets a
    saturation above 1 make levels below 0; here they are 0.
    """
    factor = jnp.maximum(draw / (1 - draw + 1e-7), 0)
    value = jnp.max(image, axis=-1, keepdims=True)
    return _clip(value - (value - image) * factor)


def shift_levels(image: jax.Array, amount: Scalar) -> jax.Array:
    """`channel_shift_range` of ImageDataGenerator: levels plus `amount`, between the image's own extremes."""
    return jnp.clip(image + amount, jnp.min(image), jnp.max(image))


def adjust_whole_brightness(image: jax.Array, factor: Scalar) -> jax.Array:
    """`brightness_range` of ImageDataGenerator: Pillow's Brightness, with levels cut to whole ones before and after."""
    return jnp.floor(_clip(whole(image) * factor))


def whole(image: jax.Array) -> jax.Array:
    """The levels cut to whole ones, as a conversion to uint8 does."""
    return jnp.floor(image + _ROUNDING)


def degenerate(image: jax.Array, factor: Scalar) -> jax.Array:
    """`RandomColorDegeneration`: the share `factor` of the way to the grey image."""
    if image.shape[-1] == 1:
        return image
    weights = jnp.array([0.2989, 0.5870, 0.1140])[None, None, :]
    grey = jnp.sum(image * weights, axis=-1, keepdims=True)
    return _clip(image + factor * (grey - image))


def sharpen(image: jax.Array, factor: Scalar) -> jax.Array:
    """`RandomSharpness`: 0 is the smoothed image (with black beyond the border), 0.5 the image, 1 is sharper."""
    h, w, _ = image.shape
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    box = sum((padded[dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)), jnp.zeros_like(image))
    smoothed = (box + 4 * image) / 13
    return _clip(image + (1 - 2 * factor) * (smoothed - image))


def posterize(image: jax.Array, bits: Scalar) -> jax.Array:
    """`RandomPosterization`: the upper `bits` bits (whole, 1 to 8) of levels cut to whole ones."""
    step = 2.0 ** (8 - bits)
    return jnp.floor(whole(image) / step) * step


def solarize(image: jax.Array, addition: Scalar, threshold: Scalar) -> jax.Array:
    """`Solarization`: levels plus `addition`, then inverted from `threshold` on."""
    brighter = _clip(image + addition)
    return jnp.where(brighter < threshold, brighter, 255 - brighter)


def autocontrast(image: jax.Array) -> jax.Array:
    """`AutoContrast`: each channel stretched to 0–255; an even one stays as it is."""
    low, high = (limit(image, axis=(0, 1), keepdims=True) for limit in (jnp.min, jnp.max))
    span = high - low
    scale = 255 / jnp.where(span == 0, 1, span)
    return jnp.where(span == 0, image, _clip(image * scale - low * scale))


def equalize(image: jax.Array) -> jax.Array:
    """`Equalization` of one image (of a batch Keras counts all images together); an even channel stays as it is."""
    h, w, c = image.shape
    levels = jnp.clip(whole(image), 0, 255).astype(jnp.int32)
    places = levels + 256 * jnp.arange(c)[None, None, :]
    counts = jnp.zeros(256 * c, jnp.int32).at[places].add(1, mode="promise_in_bounds").reshape(c, 256)
    up_to = jnp.cumsum(counts, axis=1)
    lowest = jnp.min(jnp.where(up_to == 0, h * w, up_to), axis=1, keepdims=True)  # [c 1]
    others = h * w - lowest
    table = jnp.round((up_to - lowest) * 255 / jnp.maximum(others, 1)).clip(0, 255)  # [c 256]
    equalized = table.reshape(-1).at[places].get(mode="promise_in_bounds")
    return jnp.where(others.reshape(1, 1, c) == 0, image, equalized)


def _clip(image: jax.Array) -> jax.Array:
    return jnp.clip(image, 0, 255)

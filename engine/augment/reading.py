"""Reading an image between its pixels and beyond its border, as our own rules and as other libraries have them.

Images are float32[h w c] of any range; places (y, x) are float32[h w], in pixels from the first one. The fills of other
libraries:

- tensorflow_reflect: what the elastic layer of Keras has on TensorFlow; above and to the left of the image, the
  outermost pixel is not repeated (d c b | a b c d | d c b a).
- tensorflow_wrap: TensorFlow's ImageProjectiveTransform repeats the image, but does not interpolate over the seam.
- scipy_wrap: scipy.ndimage's `wrap` takes the last pixel for the first one of the next image, so that a period is one
  shorter than the image.
- scipy_constant: scipy.ndimage's `constant` has fill_value everywhere beyond the middle of the outermost pixels.
"""

import jax
import jax.numpy as jnp

from engine.augment.config import FillMode

# A place that float32 has moved by so little past the border still lies on it: 1e-3 of a level at most.
_ON_BORDER = 1e-4


def read_bilinear(image: jax.Array, y: jax.Array, x: jax.Array, fill: FillMode, fill_value: float) -> jax.Array:
    """float32[h w c]: what lies at the places, interpolated between four pixels."""
    within = _within(image, y, x) if fill == "scipy_constant" else None
    y, x = _moved(y, image.shape[0], fill), _moved(x, image.shape[1], fill)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]

    def read(dy: int, dx: int) -> jax.Array:
        return _read(image, top + dy, left + dx, fill, fill_value)

    upper = read(0, 0) * (1 - right) + read(0, 1) * right
    lower = read(1, 0) * (1 - right) + read(1, 1) * right
    values = upper * (1 - down) + lower * down
    return values if within is None else jnp.where(within, values, fill_value)


def read_nearest(
    image: jax.Array, y: jax.Array, x: jax.Array, fill: FillMode, fill_value: float, halves_away: bool = False
) -> jax.Array:
    """float32[h w c]: the nearest pixels. halves_away: .5 is rounded away from 0, as in Keras and C, not to even."""
    within = _within(image, y, x) if fill == "scipy_constant" else None
    y, x = _moved(y, image.shape[0], fill), _moved(x, image.shape[1], fill)
    if halves_away:
        y, x = (_rounded_away(places, size, fill) for places, size in ((y, image.shape[0]), (x, image.shape[1])))
    else:
        y, x = jnp.round(y), jnp.round(x)
    values = _read(image, y, x, fill, fill_value)
    return values if within is None else jnp.where(within, values, fill_value)


def _rounded_away(places: jax.Array, size: int, fill: FillMode) -> jax.Array:
    """The nearest whole places; mirrored ones are rounded as the place inside that they stand for."""
    if fill == "reflect":
        folded = jnp.mod(places, 2 * size)
        places = jnp.clip(jnp.minimum(folded, 2 * size - 1 - folded), 0, size - 1)
    return jnp.sign(places) * jnp.floor(jnp.abs(places) + 0.5)


def _within(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """bool[h w 1]: places no further out than the middle of the outermost pixels."""
    height, width, _ = image.shape
    low = jnp.minimum(y, x) >= -_ON_BORDER
    return (low & (y <= height - 1 + _ON_BORDER) & (x <= width - 1 + _ON_BORDER))[..., None]


def _moved(places: jax.Array, size: int, fill: FillMode) -> jax.Array:
    """The places inside the image that others stand for, where that is more than a whole number of pixels away."""
    if fill not in ("tensorflow_wrap", "scipy_wrap"):
        return places
    if size == 1:
        return jnp.zeros_like(places)
    # Both count periods of one less than the size; TensorFlow moves by the whole size then, and ends where it lands.
    period, step = size - 1, size if fill == "tensorflow_wrap" else size - 1
    before = places + step * (jnp.floor(-places / period) + 1)
    beyond = places - step * jnp.floor(places / period)
    moved = jnp.where(places < 0, before, jnp.where(places > size - 1, beyond, places))
    return jnp.clip(moved, 0, size - 1)


def _read(image: jax.Array, y: jax.Array, x: jax.Array, fill: FillMode, fill_value: float) -> jax.Array:
    """[h w c]: the pixels at whole places (y, x), float32[h w], inside or beyond the image."""
    height, width, channels = image.shape
    row, column = _inside(y.astype(jnp.int32), height, fill), _inside(x.astype(jnp.int32), width, fill)
    # One index into the image as a list of pixels: half the time of indexing rows and columns.
    pixels = jnp.asarray(image).reshape(height * width, channels).at[row * width + column].get(mode="promise_in_bounds")
    if fill == "constant":
        is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        return jnp.where(is_inside[..., None], pixels, fill_value)
    return pixels


def _inside(index: jax.Array, size: int, fill: FillMode) -> jax.Array:
    if fill == "wrap":
        return jnp.mod(index, size)
    if fill == "reflect":
        folded = jnp.mod(index, 2 * size)
        return jnp.minimum(folded, 2 * size - 1 - folded)
    if fill == "tensorflow_reflect":
        folded = jnp.mod(jnp.abs(index), 2 * size)
        return jnp.minimum(folded, 2 * size - 1 - folded)
    return jnp.clip(index, 0, size - 1)

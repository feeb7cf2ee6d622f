"""Functions of images that layers compute, where JAX has none with the same numbers or the same speed."""

import jax
import jax.numpy as jnp

from engine.models.layers import UpSample
from engine.models.shapes import Size, pair


@jax.custom_vjp
def global_max(images: jax.Array) -> jax.Array:
    """[b h w c] → [b c]; the gradient goes to the first of equals."""
    return images.max(axis=(1, 2))


def _global_max_forward(images: jax.Array) -> tuple:
    return global_max(images), (images.shape, images.reshape(len(images), -1, images.shape[3]).argmax(axis=1))


def _global_max_backward(saved: tuple, gradient: jax.Array) -> tuple:
    """By number: that of jnp.max looks for the largest among images that XLA may have computed again, a bit off."""
    (b, h, w, c), winner = saved
    position = jnp.arange(h * w).reshape(1, -1, 1)
    return (jnp.where(position == winner[:, None], gradient[:, None], 0).reshape(b, h, w, c),)


global_max.defvjp(_global_max_forward, _global_max_backward)


def up_sample(layer: UpSample, x: jax.Array) -> jax.Array:
    """Images [b h w c] with `size` times as many rows and columns."""
    if layer.interpolation == "nearest":
        return repeated(repeated(x, 1, pair(layer.size)[0]), 2, pair(layer.size)[1])
    return _between_pixels(x, layer.size)


def _between_pixels(x: jax.Array, size: Size) -> jax.Array:
    """Bilinear, by pixel centres; beyond the outer ones their values."""
    b, h, w, c = x.shape
    times = pair(size)
    return jax.image.resize(x, (b, h * times[0], w * times[1], c), "bilinear")


def repeated(x: jax.Array, axis: int, times: int) -> jax.Array:
    """Each slice along an axis so many times, one after another."""
    wide = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), (*x.shape[: axis + 1], times, *x.shape[axis + 1 :]))
    return wide.reshape(*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1 :])

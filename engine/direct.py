"""Convolutions by the library of `engine/native.py`, with what follows them: bias, relu and a pool in the same pass.

The maps before a pool are never in memory: of a window's largest value it is kept which one it was, and what comes back
is spread out again where it is needed.

Axes: b batch, h w input, y x output, v u windows of a pool, i j kernel, c input channels, o output channels. Images are
NHWC, kernels HWIO.
"""

from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from engine import native
from engine.convolution import cut, eigen_convolve, input_gradient, served, turned, turned_window
from engine.windows import Window, collect

MOST_WASTE = 2.0  # times as many products as needed, up to which the gradient of images is a convolution


class Following(NamedTuple):
    """What is done to the maps: the largest of each window of a pool is taken, the bias added, the positive part kept.

    pool: has no padding; None for none.
    """

    pool: Window | None = None
    is_relu: bool = False


NOTHING = Following()


def direct_conv_general_dilated(
    *arguments: Any, bias: jax.Array | None = None, following: Following = NOTHING, **named: Any
) -> jax.Array:
    """`lax.conv_general_dilated` and what follows it, value and gradients.

    What `native.serves` not goes to Eigen or lax, with nothing following.
    """
    return served(partial(_convolve, bias, following), *arguments, **named)


def _convolve(
    bias: jax.Array | None, following: Following, images: jax.Array, kernel: jax.Array, window: Window, precision: Any
) -> jax.Array:
    if not native.serves(images, kernel.shape, window):
        assert (bias, following) == (None, NOTHING), "asked for without native.serves"
        return eigen_convolve(images, kernel, window, precision)
    images, window = cut(images, window)
    bias = jnp.zeros(kernel.shape[3]) if bias is None else bias
    return _direct(following, window, precision, images, kernel, bias)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _direct(
    following: Following, window: Window, precision: Any, images: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """[b h w c] * [i j c o] + [o] → [b y x o], or [b v u o] after a pool."""
    return _forward(following, window, precision, images, kernel, bias)[0]


def _forward(
    following: Following, window: Window, precision: Any, images: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple]:
    pool, is_relu = following
    if pool is None:
        maps, winners = native.convolve(images, kernel, bias, window, is_relu), None
    else:
        maps, winners = native.convolve_pooled(images, kernel, bias, window, pool, is_relu)
    return maps, (images, kernel, winners, maps if is_relu else None)


def _backward(following: Following, window: Window, precision: Any, saved: tuple, gradient: jax.Array) -> tuple:
    images, kernel, winners, positive = saved
    if positive is not None:
        gradient = jnp.where(positive > 0, gradient, 0)
    to_bias = gradient.sum((0, 1, 2))
    if following.pool is None:
        to_images = input_gradient(images.shape, kernel, gradient, window, precision, partial(_convolve, None, NOTHING))
        return to_images, native.kernel_gradient(images, gradient, window), to_bias
    to_kernel = native.kernel_gradient_pooled(images, winners, gradient, window, following.pool)
    return _to_images(images.shape, kernel, winners, gradient, window, following.pool, precision), to_kernel, to_bias


_direct.defvjp(_forward, _backward)


def _to_images(
    shape: tuple[int, ...],
    kernel: jax.Array,
    winners: jax.Array,
    gradient: jax.Array,
    window: Window,
    pool: Window,
    precision: Any,
) -> jax.Array:
    """[b h w c] of what came back to the winners [b v u o]."""
    (b, v, u, o), (h, w, c) = gradient.shape, shape[1:]
    y, x = ((n - 1) * step + size for n, step, size in zip((v, u), pool.strides, pool.size, strict=True))
    onto_images = turned_window(window, (h, w), (y, x))
    is_wasteful = window.strides != (1, 1) or h * w > MOST_WASTE * y * x or min(map(min, onto_images.pads)) < 0
    if c % native.LANES == 0 and not is_wasteful:
        return native.input_gradient_pooled(shape, winners, gradient, turned(kernel), onto_images, pool)
    to_maps = collect((jnp.where(winners == n, gradient, 0) for n in range(prod(pool.size))), (b, y, x, o), pool)
    return input_gradient(shape, kernel, to_maps, window, precision, partial(_convolve, None, NOTHING))

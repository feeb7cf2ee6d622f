"""Convolution as matrix products of patches, with hand-written gradients: only products and elementwise operations.

On a GPU such a step becomes one CUDA graph, which cuDNN's convolutions would split into pieces.

Axes: b batch, h w input, y x output, i j kernel, c input channels, o output channels. Images are NHWC, kernels HWIO.
"""

from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from engine.kernels.windows import Window, pad, slice_at, spread, total
from engine.kernels.xla import with_fallback


def convolve_patches(images: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> jax.Array:
    """[b h w c] * [i j c o] → [b y x o]."""
    return _convolve(pad(images, window.pads), kernel, window, precision)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> jax.Array:
    """[b h w c] * [i j c o] → [b y x o], no padding."""
    return _product(_patches(images, window), kernel.reshape(-1, kernel.shape[3]), precision)


def _forward(images: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> tuple:
    return _convolve(images, kernel, window, precision), (images, kernel)


def _backward(window: Window, precision: Any, saved: tuple, gradient: jax.Array) -> tuple:
    images, kernel = saved
    patches = _patches(images, window)  # computed again: cheaper than storing nine times the images
    kernel_gradient = _product_over_pixels(patches, gradient, precision).reshape(kernel.shape)  # [i j c o]
    return _input_gradient(images.shape, kernel, gradient, window, precision), kernel_gradient


_convolve.defvjp(_forward, _backward)


def _input_gradient(
    shape: tuple[int, ...], kernel: jax.Array, gradient: jax.Array, window: Window, precision: Any
) -> jax.Array:
    """[b h w c]: a product gives each output's contribution to each position of its window; shifted adds sum them."""
    b, h, w, c = shape
    y, x = gradient.shape[1:3]
    columns = kernel.reshape(-1, kernel.shape[3]).T  # [o ijc]
    sent = _product(gradient, columns, precision).reshape(b, y, x, prod(window.size), c)
    return total(spread(sent[:, :, :, n], offset, window.strides, (h, w)) for n, offset in enumerate(window.offsets()))


def _patches(images: jax.Array, window: Window) -> jax.Array:
    """[b y x ijc]: all pixels under each position of the window."""
    y, x = window.positions(*images.shape[1:3])
    return jnp.concatenate([slice_at(images, offset, window.strides, (y, x)) for offset in window.offsets()], axis=-1)


def _product(pixels: jax.Array, columns: jax.Array, precision: Any) -> jax.Array:
    """[b y x d] · [d o] → [b y x o]."""
    flat = jnp.dot(pixels.reshape(-1, pixels.shape[-1]), columns, precision=precision)
    return flat.reshape(*pixels.shape[:-1], columns.shape[1])


def _product_over_pixels(left: jax.Array, right: jax.Array, precision: Any) -> jax.Array:
    """[b y x d] and [b y x o] → [d o], summed over all pixels."""
    return jnp.dot(left.reshape(-1, left.shape[-1]).T, right.reshape(-1, right.shape[-1]), precision=precision)


def matrix_conv_general_dilated(*arguments: Any, **named: Any) -> jax.Array:
    """`lax.conv_general_dilated` as matrix products of patches. Calls that these do not support go to lax."""
    return with_fallback(convolve_patches, *arguments, **named)

"""Depthwise convolution as shifted sums, with hand-written gradients: lax is ten times slower on the CPU.

Axes: b batch, h w input, y x output, i j kernel, c channels.
"""

from functools import partial
from math import gcd

import jax
import jax.numpy as jnp

from engine.kernels.windows import Window, collect, pad, slice_at, total

FOLD = 16  # images that one fused sum adds up: XLA's reductions over pixels do not use vector units


def shifted_sums(images: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """[b h w c] * [i j 1 c] → [b y x c]."""
    return depthwise(pad(images, window.pads), kernel[:, :, 0], window)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(images: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """[b h w c] (padded) * [i j c] → [b y x c]."""
    y, x = window.positions(*images.shape[1:3])
    weights = kernel.reshape(-1, kernel.shape[2])  # [ij c]
    positions = enumerate(window.offsets())
    return total(slice_at(images, offset, window.strides, (y, x)) * _row(weights, n) for n, offset in positions)


def _depthwise_forward(images: jax.Array, kernel: jax.Array, window: Window) -> tuple:
    return depthwise(images, kernel, window), (images, kernel)


def _depthwise_backward(window: Window, saved: tuple, gradient: jax.Array) -> tuple:
    images, kernel = saved
    b, y, x, c = gradient.shape
    weights = kernel.reshape(-1, c)  # [ij c]
    sent = (gradient * _row(weights, n) for n in range(len(weights)))
    input_gradient = collect(sent, images.shape, window._replace(pads=((0, 0), (0, 0))))
    folds = gcd(b, FOLD)
    rows = [slice(n, n + b // folds) for n in range(0, b, b // folds or 1)] or [slice(0)]
    products = [
        total(slice_at(images[row], offset, window.strides, (y, x)) * gradient[row] for row in rows)
        for offset in window.offsets()
    ]
    return input_gradient, jnp.sum(jnp.stack(products), axis=(1, 2, 3)).reshape(kernel.shape)  # stacked: not fused


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _row(weights: jax.Array, n: int) -> jax.Array:
    return weights[n].reshape(1, 1, 1, -1)

"""Convolutions fused with bias, relu and a pool, by our own code for this device.

On a CPU this is the library of `engine/kernels/ffi.py`, on an NVIDIA GPU `engine/kernels/triton.py`.

The maps before a pool are never stored: only the position of each window's largest value is, and the gradient is
scattered back to these positions.

Axes: b batch, h w input, y x output, v u windows of a pool, i j kernel, c input channels, o output channels. Images are
NHWC, kernels HWIO.
"""

from functools import partial
from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from engine.kernels import ffi, separable
from engine.kernels.depthwise import shifted_sums
from engine.kernels.eigen import cut, eigen_convolve, flip, flipped_window, input_gradient
from engine.kernels.windows import Window, collect, padded_size
from engine.kernels.xla import NHWC, with_fallback

FOLDED_CHANNELS = 4  # of each of 2×2 pixels: cuDNN's products are over eights of channels
MOST_WASTE = 2.0  # times as many products as needed, up to which the gradient of images is a convolution


class FusedTail(NamedTuple):
    """The operations after a convolution: a max pool, then the bias, then relu if `is_relu`.

    pool: without padding; None: no pool.
    """

    pool: Window | None = None
    is_relu: bool = False


NOTHING = FusedTail()


def is_available() -> bool:
    """Whether convolutions can run directly on this device."""
    return ffi.is_available() or _on_gpu() is not None


def supports(images: jax.Array, kernel: Any, window: Window) -> bool:
    """Whether these shapes are convolved directly. kernel: an array, or its shape and dtype."""
    gpu = _on_gpu()
    return gpu.supports(images, kernel) if gpu else ffi.supports(images, kernel, window)


def may_pool(pool: Window) -> bool:
    """Whether a pool without padding can be part of a direct convolution."""
    gpu = _on_gpu()
    return gpu.pools(pool) if gpu else prod(pool.size) <= ffi.MOST_POSITIONS


def _on_gpu() -> ModuleType | None:
    """`triton.py`, on an NVIDIA GPU and if JAX has Pallas for Triton; importing it takes 40 ms."""
    if jax.default_backend() != "gpu":
        return None
    try:
        from engine.kernels import triton
    except ImportError:
        return None
    return triton if triton.is_available() else None


def direct_conv_general_dilated(
    *arguments: Any, bias: jax.Array | None = None, tail: FusedTail = NOTHING, **named: Any
) -> jax.Array:
    """`lax.conv_general_dilated` fused with bias, relu and pool, value and gradients.

    Calls that it does not support fall back to Eigen's form or lax, without the fused bias, relu or pool.
    """
    return with_fallback(partial(_convolve, bias, tail), *arguments, by_channel=_by_channel, **named)


def _by_channel(images: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    if _on_gpu():
        return convolve_by_xla(images, kernel, window, None, images.shape[3])
    is_ours = separable.supports_depthwise(images, kernel, window)
    return (separable.convolve_depthwise if is_ours else shifted_sums)(images, kernel, window)


def _convolve(
    bias: jax.Array | None, tail: FusedTail, images: jax.Array, kernel: jax.Array, window: Window, precision: Any
) -> jax.Array:
    is_plain = bias is None and tail in (NOTHING, FusedTail(ffi.NO_POOL))
    if is_plain and separable.supports_pointwise(images, kernel, window):
        return separable.convolve_pointwise(images, kernel, window)
    if not supports(images, kernel, window):
        assert (bias, tail) == (None, NOTHING), "a fused call of shapes that are not supported"
        return _otherwise(images, kernel, window, precision)
    if tail.pool == ffi.NO_POOL:
        tail = tail._replace(pool=None)
    if tail == NOTHING and _on_gpu():  # then cuDNN is faster, which adds the bias too
        outputs = convolve_by_xla(images, kernel, window, precision)
        return outputs if bias is None else outputs + bias.reshape(1, 1, 1, -1)
    images, window = cut(images, window)
    bias = jnp.zeros(kernel.shape[3], kernel.dtype) if bias is None else bias
    if gpu := _on_gpu():
        return gpu.convolve(*tail, window, precision, images, kernel, bias)
    return _direct(tail, window, precision, images, kernel, bias)


def _otherwise(images: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> jax.Array:
    return (convolve_by_xla if _on_gpu() else eigen_convolve)(images, kernel, window, precision)


def convolve_by_xla(
    images: jax.Array, kernel: jax.Array, window: Window, precision: Any, num_groups: int = 1
) -> jax.Array:
    """[b y x o] by lax, in the form that cuDNN runs fastest on a GPU."""
    if window.size == (1, 1) and not any(map(any, window.pads)):  # else cuDNN reads and fills all the pixels between
        images, window = images[:, :: window.strides[0], :: window.strides[1]], Window((1, 1), (1, 1))
    elif images.shape[3] < FOLDED_CHANNELS and window.strides == (2, 2) and window.dilation == (1, 1):
        images, kernel, window = _fold(images, kernel, window)
    sizes = window.strides, window.pads, None, window.dilation
    return lax.conv_general_dilated(images, kernel, *sizes, NHWC, num_groups, precision=precision)


def _fold(images: jax.Array, kernel: jax.Array, window: Window) -> tuple[jax.Array, jax.Array, Window]:
    """The same convolution with strides of 1 over 2×2 pixels as one of 16 channels, zeros among them.

    cuDNN pads 3 channels to 8 first, and multiplies with these.
    """
    (b, h, w, c), (kh, kw, _, o) = images.shape, kernel.shape
    y, x = window.positions(*padded_size(images.shape, window))
    i, j, zeros = -(-kh // 2), -(-kw // 2), FOLDED_CHANNELS - c
    rows, columns = y - 1 + i, x - 1 + j
    (top, _), (left, _) = window.pads
    edges = (0, 0, 0), (top, 2 * rows - h - top, 0), (left, 2 * columns - w - left, 0), (0, zeros, 0)
    pixels = lax.pad(images, jnp.zeros((), images.dtype), edges).reshape(b, rows, 2, columns, 2, FOLDED_CHANNELS)
    taps = jnp.pad(kernel, ((0, 2 * i - kh), (0, 2 * j - kw), (0, zeros), (0, 0))).reshape(i, 2, j, 2, -1, o)
    folded = pixels.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows, columns, -1)
    return folded, taps.transpose(0, 2, 1, 3, 4, 5).reshape(i, j, -1, o), Window((i, j), (1, 1))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _direct(
    tail: FusedTail, window: Window, precision: Any, images: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """[b h w c] * [i j c o] + [o] → [b y x o], or [b v u o] after a pool."""
    return ffi.convolve(images, kernel, bias, window, *tail, has_winners=False)[0]


def _forward(tail: FusedTail, window: Window, precision: Any, images: Any, kernel: Any, bias: Any) -> tuple:
    outputs, winners = ffi.convolve(images.value, kernel.value, bias.value, window, *tail)
    kept = outputs if tail.is_relu and tail.pool is None else None
    return outputs, (images.value, kernel.value if images.perturbed else None, winners, kept)


def _backward(tail: FusedTail, window: Window, precision: Any, saved: tuple, gradient: Any) -> tuple:
    images, kernel, winners, outputs = saved
    if isinstance(gradient, SymbolicZero):
        return None, None, None
    flipped = None if kernel is None else _flip(images.shape, kernel, gradient.shape, window, tail.pool)
    to_images, to_kernel, to_bias = ffi.gradients(images, flipped, winners, outputs, gradient, window, tail.pool)
    if kernel is None:
        return None, to_kernel, to_bias
    if flipped is None:
        to_maps = _map_gradient(tail, winners, outputs, gradient)
        to_images = input_gradient(images.shape, kernel, to_maps, window, precision, partial(_convolve, None, NOTHING))
    return to_images, to_kernel, to_bias


_direct.defvjp(_forward, _backward, symbolic_zeros=True)


def _flip(
    image_shape: tuple[int, ...], kernel: jax.Array, output_shape: tuple[int, ...], window: Window, pool: Window | None
) -> tuple[jax.Array, Window] | None:
    """The flipped kernel and its window, if convolving with it gives the images' gradient and wastes little.

    Minimal filtering wastes nothing: it has the gradient's tiles already.
    """
    (h, w, c), (y, x) = image_shape[1:], ffi.sums_below(pool, output_shape)
    onto_images = flipped_window(window, (h, w), (y, x))
    is_wasteful = h * w > MOST_WASTE * y * x and not ffi.is_minimal(kernel.shape, window)
    is_wasteful |= window.strides != (1, 1) or min(map(min, onto_images.pads)) < 0
    return None if is_wasteful or c % ffi.LANES else (flip(kernel), onto_images)


def _map_gradient(tail: FusedTail, winners: jax.Array, outputs: jax.Array | None, gradient: jax.Array) -> jax.Array:
    """[b y x o]: gradient with respect to the maps, from that with respect to the outputs."""
    if tail.pool is None:
        return gradient if outputs is None else jnp.where(outputs > 0, gradient, 0)
    pool, (b, _, _, o) = tail.pool, gradient.shape
    shares = (jnp.where(winners == n, gradient, 0) for n in range(prod(pool.size)))
    return collect(shares, (b, *ffi.sums_below(pool, gradient.shape), o), pool)

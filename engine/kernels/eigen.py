"""Convolutions as the backend runs them fastest, drop-in for `lax.conv_general_dilated` inside Flax layers.

On the CPU a convolution is fast, in loops too, if XLA can hand it to Eigen: images NHWC, kernel HWIO, one group, no
dilated images, no reversed window. Gradients by automatic differentiation do not have this form. Outside loops XLA
converts them to it; inside loops it computes them without threads and vector units, up to a hundred times slower. So
value and gradients are written in this form here, and depthwise convolutions as shifted sums.

`engine/kernels/direct.py` is faster still for the shapes it supports; `engine/kernels/matrix.py` uses only matrix
products. `benchmarks/NOTES.md` has the measurements.

Axes: b batch, h w input, y x output, i j kernel, c input channels, o output channels. Images are NHWC, kernels HWIO.
"""

import re
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from engine.kernels.windows import Window, collect, pad, padded_size, spread
from engine.kernels.xla import NHWC, Convolve, with_fallback

THIN_CHANNELS = 4  # up to this number, Eigen's packing of windows costs more than the products
THIN_PIXELS = 4  # this number of neighbours in a row is then treated as one pixel


def eigen_conv_general_dilated(*arguments: Any, **named: Any) -> jax.Array:
    """`lax.conv_general_dilated` in Eigen's form, value and gradients. Calls it does not support go to lax."""
    convolve: Any = eigen_convolve
    return with_fallback(convolve, *arguments, **named)


def stalls_in_loops(program: str) -> bool:
    """Whether a traced program, as text, has a convolution that XLA's CPU backend runs without threads in a loop."""
    numbers = re.findall(r"dimension_numbers=(ConvDimensionNumbers\(.*?\)\))", program)
    groups = re.findall(r"feature_group_count=(\d+)", program)
    eigens = str(lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), NHWC))
    return any(found != eigens for found in numbers) or any(count != "1" for count in groups)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def eigen_convolve(images: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> jax.Array:
    """[b h w c] * [i j c o] → [b y x o]."""
    if images.shape[3] <= THIN_CHANNELS:
        return _thin_convolve(images, kernel, window, precision)
    return _eigen(images, kernel, window, precision)


def _convolve_forward(images: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> tuple:
    return eigen_convolve(images, kernel, window, precision), (images, kernel)


def _convolve_backward(window: Window, precision: Any, saved: tuple, gradient: jax.Array) -> tuple:
    images, kernel = saved
    to_images = input_gradient(images.shape, kernel, gradient, window, precision)
    return to_images, _kernel_gradient(images, gradient, window, precision)


eigen_convolve.defvjp(_convolve_forward, _convolve_backward)


def _eigen(images: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> jax.Array:
    """A convolution in Eigen's form; under vmap one after another, because lax's own rule turns them into groups."""
    images, window = cut(images, window)

    @jax.custom_batching.sequential_vmap
    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        sizes = window.strides, window.pads, None, window.dilation
        return lax.conv_general_dilated(images, kernel, *sizes, NHWC, precision=precision)

    return convolve(images, kernel)


def cut(images: jax.Array, window: Window) -> tuple[jax.Array, Window]:
    """The images cropped along axes with negative padding, and the window with its remaining pads."""
    now, later = zip(*((pads, (0, 0)) if min(pads) < 0 else ((0, 0), pads) for pads in window.pads), strict=True)
    return pad(images, now), window._replace(pads=later)


def _thin_convolve(images: jax.Array, kernel: jax.Array, window: Window, precision: Any) -> jax.Array:
    """[b y x o] with the pixels of a row in blocks: one position of the kernel computes a block of outputs.

    This multiplies with zeros, yet is faster: longer runs to copy, and more columns in the product.
    """
    (_, w, c), (kh, _, _, o) = images.shape[1:], kernel.shape
    y, x = window.positions(*padded_size(images.shape, window))
    step, reach, left = THIN_PIXELS * window.strides[1], window.reach()[1], window.pads[1][0]
    last = (THIN_PIXELS - 1) * window.strides[1]  # the first pixel below the last output of a block
    num_blocks, taps = -(-x // THIN_PIXELS), -(-(last + reach) // step)
    width = (num_blocks + taps - 1) * step
    padded = pad(images, ((0, 0), (left, width - w - left)))
    blocks = padded.reshape(*padded.shape[:2], width // step, step * c)
    offsets = range(0, last + 1, window.strides[1])
    kernels = [spread(kernel, (0, n), (1, window.dilation[1]), (kh, taps * step), first=0) for n in offsets]
    wide = jnp.stack(kernels, axis=3).reshape(
        kh, taps, step * c, -1
    )  # [i taps·step c block o] → [i taps step·c block·o]
    by_block = Window((kh, taps), (window.strides[0], 1), (window.dilation[0], 1), (window.pads[0], (0, 0)))
    maps = _eigen(blocks, wide, by_block, precision)
    return maps.reshape(len(images), y, num_blocks * THIN_PIXELS, o)[:, :, :x]


def _kernel_gradient(images: jax.Array, gradient: jax.Array, window: Window, precision: Any) -> jax.Array:
    """[i j c o]: the images convolved with the gradient, with batch and channels swapped."""
    pads = [
        (low, (n - 1) * stride + 1 + (k - 1) * dilation - size - low)
        for (low, _), n, stride, k, dilation, size in zip(
            window.pads,
            gradient.shape[1:3],
            window.strides,
            window.size,
            window.dilation,
            images.shape[1:3],
            strict=True,
        )
    ]
    by_channel, by_position = images.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)  # [c h w b], [y x b o]
    flipped = Window(by_position.shape[:2], window.dilation, window.strides, tuple(pads))  # type: ignore[arg-type]
    return _eigen(by_channel, by_position, flipped, precision).transpose(1, 2, 0, 3)


def input_gradient(
    shape: tuple[int, ...],
    kernel: jax.Array,
    gradient: jax.Array,
    window: Window,
    precision: Any,
    convolve: Convolve = _eigen,
) -> jax.Array:
    """[b h w c]: the gradient convolved with the flipped kernel; if that takes many more products, `collect`ed."""
    b, h, w, c = shape
    y, x = gradient.shape[1:3]
    if window.strides != (1, 1) or h * w > 1.25 * y * x:
        columns = kernel.reshape(-1, kernel.shape[3]).T  # [o ijc]
        flat = jnp.dot(gradient.reshape(-1, gradient.shape[3]), columns, precision=precision)
        sent = flat.reshape(b, y, x, prod(window.size), c)  # each output's contribution to each position of its window
        return collect((sent[:, :, :, n] for n in range(sent.shape[3])), shape, window)
    return convolve(gradient, flip(kernel), flipped_window(window, (h, w), (y, x)), precision)


def flip(kernel: jax.Array) -> jax.Array:
    """[i j o c]: the flipped and transposed kernel, which maps the gradient of the maps to that of the images."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def flipped_window(window: Window, image: tuple[int, int], maps: tuple[int, int]) -> Window:
    """The window of the convolution with the flipped kernel, from maps [y x] to an image [h w]; for strides of 1."""
    before = [reach - 1 - low for reach, (low, _) in zip(window.reach(), window.pads, strict=True)]
    sizes = zip(before, image, window.reach(), maps, strict=True)
    return window._replace(pads=tuple((n, n_in + reach - 1 - n_out - n) for n, n_in, reach, n_out in sizes))

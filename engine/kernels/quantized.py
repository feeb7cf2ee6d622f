"""Convolutions of uint8 images with int8 kernels, whose int32 sums are exact, for prediction.

On a CPU with AVX512-VNNI by `cpu/quantized.cc`, elsewhere by XLA's operations, which give the same bits but are slower
than float32.

A uint8 q stands for the number (q − zero) · scale. Axes: b batch, h w input, y x output, i j kernel, c input channels,
o output channels. Images are NHWC, kernels HWIO.
"""

from functools import cache
from math import gcd
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from engine.kernels.libraries import QUANTIZED
from engine.kernels.windows import Window, padded_size
from engine.kernels.xla import NHWC

LANES, GROUP = 16, 4  # filters of a vector; values that one instruction multiplies and adds up
MOST_TAPS = 2**15  # values of a kernel for one filter: sums of so many products, and a bias as large, fit int32
MOST_AT_ONCE = 64  # rows of a matrix that one thread multiplies
LARGEST = 255


class Tail(NamedTuple):
    """What follows the sums. Outputs are float32 `sum · factor` if `zero` is None.

    is_pooled: first the largest of each 2×2 sums is taken, without padding.
    zero: outputs are uint8, zero + round(sum · factor), at least `least` and at most `largest`.
    """

    is_pooled: bool = False
    zero: int | None = None
    least: int = 0
    largest: int = LARGEST


@cache
def is_fast() -> bool:
    """Whether this processor has the instructions, and our library can be loaded or compiled."""
    library = QUANTIZED.load() if jax.default_backend() == "cpu" else None
    return library is not None and bool(library.engine_has_vnni())


def supports(kernel_shape: tuple[int, ...], window: Window) -> bool:
    """Whether a convolution of one group has this form."""
    is_small = np.prod(kernel_shape[:3]) <= MOST_TAPS
    return bool(is_small) and window.dilation[1] == 1 and min(map(min, window.pads)) >= 0


def pack(kernel: jax.Array) -> jax.Array:
    """An int8 kernel, axes i j c o, as it is read, with zeros added: axes i, groups, vectors, 16, 4."""
    i, j, c, o = kernel.shape
    rows = kernel.reshape(i, j * c, o)
    rows = jnp.pad(rows, ((0, 0), (0, -(j * c) % GROUP), (0, -o % LANES)))
    return rows.reshape(i, -1, GROUP, rows.shape[2] // LANES, LANES).transpose(0, 1, 3, 4, 2)


def unpack(packed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The kernel [i j c o] of this shape that `pack` has packed."""
    i, j, c, o = shape
    rows = packed.transpose(0, 1, 4, 2, 3).reshape(i, -1, packed.shape[2] * LANES)
    return rows[:, : j * c, :o].reshape(shape)


def convolve(
    images: jax.Array, packed: jax.Array, bias: jax.Array, factors: jax.Array, edge: jax.Array, window: Window,
    tail: Tail,
) -> jax.Array:  # fmt: skip
    """uint8[b h w c] * int8 kernel + int32[o] → [b y x o], as `tail` says.

    packed: from `pack`. factors: float32[o]. edge: uint8[c], the pixel that images are padded with.
    """
    return (_by_library if is_fast() else by_xla)(images, packed, bias, factors, edge, window, tail)


def multiply(rows: jax.Array, packed: jax.Array, bias: jax.Array, factors: jax.Array, tail: Tail) -> jax.Array:
    """uint8[b d] times an int8 matrix + int32[o] → [b o], as `tail` says; packed: from `pack`, as a kernel of 1×1."""
    b, d = rows.shape
    at_once = gcd(b, MOST_AT_ONCE)
    images, window = rows.reshape(b // at_once, 1, at_once, d), Window((1, 1), (1, 1))
    return convolve(images, packed, bias, factors, jnp.zeros(d, jnp.uint8), window, tail).reshape(b, -1)


def _by_library(
    images: jax.Array, packed: jax.Array, bias: jax.Array, factors: jax.Array, edge: jax.Array, window: Window,
    tail: Tail,
) -> jax.Array:  # fmt: skip
    y, x = _output_size(images.shape, window, tail)
    dtype = jnp.float32 if tail.zero is None else jnp.uint8
    result = jax.ShapeDtypeStruct((len(images), y, x, len(bias)), dtype)
    sizes = [window.size[1], *window.strides, window.dilation[0], window.pads[0][0], window.pads[1][0]]
    sizes += [tail.is_pooled, tail.zero or 0, tail.least, tail.largest]
    call = jax.ffi.ffi_call("engine_quantized_convolution", result, vmap_method="sequential")
    edge = edge.reshape(1, 1, 1, -1)
    return call(images, packed, bias, factors, edge, sizes=np.asarray(sizes, np.int64))  # type: ignore[return-value]


def _output_size(shape: tuple[int, ...], window: Window, tail: Tail) -> tuple[int, int]:
    y, x = window.positions(*padded_size(shape, window))
    return (y // 2, x // 2) if tail.is_pooled else (y, x)


def by_xla(
    images: jax.Array, packed: jax.Array, bias: jax.Array, factors: jax.Array, edge: jax.Array, window: Window,
    tail: Tail,
) -> jax.Array:  # fmt: skip
    """As `convolve`, in XLA's operations."""
    (top, bottom), (left, right) = window.pads
    kernel = unpack(packed, (*window.size, images.shape[3], len(bias))).astype(jnp.int32)
    whole, edge = images.astype(jnp.int32), edge.astype(jnp.int32)
    # Relative to the edge, whose zeros are what lax pads with.
    sums = lax.conv_general_dilated(
        whole - edge.reshape(1, 1, 1, -1), kernel, window.strides, ((top, bottom), (left, right)),
        rhs_dilation=window.dilation, dimension_numbers=NHWC,
    )  # fmt: skip
    sums = sums + (bias + jnp.einsum("ijco,c->o", kernel, edge)).reshape(1, 1, 1, -1)
    if tail.is_pooled:
        y, x = _output_size(images.shape, window, tail)
        sums = sums[:, : 2 * y, : 2 * x].reshape(len(images), y, 2, x, 2, -1).max((2, 4))
    values = sums.astype(jnp.float32) * factors.reshape(1, 1, 1, -1)
    if tail.zero is None:
        return values
    values = jnp.clip(values, tail.least - tail.zero, tail.largest - tail.zero)
    return (jnp.round(values).astype(jnp.int32) + tail.zero).astype(jnp.uint8)

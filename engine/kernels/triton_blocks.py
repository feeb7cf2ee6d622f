"""Blocks of products in Triton: sizes, the pixels that a block reads, masked loads, integer division, launches."""

import warnings
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from engine.kernels.windows import Window

ROWS = (128, 64)  # of a block's product: pixels, or positions of pool windows; with fewer, Hopper's tensor cores rest
BLOCKS = 264  # the least that keep a GPU busy: two for each multiprocessor of an H100
COLUMNS = 64  # of a block's product, at most: filters, or channels
DEPTH = 64  # inner size of a block's product, at most
LEAST = 16  # smallest side of Triton's products
FLOAT32 = lax.DotAlgorithmPreset.F32_F32_F32

# Of the compilation of each kernel, long after its launch is traced. docs/why.md says what follows when it goes.
warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)


class Sizes(NamedTuple):
    """The sizes of one convolution: images [b h w c], maps [b y x o], outputs [b v u o]."""

    images: tuple[int, int, int, int]
    maps: tuple[int, int]
    outputs: tuple[int, int]
    filters: int
    window: Window
    pool: Window

    @property
    def depth(self) -> int:
        """Rows of the kernel: i × j × c."""
        return prod(self.window.size) * self.images[3]

    @property
    def positions(self) -> int:
        """Positions in a pool's window."""
        return prod(self.pool.size)


class Pixels:
    """Rows of a product: the pixels under the positions of pool windows, from output `first`; num: of all outputs."""

    def __init__(self, sizes: Sizes, first: Any, num_rows: int):
        b, _, _, _ = sizes.images
        v, u = sizes.outputs
        self.sizes, self.num = sizes, b * v * u
        row = jnp.arange(sizes.positions * num_rows)
        self.output, self.position = first + remainder(row, num_rows), divide(row, num_rows)
        (step_v, step_u), (_, wide) = sizes.pool.strides, sizes.pool.size
        self.b = divide(self.output, v * u)
        self.y = remainder(divide(self.output, u), v) * step_v + divide(self.position, wide)
        self.x = remainder(self.output, u) * step_u + remainder(self.position, wide)
        self.is_row = self.output < self.num

    def load(self, images: Any, n: Any, block: int) -> tuple[jax.Array, jax.Array, Any]:
        """(values [rows block], their rows k of the kernel [block], which of these exist [block 1] or None)."""
        (_, h, w, c), window = self.sizes.images, self.sizes.window
        (_, kw), (top, left) = window.size, (window.pads[0][0], window.pads[1][0])
        k = n * block + jnp.arange(block)
        if c % block == 0:  # then a block consists of channels of one position of the kernel
            position, channel = divide(n, c // block), remainder(n, c // block) * block + jnp.arange(block)
            i, j, channel = divide(position, kw), remainder(position, kw), channel[None, :]
        else:
            i, j, channel = divide(k, kw * c), remainder(divide(k, c), kw), remainder(k, c)
            i, j, channel = i[None, :], j[None, :], channel[None, :]
        row = self.y[:, None] * window.strides[0] + i * window.dilation[0] - top
        column = self.x[:, None] * window.strides[1] + j * window.dilation[1] - left
        mask = self.is_row[:, None]
        if max(map(max, window.pads)) > 0:
            mask = mask & (row >= 0) & (row < h) & (column >= 0) & (column < w)
        is_k = None if self.sizes.depth % block == 0 else (k < self.sizes.depth)[:, None]
        offsets = ((self.b[:, None] * h + row) * w + column) * c + channel
        shape = (len(self.output), block)
        mask = mask if is_k is None else mask & (k < self.sizes.depth)[None, :]
        return load(images, broadcast(offsets, shape), broadcast(mask, shape)), k, is_k


def launch(body: Any, results: tuple, grid: tuple[int, ...], *arrays: jax.Array, num_warps: int = 4) -> Any:
    """The results of a kernel's body on a grid of blocks, all arrays flat; interpreted on a CPU."""
    call = pl.pallas_call(
        body, out_shape=results, grid=grid, interpret=jax.default_backend() == "cpu",
        compiler_params=triton.CompilerParams(num_warps=num_warps, num_stages=3),
    )  # fmt: skip
    return call(*(array.reshape(-1) for array in arrays))


def divide(number: Any, by: int) -> Any:
    """Integer division of a non-negative number; Triton has no other integer division."""
    return number if by == 1 else lax.div(number, jnp.full_like(number, by))


def remainder(number: Any, by: int) -> Any:
    """The remainder of a number that is not negative."""
    return jnp.zeros_like(number) if by == 1 else lax.rem(number, jnp.full_like(number, by))


def block_size(size: int, most: int = COLUMNS, least: int = LEAST) -> int:
    """The largest power of two up to `most` that divides a size; at least `least`."""
    return max(least, min(most, size & -size))


def choose_rows(num: int, num_columns: int) -> int:
    """Rows of a block where `num` rows times so many blocks of columns are computed: fewer if blocks would be few."""
    return next((rows for rows in ROWS if num * num_columns >= rows * BLOCKS), ROWS[-1])


def choose_depth_block(channels: int) -> int:
    """How many rows of the kernel are multiplied at once."""
    return block_size(channels, DEPTH) if channels % LEAST == 0 else LEAST if channels == 1 else 2 * LEAST


def broadcast(array: Any, shape: tuple[int, ...]) -> Any:
    """The array in a shape; None for None."""
    return None if array is None else jnp.broadcast_to(array, shape)


def load(array: Any, offsets: Any, mask: Any = None) -> jax.Array:
    """The values at some offsets of a flat array; zero where the mask is false."""
    return triton.load(array.at[offsets], mask=mask, other=None if mask is None else jnp.zeros((), array.dtype))


def dot(a: jax.Array, b: jax.Array, algorithm: Any) -> jax.Array:
    """The matrix product of two blocks, accumulated in float32."""
    return jnp.dot(a, b, precision=algorithm, preferred_element_type=jnp.float32)


def choose_algorithm(dtype: Any, precision: Any) -> Any:
    """Triton's algorithm for a `jax.default_matmul_precision`."""
    if dtype == jnp.bfloat16:
        return None
    presets = lax.DotAlgorithmPreset
    return FLOAT32 if str(precision).lower() in ("highest", "float32") else presets.TF32_TF32_F32

"""Convolutions on an NVIDIA GPU fused with bias, relu and a pool, as implicit matrix products in Triton.

XLA writes patches or whole maps to memory between a convolution, its bias, relu and pool, and reads them again for the
gradients; in small nets that is most of a step. Here each block of outputs reads its pixels directly, accumulates in
registers, and writes only what the next layer reads. No atomics, so runs are bit-identical.

Axes: b batch, h w input, y x maps, v u outputs (after a pool), i j kernel, c input channels, o output channels.
A kernel's rows k are its i, j and c in memory order. Every array is addressed as one flat array.
"""

from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from engine.kernels.triton_blocks import (
    BLOCKS,
    DEPTH,
    LEAST,
    Pixels,
    Sizes,
    block_size,
    broadcast,
    choose_algorithm,
    choose_depth_block,
    choose_rows,
    divide,
    dot,
    launch,
    load,
    remainder,
)
from engine.kernels.windows import Window, padded_size

DEEP = 64  # outputs, times positions of pool windows, that a kernel's gradient adds up at once
MOST_SUMS = 12_288  # of a kernel's gradient that a block keeps in registers, 48 of each of 256 threads
NO_WINNER = -1  # of a window whose largest value relu sets to zero
NO_POOL = Window((1, 1), (1, 1))


def is_available() -> bool:
    """Whether convolutions can run here: on an NVIDIA GPU."""
    return jax.default_backend() == "gpu" and "cuda" in jax.devices()[0].client.platform_version.lower()


def supports(images: Any, kernel: Any) -> bool:
    """Whether images [b h w c] and a kernel [i j c o] are supported: arrays, or their shapes and dtypes."""
    is_float = images.dtype == kernel.dtype and images.dtype in (jnp.float32, jnp.bfloat16)
    return is_float and kernel.shape[3] % LEAST == 0 and max(prod(images.shape), 4 * prod(kernel.shape)) < 2**31


def pools(pool: Window) -> bool:
    """Whether a pool can be fused: its windows do not overlap, and have 1, 2, 4 or 8 positions."""
    return pool.size == pool.strides and prod(pool.size) in (1, 2, 4, 8)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def convolve(
    pool: Window | None, is_relu: bool, window: Window, precision: Any,
    images: jax.Array, kernel: jax.Array, bias: jax.Array,
) -> jax.Array:  # fmt: skip
    """[b h w c] * [i j c o] + [o] → [b v u o], then relu if `is_relu`; no pad is negative."""
    return _forward(pool, is_relu, window, precision, images, kernel, bias)[0]


def _sizes(images: jax.Array, kernel: jax.Array, window: Window, pool: Window | None) -> Sizes:
    maps = window.positions(*padded_size(images.shape, window))
    outputs = pool.positions(*maps) if pool else maps
    return Sizes(images.shape, maps, outputs, kernel.shape[3], window, pool or NO_POOL)  # type: ignore[arg-type]


def _forward(
    pool: Window | None, is_relu: bool, window: Window, precision: Any,
    images: jax.Array, kernel: jax.Array, bias: jax.Array,
) -> tuple:  # fmt: skip
    sizes = _sizes(images, kernel, window, pool)
    shape, dtype = (len(images), *sizes.outputs, sizes.filters), images.dtype
    num, columns = prod(shape[:3]), block_size(sizes.filters)
    rows = choose_rows(num * sizes.positions, sizes.filters // columns) // sizes.positions
    results = jax.ShapeDtypeStruct((prod(shape),), dtype), jax.ShapeDtypeStruct((prod(shape) if pool else 1,), jnp.int8)
    body = partial(_forward_block, sizes, choose_algorithm(dtype, precision), is_relu, pool is not None, rows, columns)
    grid = (pl.cdiv(num, rows), sizes.filters // columns)
    outputs, winners = launch(body, results, grid, images, kernel, bias)
    outputs = outputs.reshape(shape)
    return outputs, (images, kernel, winners if pool else (outputs.reshape(-1) if is_relu else None))


def _forward_block(
    sizes: Sizes, algorithm: Any, is_relu: bool, has_pool: bool, num_rows: int, num_columns: int,
    images: Any, kernel: Any, bias: Any, outputs: Any, winners: Any,
) -> None:  # fmt: skip
    """One block of outputs. Its rows are the positions of the pool's windows, position by position for all windows"""
    o = pl.program_id(1) * num_columns + jnp.arange(num_columns)
    first = pl.program_id(0) * num_rows
    pixels = Pixels(sizes, first, num_rows)
    block = choose_depth_block(sizes.images[3])

    def add(n: Any, total: jax.Array) -> jax.Array:
        values, k, is_row = pixels.load(images, n, block)
        weights = load(kernel, k[:, None] * sizes.filters + o[None, :], broadcast(is_row, (block, num_columns)))
        return total + dot(values, weights, algorithm)

    total = lax.fori_loop(
        0, pl.cdiv(sizes.depth, block), add, jnp.zeros((sizes.positions * num_rows, num_columns), jnp.float32)
    )
    total = total.reshape(sizes.positions, num_rows, num_columns)
    largest = jnp.max(total, axis=0)
    value = largest + load(bias, o).astype(jnp.float32)[None, :]
    value = jnp.maximum(value, 0) if is_relu else value
    position = (first + jnp.arange(num_rows))[:, None] * sizes.filters + o[None, :]
    mask = broadcast((first + jnp.arange(num_rows) < pixels.num)[:, None], position.shape)
    triton.store(outputs.at[position], value.astype(outputs.dtype), mask=mask)
    if has_pool:
        number = lax.broadcasted_iota(jnp.int32, total.shape, 0)
        winner = jnp.min(jnp.where(total == largest[None], number, sizes.positions), axis=0)
        winner = jnp.where(value > 0, winner, NO_WINNER) if is_relu else winner
        triton.store(winners.at[position], winner.astype(jnp.int8), mask=mask)


def _backward(pool: Window | None, is_relu: bool, window: Window, precision: Any, saved: tuple, gradient: Any) -> tuple:
    images, kernel, kept = saved
    sizes = _sizes(images, kernel, window, pool)
    algorithm = choose_algorithm(images.dtype, precision)
    has_pool, kept = pool is not None, jnp.zeros(1, jnp.int8) if kept is None else kept
    arrays = (gradient.reshape(-1), kept)
    to_kernel, to_bias = _to_kernel(sizes, algorithm, is_relu, has_pool, images, arrays, kernel.dtype)
    to_maps = _to_maps(sizes, is_relu, has_pool, gradient, kept.reshape(gradient.shape) if kept.size > 1 else kept)
    return _to_images(sizes, algorithm, images, kernel, to_maps), to_kernel.reshape(kernel.shape), to_bias


convolve.defvjp(_forward, _backward)


def _to_maps(sizes: Sizes, is_relu: bool, has_pool: bool, gradient: jax.Array, kept: jax.Array) -> jax.Array:
    """[b y x o]: gradient with respect to the maps, as far as the pool reads them; XLA writes it, once for all taps."""
    if not has_pool:
        return jnp.where(kept > 0, gradient, 0) if is_relu else gradient
    (b, v, u, o), (high, wide) = gradient.shape, sizes.pool.size
    position = jnp.arange(high * wide, dtype=jnp.int8).reshape(1, 1, high, 1, wide, 1)
    parts = jnp.where(kept[:, :, None, :, None] == position, gradient[:, :, None, :, None], 0)  # [b v i u j o]
    return parts.reshape(b, v * high, u * wide, o)


def _map_gradient(has_pool: bool, is_relu: bool, arrays: tuple, offsets: Any, mask: Any, position: Any) -> jax.Array:
    """Gradient with respect to maps, by the offsets of their outputs and their positions in the pool's windows."""
    gradient, kept = arrays
    values = load(gradient, offsets, mask)
    if has_pool:
        winner = load(kept, offsets, mask).astype(jnp.int32)
        return jnp.where(winner == position, values, jnp.zeros_like(values))
    return jnp.where(load(kept, offsets, mask) > 0, values, jnp.zeros_like(values)) if is_relu else values


def _to_kernel(
    sizes: Sizes, algorithm: Any, is_relu: bool, has_pool: bool, images: jax.Array, arrays: tuple, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """([k o], [o]): gradients of kernel and bias; each block sums one share of the outputs, then these are added."""
    num = sizes.images[0] * prod(sizes.outputs)
    rows, columns, block = DEEP // sizes.positions, block_size(sizes.filters), choose_depth_block(sizes.images[3])
    parts = pl.cdiv(sizes.depth, block)
    group = max(n for n in range(1, parts + 1) if parts % n == 0 and (n == 1 or n * block * columns <= MOST_SUMS))
    blocks = parts // group, sizes.filters // columns
    rounds = max(1, pl.cdiv(num * prod(blocks), rows * BLOCKS))
    shares = pl.cdiv(num, rows * rounds)
    results = (
        jax.ShapeDtypeStruct((shares * sizes.depth * sizes.filters,), jnp.float32),
        jax.ShapeDtypeStruct((shares * sizes.filters,), jnp.float32),
    )
    body = partial(_kernel_block, sizes, algorithm, is_relu, has_pool, rows, columns, block, group, rounds)
    to_kernel, to_bias = launch(body, results, (*blocks, shares), images, *arrays, num_warps=4 if group == 1 else 8)
    to_kernel = to_kernel.reshape(shares, sizes.depth, sizes.filters).sum(0)
    return to_kernel.astype(dtype), to_bias.reshape(shares, sizes.filters).sum(0).astype(dtype)


def _kernel_block(
    sizes: Sizes, algorithm: Any, is_relu: bool, has_pool: bool, num_rows: int, num_columns: int, block: int,
    group: int, rounds: int, images: Any, gradient: Any, kept: Any, to_kernel: Any, to_bias: Any,
) -> None:  # fmt: skip
    """The contribution of one share of the outputs to `group` blocks of the kernel's gradient, and to the bias'."""
    first, share = pl.program_id(0) * group, pl.program_id(2)
    o = pl.program_id(1) * num_columns + jnp.arange(num_columns)

    def add(round_: Any, totals: tuple) -> tuple:
        pixels = Pixels(sizes, (share * rounds + round_) * num_rows, num_rows)
        offsets = pixels.output[:, None] * sizes.filters + o[None, :]
        mask, position = (
            broadcast(pixels.is_row[:, None], offsets.shape),
            broadcast(pixels.position[:, None], offsets.shape),
        )
        back = _map_gradient(has_pool, is_relu, (gradient, kept), offsets, mask, position)
        values = [pixels.load(images, first + n, block)[0] for n in range(group)]  # all on their way before a product
        sides = ((back, each) if is_turned else (each, back) for each in values)
        products = (total + dot(a.T, b, algorithm) for total, (a, b) in zip(totals[:-1], sides, strict=True))
        return *products, totals[-1] + back.astype(jnp.float32)

    is_turned = num_columns > block  # the longer side first: Hopper's tensor cores take 64 rows at a time
    shape = (num_columns, block) if is_turned else (block, num_columns)
    shapes = *[shape] * group, (sizes.positions * num_rows, num_columns)
    *totals, back = lax.fori_loop(0, rounds, add, tuple(jnp.zeros(shape, jnp.float32) for shape in shapes))
    for n, total in enumerate(totals):
        k, total = (first + n) * block + jnp.arange(block), total.T if is_turned else total
        offsets = (share * sizes.depth + k)[:, None] * sizes.filters + o[None, :]
        triton.store(to_kernel.at[offsets], total, mask=broadcast((k < sizes.depth)[:, None], offsets.shape))
    triton.store(to_bias.at[share * sizes.filters + o], jnp.sum(back, axis=0), mask=broadcast(first == 0, o.shape))


def _to_images(sizes: Sizes, algorithm: Any, images: jax.Array, kernel: jax.Array, to_maps: jax.Array) -> jax.Array:
    b, h, w, c = images.shape
    columns = block_size(c, least=LEAST)
    rows = choose_rows(b * h * w, pl.cdiv(c, columns))
    grid = (pl.cdiv(b * h * w, rows), pl.cdiv(c, columns))
    body = partial(_images_block, sizes._replace(maps=to_maps.shape[1:3]), algorithm, rows, columns)
    (result,) = launch(body, (jax.ShapeDtypeStruct((images.size,), images.dtype),), grid, kernel, to_maps)
    return result.reshape(images.shape)


def _images_block(
    sizes: Sizes, algorithm: Any, num_rows: int, num_columns: int, kernel: Any, to_maps: Any, to_images: Any
) -> None:
    """Gradient with respect to one block of pixels."""
    (b, h, w, c), window, (y, x), o = sizes.images, sizes.window, sizes.maps, sizes.filters
    channel = pl.program_id(1) * num_columns + jnp.arange(num_columns)
    pixel = pl.program_id(0) * num_rows + jnp.arange(num_rows)
    image, row, column = divide(pixel, h * w), remainder(divide(pixel, w), h), remainder(pixel, w)
    row, column = row + window.pads[0][0], column + window.pads[1][0]
    block = block_size(o, DEPTH)
    is_channel = None if c % num_columns == 0 else (channel < c)[:, None]

    def add(n: Any, total: jax.Array) -> jax.Array:
        tap, filters = divide(n, o // block), remainder(n, o // block) * block + jnp.arange(block)
        up, is_up = _source(row - divide(tap, window.size[1]) * window.dilation[0], window.strides[0], y)
        left, is_left = _source(column - remainder(tap, window.size[1]) * window.dilation[1], window.strides[1], x)
        mask = is_up & is_left & (pixel < b * h * w)
        offsets = (((image * y + up) * x + left) * o)[:, None] + filters[None, :]
        back = load(to_maps, offsets, broadcast(mask[:, None], offsets.shape))
        weights = (tap * c + channel)[:, None] * o + filters[None, :]
        weights = load(kernel, weights, None if is_channel is None else broadcast(is_channel, weights.shape))
        return total + dot(back, weights.T, algorithm)

    steps = prod(window.size) * (o // block)
    total = lax.fori_loop(0, steps, add, jnp.zeros((num_rows, num_columns), jnp.float32))
    offsets = pixel[:, None] * c + channel[None, :]
    mask = (pixel < b * h * w)[:, None] & (channel < c)[None, :]
    triton.store(to_images.at[offsets], total.astype(to_images.dtype), mask=broadcast(mask, offsets.shape))


def _source(position: Any, stride: int, num: int) -> tuple[Any, Any]:
    """(the position in the map that reaches a pixel through one position of the kernel, whether it exists)."""
    is_there = position >= 0
    if stride > 1:
        is_there, position = is_there & (remainder(position, stride) == 0), divide(position, stride)
    return position, is_there & (position < num)

"""Convolutions by our own code for the CPU, `cpu/convolution.cc`, called by XLA's FFI.

It accumulates a block of sums in registers, reads images without copying them, and needs fewer products for 3×3
kernels. XLA's own code for CPUs copies windows first, and transposes images and gradients before it computes the
gradient with respect to a kernel.

It is shipped for most processors, and compiled for others. Without it, or on another backend, callers use a fallback.

Axes: b batch, h w input, y x output, v u windows of a pool, i j kernel, c input channels, o output channels.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.kernels.libraries import BACKWARD, CONVOLUTIONS, FORWARD, FORWARD_SPREAD, SPREAD
from engine.kernels.windows import Window, padded_size

LANES = 16  # of a vector; divides the supported numbers of filters
FEW_WEIGHTS, MOST_WEIGHTS = 2**17, 2**19  # of a kernel; larger ones exceed the L2 cache and are faster as products
FEW_PIXELS, MANY_PIXELS = 16, 400  # of maps; fewer leave registers idle; with many, more weights pay off
MINIMAL_WEIGHTS, MINIMAL_PIXELS = 2**20, 4  # the same for minimal filtering, whose tiles come from many images
LARGE_TILES = 0.75  # of the products that small tiles take, up to which minimal filtering takes large ones
LARGE_TILE_WEIGHTS = 2**14  # of a position of the kernel, whose planes are then 36 in place of 16
FEWEST_SPREAD, SPREAD_WEIGHTS = 2**12, 2**22  # of a position, of a kernel: those kept ready for minimal filtering
MOST_POSITIONS = 255  # positions of a pool's window: the largest one's is kept in a byte, and 255 stands for none
NO_POOL = Window((1, 1), (1, 1))


def is_available() -> bool:
    """Whether convolutions can run directly: on a CPU for which there is a library, or a C++ compiler."""
    return jax.default_backend() == "cpu" and CONVOLUTIONS.is_available()


def supports(images: jax.Array, kernel: Any, window: Window) -> bool:
    """True if this kernel supports the shapes and is faster than Eigen for them; the library is then loaded.

    kernel: an array, or its shape and dtype.
    """
    is_float32 = images.dtype == kernel.dtype == jnp.float32
    if not (is_float32 and kernel.shape[3] and kernel.shape[3] % LANES == 0):
        return False
    return _is_faster(images, kernel, window) and jax.default_backend() == "cpu" and CONVOLUTIONS.load() is not None


def _is_faster(images: jax.Array, kernel: Any, window: Window) -> bool:
    weights, pixels = prod(kernel.shape), prod(window.positions(*padded_size(images.shape, window)))
    if is_minimal(kernel.shape, window):
        return pixels >= MINIMAL_PIXELS and weights <= MINIMAL_WEIGHTS
    return pixels >= FEW_PIXELS and weights <= (MOST_WEIGHTS if pixels >= MANY_PIXELS else FEW_WEIGHTS)


def is_minimal(kernel_shape: tuple[int, ...], window: Window) -> bool:
    """Whether `cpu/minimal.h` is used."""
    is_dense = window.strides == window.dilation == (1, 1)
    return window.size == (3, 3) and is_dense and kernel_shape[2] % LANES == 0


def choose_tile(kernel_shape: tuple[int, ...], sums: tuple[int, int]) -> np.int64:
    """The side of tiles, 2 or 4, in which minimal filtering computes maps of (y, x) sums, if it does."""

    def products(tile: int) -> int:
        y, x = (-(-size // tile) * (tile + 2) - (size % tile > 0) for size in sums)
        return y * x

    is_small = prod(kernel_shape[2:]) <= LARGE_TILE_WEIGHTS
    return np.int64(4 if is_small and products(4) <= LARGE_TILES * products(2) else 2)


def can_spread(kernel: Any, window: Window) -> bool:
    """Whether `spread` takes this kernel [i j c o], of so many weights that it saves time; loads the library."""
    is_large = prod(kernel.shape[2:]) >= FEWEST_SPREAD and prod(kernel.shape) <= SPREAD_WEIGHTS
    fits = is_large and kernel.dtype == jnp.float32 and kernel.shape[3] % LANES == 0
    is_ours = fits and is_minimal(kernel.shape, window) and min(map(min, window.pads)) >= 0
    return is_ours and jax.default_backend() == "cpu" and CONVOLUTIONS.load() is not None


def spread(kernel: jax.Array, sums: tuple[int, int]) -> jax.Array:
    """A kernel [3 3 c o] as minimal filtering reads it: float32[p 1 c o], its values in an order of their own.

    sums: (y, x) of the maps that it is made ready for; p is 16 or 36, by the tiles that suit them.
    """
    planes = int(choose_tile(kernel.shape, sums) + 2) ** 2
    return _call(SPREAD, _floats((planes, 1, *kernel.shape[2:])), kernel)


def convolve_spread(images: jax.Array, ready: jax.Array, bias: jax.Array, window: Window, is_relu: bool) -> jax.Array:
    """[b y x o]: as `convolve` without a pool, with a kernel of `spread`; without a gradient."""
    positions = window.positions(*padded_size(images.shape, window))
    assert min(positions) > 0, (images.shape, window)
    outputs = _floats((len(images), *positions, ready.shape[3]))
    return _call(FORWARD_SPREAD, outputs, images, ready, bias, sizes=window_sizes(window), is_relu=is_relu)


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    window: Window,
    pool: Window | None,
    is_relu: bool,
    has_winners: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """([b h w c] * [i j c o] + [o] → [b y x o], uint8[0 0 0 0]), then relu if `is_relu`; no pad is negative.

    With a pool: (the largest value of each window [b v u o], its position in the window uint8[b v u o]). The position
    is 255 if relu sets the largest value to zero.
    has_winners: whether positions are returned; only gradients need them.
    """
    positions = window.positions(*padded_size(images.shape, window))
    if pool:
        assert prod(pool.size) <= MOST_POSITIONS, pool
        positions = pool.positions(*positions)
    assert min(positions) > 0, (images.shape, window, pool)
    outputs = _floats((len(images), *positions, kernel.shape[3]))
    winners = jax.ShapeDtypeStruct(outputs.shape if pool and has_winners else (0, 0, 0, 0), jnp.uint8)
    tile = choose_tile(kernel.shape, sums_below(pool, outputs.shape))
    sizes = {"sizes": window_sizes(window), "pool": pool_sizes(pool), "tile": tile, "is_relu": is_relu}
    return _call(FORWARD, (outputs, winners), images, kernel, bias, **sizes)


def gradients(
    images: jax.Array,
    flipped: tuple[jax.Array, Window] | None,
    winners: jax.Array,
    outputs: jax.Array | None,
    gradient: jax.Array,
    window: Window,
    pool: Window | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients with respect to images [b h w c], kernel [i j c o] and bias [o], from that of the outputs.

    flipped: the flipped kernel [i j o c] and the window of the convolution with it; None: the images get [0 0 0 0].
    winners: from `convolve`. outputs: those of a relu without a pool.
    """
    kernel, onto_images = flipped or (jnp.zeros((0, 0, 0, 0), jnp.float32), NO_POOL)
    results = (
        _floats(images.shape if flipped else (0, 0, 0, 0)),
        _floats((*window.size, images.shape[3], gradient.shape[3])),
        _floats(gradient.shape[3:]),
    )
    outputs = jnp.zeros((0, 0, 0, 0), jnp.float32) if outputs is None else outputs
    tile = choose_tile(results[1].shape, sums_below(pool, gradient.shape))
    sizes = {"sizes": window_sizes(window), "back": window_sizes(onto_images), "pool": pool_sizes(pool), "tile": tile}
    return _call(BACKWARD, results, images, kernel, winners, outputs, gradient, **sizes)


def sums_below(pool: Window | None, output_shape: tuple[int, ...]) -> tuple[int, int]:
    """(y, x) of the part of the maps that the outputs depend on."""
    pool = pool or NO_POOL
    y, x = ((n - 1) * step + size for n, step, size in zip(output_shape[1:3], pool.strides, pool.size, strict=True))
    return y, x


def _call(target: str, results: Any, *arrays: jax.Array, **sizes: Any) -> Any:
    return jax.ffi.ffi_call(target, results, vmap_method="sequential")(*arrays, **sizes)


def _floats(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def window_sizes(window: Window) -> np.ndarray:
    """int64[8]: strides, pads and dilation as `cpu/convolution.cc` reads them."""
    return np.asarray([*window.strides, *window.pads[0], *window.pads[1], *window.dilation], np.int64)


def pool_sizes(pool: Window | None) -> np.ndarray:
    """int64[4]: size and strides; None: no pool."""
    pool = pool or NO_POOL
    return np.asarray([*pool.size, *pool.strides], np.int64)

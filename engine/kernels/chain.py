"""Convolutions one after the other as one operation of our own code for the CPU, for prediction: it has no gradient.

A few images at a time pass all of them, so that the maps between stay in a core's cache, and kernels are made ready for
it once.

Axes: b batch, h w input, y x output, i j kernel, c input channels, o output channels.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from engine.kernels import ffi
from engine.kernels.libraries import CHAIN, PACK
from engine.kernels.windows import Window, padded_size

MOST_VALUES = 2**19  # of all kernels made ready: each few images read them again
LINE = 16  # values; each kernel begins at a line of the cache


class Link(NamedTuple):
    """A convolution of the chain, with a kernel [i j c o], relu if `is_relu`, and a pool without padding if given."""

    kernel_shape: tuple[int, int, int, int]
    window: Window
    pool: Window | None
    is_relu: bool

    def output_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """[y x o] of an image [h w c]."""
        positions = self.window.positions(*padded_size((1, *image_shape), self.window))
        return (*(self.pool.positions(*positions) if self.pool else positions), self.kernel_shape[3])

    def tile(self, image_shape: tuple[int, ...]) -> np.int64:
        """Of minimal filtering, for images [h w c]."""
        sums = ffi.sums_below(self.pool, (1, *self.output_shape(image_shape)))
        return ffi.choose_tile(self.kernel_shape, sums)

    def num_values(self, image_shape: tuple[int, ...]) -> int:
        """Of the kernel when it is ready."""
        planes = (int(self.tile(image_shape)) + 2) ** 2 if ffi.is_minimal(self.kernel_shape, self.window) else None
        return (planes or prod(self.kernel_shape[:2])) * prod(self.kernel_shape[2:])


def are_small(links: Sequence[Link], image_shape: tuple[int, ...]) -> bool:
    """Whether the kernels of links, of which the first gets images [h w c], are few enough to be read many times."""
    return sum(link.num_values(shape) for link, shape in _with_shapes(links, image_shape)) <= MOST_VALUES


def pack(
    links: Sequence[Link], kernels: Sequence[jax.Array], biases: Sequence[jax.Array], image_shape: tuple[int, ...]
) -> jax.Array:
    """float32[n]: kernels [i j c o] and biases [o] in the order in which `convolve` reads them."""
    parts = []
    for (link, shape), kernel, bias in zip(_with_shapes(links, image_shape), kernels, biases, strict=True):
        ready = jax.ShapeDtypeStruct((link.num_values(shape),), jnp.float32)
        parts += [_call(PACK, ready, kernel, sizes=ffi.window_sizes(link.window), tile=link.tile(shape)), bias]
        parts.append(jnp.zeros(-(ready.size + bias.size) % LINE, jnp.float32))
    return jnp.concatenate(parts)


def convolve(images: jax.Array, packed: jax.Array, links: Sequence[Link]) -> jax.Array:
    """[b h w c] → [b y x o], by the weights that `pack` made for images of this size."""
    shape, sizes = images.shape[1:], list[int]()
    for link, image_shape in _with_shapes(links, shape):
        shape = link.output_shape(image_shape)
        ends = (*shape[:2], int(link.tile(image_shape)), int(link.is_relu))
        sizes += [*link.kernel_shape, *ffi.window_sizes(link.window), *ffi.pool_sizes(link.pool), *ends]
    outputs = jax.ShapeDtypeStruct((len(images), *shape), jnp.float32)
    return _call(CHAIN, outputs, images, packed, sizes=np.asarray(sizes, np.int64))


def _with_shapes(links: Sequence[Link], image_shape: tuple[int, ...]) -> list[tuple[Link, tuple[int, ...]]]:
    """Each link with the shape of its images [h w c]."""
    pairs = []
    for link in links:
        pairs.append((link, image_shape))
        image_shape = link.output_shape(image_shape)
    return pairs


def _call(target: str, result: Any, *arrays: jax.Array, **sizes: Any) -> Any:
    return jax.ffi.ffi_call(target, result, vmap_method="sequential")(*arrays, **sizes)

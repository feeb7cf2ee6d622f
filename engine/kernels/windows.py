"""Sliding windows over images, and the slices and sums that convolutions and pools are built from.

Axes: b batch, h w input, y x output, i j kernel, c channels. Images are NHWC.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Pads = tuple[tuple[int, int], tuple[int, int]]


class Window(NamedTuple):
    """A sliding window over (h, w); convolutions pad by `pads`, pools get padded images."""

    size: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    pads: Pads = ((0, 0), (0, 0))

    def reach(self) -> list[int]:
        """[height, width] in pixels."""
        return [(k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True)]

    def positions(self, height: int, width: int) -> tuple[int, int]:
        """(y, x): the number of positions of the window in padded images."""
        reach = self.reach()
        return (height - reach[0]) // self.strides[0] + 1, (width - reach[1]) // self.strides[1] + 1

    def offsets(self) -> list[tuple[int, int]]:
        """The (i, j) of the window in row-major order, in input pixels."""
        (kh, kw), (dh, dw) = self.size, self.dilation
        return [(i * dh, j * dw) for i in range(kh) for j in range(kw)]


def window_pads(shape: Sequence[int], size: Sequence[int], strides: Sequence[int], padding: str | int | Pads) -> Pads:
    """(low, high) pixels to add to h and w for "valid", "same" (as in lax), a number of pixels or one for each side."""
    if isinstance(padding, tuple):
        return padding
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    pads = lax.padtype_to_pads(tuple(shape), tuple(size), tuple(strides), padding.upper())
    return (tuple(pads[0]), tuple(pads[1]))  # type: ignore[return-value]


def sliding(
    shape: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Window:
    """The window of a convolution of images [b h w c], with padding as in lax."""
    window = Window(tuple(size), tuple(strides), tuple(dilation))  # type: ignore[arg-type]
    pads = padding
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(tuple(shape[1:3]), window.reach(), window.strides, pads)
    return window._replace(pads=tuple((int(low), int(high)) for low, high in pads))


def slice_at(
    images: jax.Array, offset: tuple[int, int], strides: tuple[int, int], positions: tuple[int, int]
) -> jax.Array:
    """[b y x c]: the pixel at `offset` in the window, at each position of the window."""
    (i, j), (sh, sw), (y, x) = offset, strides, positions
    return images[:, i : i + (y - 1) * sh + 1 : sh, j : j + (x - 1) * sw + 1 : sw]


def spread(
    values: jax.Array, offset: tuple[int, int], strides: tuple[int, int], shape: tuple[int, int], first: int = 1
) -> jax.Array:
    """The transpose of `slice_at`: [b y x c] scattered into zeros [b h w c]; `first` is the axis of h."""
    edges = [
        (start, size - start - (n - 1) * step - 1, step - 1)
        for start, size, n, step in zip(offset, shape, values.shape[first : first + 2], strides, strict=True)
    ]
    rest = [(0, 0, 0)] * values.ndim
    return lax.pad(values, jnp.zeros((), values.dtype), [*rest[:first], *edges, *rest[first + 2 :]])


def pad(images: jax.Array, pads: Sequence[tuple[int, int]], value: float = 0) -> jax.Array:
    """[b h w c] with (low, high) pixels of a value added to h and to w; negative numbers crop."""
    if not any(low or high for low, high in pads):
        return images
    return lax.pad(
        images,
        jnp.asarray(value, images.dtype),
        ((0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)),
    )


def padded_size(shape: Sequence[int], window: Window) -> tuple[int, int]:
    """(h, w) of images [b h w c] after the padding of a window."""
    (top, bottom), (left, right) = window.pads
    return shape[1] + top + bottom, shape[2] + left + right


def total(terms: Any) -> jax.Array:
    """The sum of arrays, added one after another."""
    add: Callable[[jax.Array, jax.Array], jax.Array] = jnp.add
    return reduce(add, terms)


def collect(sent: Iterable[jax.Array], shape: tuple[int, ...], window: Window) -> jax.Array:
    """[b h w c]: the sum of the contributions to each pixel; `sent` has [b y x c] for each position of the window."""
    padded = padded_size(shape, window)
    positions = zip(window.offsets(), sent, strict=True)
    collected = total(spread(values, offset, window.strides, padded) for offset, values in positions)
    return pad(collected, [(-low, -high) for low, high in window.pads])

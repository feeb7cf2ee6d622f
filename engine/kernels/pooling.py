"""Pooling in the form that each backend runs fastest.

Pools are slices with a hand-written gradient, because `select_and_scatter`, lax's gradient of a max pool, is slow
everywhere on the CPU. `benchmarks/NOTES.md` has the measurements behind each choice here.

Axes: b batch, h w input, y x output, i j window, c channels. Images are NHWC.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from engine.config import Lowering
from engine.kernels.windows import Pads, Window, pad, slice_at, spread, total


def max_pool(
    images: jax.Array, size: tuple[int, int], strides: tuple[int, int], pads: Pads, lowering: Lowering
) -> jax.Array:
    """[b h w c] → [b y x c], the largest value of each window; the gradient goes to the first of ties, as in lax."""
    lowest = -jnp.inf if jnp.issubdtype(images.dtype, jnp.floating) else jnp.iinfo(images.dtype).min
    if lowering == "xla":
        dims = ((1, *size, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))
        return lax.reduce_window(images, np.asarray(lowest, images.dtype), lax.max, *dims)
    return _max_pool(pad(images, pads, lowest), Window(size, strides))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(images: jax.Array, window: Window) -> jax.Array:
    positions = window.positions(*images.shape[1:3])
    return reduce(jnp.maximum, (slice_at(images, offset, window.strides, positions) for offset in window.offsets()))


def _max_pool_forward(images: jax.Array, window: Window) -> tuple:
    largest = _max_pool(images, window)
    return largest, (images, largest)


def _max_pool_backward(window: Window, saved: tuple, gradient: jax.Array) -> tuple:
    images, largest = saved
    if window.strides == (1, 1):
        along_rows = _largest_along(images, 2, window.size[1])
        of_rows = _gradient_along(along_rows, largest, gradient, 1, window.size[0])
        return (_gradient_along(images, along_rows, of_rows, 2, window.size[1]),)
    b, h, w, c = images.shape
    y, x = largest.shape[1:3]
    offsets = window.offsets()
    winner = jnp.full(largest.shape, len(offsets) - 1, jnp.int16)  # the position in its window of each output
    for n in reversed(range(len(offsets) - 1)):
        winner = jnp.where(slice_at(images, offsets[n], window.strides, (y, x)) == largest, jnp.int16(n), winner)
    if window.size != window.strides:
        shares = (jnp.where(winner == n, gradient, 0) for n in range(len(offsets)))
        if jax.default_backend() == "gpu":
            return (collect_by_remainder(list(shares), images.shape, window),)
        return (total(spread(s, offsets[n], window.strides, (h, w)) for n, s in enumerate(shares)),)
    kh, kw = window.size
    position = jnp.arange(kh * kw, dtype=jnp.int16).reshape(1, 1, kh, 1, kw, 1)
    parts = jnp.where(winner[:, :, None, :, None] == position, gradient[:, :, None, :, None], 0)  # [b y i x j c]
    whole = parts.reshape(b, y * kh, x * kw, c)
    return (jnp.pad(whole, ((0, 0), (0, h - y * kh), (0, w - x * kw), (0, 0))),)


def collect_by_remainder(shares: list[jax.Array], shape: tuple[int, ...], window: Window) -> jax.Array:
    """[b h w c]: the sum of each pixel's shares [b y x c], one for each position of the window.

    Pixels with one remainder by the strides are reached from the same positions: with 3×3 and strides of 2 from one,
    two or four of nine, and XLA computes no others.
    """
    (b, h, w, c), (sh, sw) = shape, window.strides
    y, x = shares[0].shape[1:3]
    rows, columns = -(-h // sh), -(-w // sw)
    sums: dict[tuple[int, int], jax.Array] = {}
    for (i, j), share in zip(window.offsets(), shares, strict=True):
        edges = (i // sh, rows - y - i // sh), (j // sw, columns - x - j // sw)
        moved, place = pad(share, edges), (i % sh, j % sw)
        sums[place] = sums[place] + moved if place in sums else moved
    zeros = jnp.zeros((b, rows, columns, c), shares[0].dtype)
    lines = [jnp.stack([sums.get((i, j), zeros) for j in range(sw)], 3) for i in range(sh)]  # [b y x j c]
    whole = jnp.stack(lines, 2).reshape(b, rows * sh, columns * sw, c)  # [b y i x j c]
    return whole[:, :h, :w]


def _largest_along(values: jax.Array, axis: int, size: int) -> jax.Array:
    """The largest of every `size` neighbours along an axis."""
    count = values.shape[axis] - size + 1
    return reduce(jnp.maximum, (lax.slice_in_dim(values, n, n + count, axis=axis) for n in range(size)))


def _gradient_along(values: jax.Array, largest: jax.Array, gradient: jax.Array, axis: int, size: int) -> jax.Array:
    """Gradient of `_largest_along` with respect to its values; it goes to the first of ties.

    Built by concatenating slices: with zeros padded around each share, XLA would test at every position whether it is
    inside.
    """
    count = largest.shape[axis]
    remaining, shares = gradient, []
    for n in range(size - 1):
        is_taken = lax.slice_in_dim(values, n, n + count, axis=axis) == largest
        shares.append(jnp.where(is_taken, remaining, 0))
        remaining = jnp.where(is_taken, 0, remaining)
    summed, *later = [*shares, remaining]
    for n, share in enumerate(later, 1):
        before, both = jnp.split(summed, [n], axis)
        own, last = jnp.split(share, [count - 1], axis)
        summed = jnp.concatenate([before, both + own, last], axis)
    return summed


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average_pool(
    images: jax.Array, size: tuple[int, int], strides: tuple[int, int], pads: Pads, lowering: Lowering
) -> jax.Array:
    """[b h w c] → [b y x c], the mean of each window over its pixels that are not padding."""
    add = _xla_window_sum if lowering == "xla" else _window_sum
    counts = _xla_window_sum(jnp.ones((1, *images.shape[1:3], 1), images.dtype), size, strides, pads)
    return add(images, size, strides, pads) / counts


def _window_sum(images: jax.Array, size: tuple[int, int], strides: tuple[int, int], pads: Pads) -> jax.Array:
    window, padded = Window(size, strides), pad(images, pads)
    positions = window.positions(*padded.shape[1:3])
    return total(slice_at(padded, offset, strides, positions) for offset in window.offsets())


def _xla_window_sum(images: jax.Array, size: tuple[int, int], strides: tuple[int, int], pads: Pads) -> jax.Array:
    dims = ((1, *size, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))
    return lax.reduce_window(images, np.zeros((), images.dtype), lax.add, *dims)

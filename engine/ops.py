"""Convolution and pooling as the backend runs them fastest, drop-in for lax inside Flax layers.

XLA's CPU convolution does not use its threads inside a loop body, its matrix product does, and `select_and_scatter`
(the gradient of a max-pool) is slow everywhere on the CPU. The matrix lowering writes both as products, slices and
elementwise passes, with gradients by hand. `benchmarks/NOTES.md` has the measurements behind each choice here.

Axes: b batch, h w input, y x output, i j kernel, c input channels, o output channels. Images are NHWC, kernels HWIO.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from engine.config import Lowering
from engine.parallel import by_example

Pads = tuple[tuple[int, int], tuple[int, int]]


class _Window(NamedTuple):
    """A sliding window over (h, w) that is already padded."""

    size: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    def places(self, height: int, width: int) -> tuple[int, int]:
        """(y, x): how many places the window can take."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True)]
        return (height - reach[0]) // self.strides[0] + 1, (width - reach[1]) // self.strides[1] + 1

    def offsets(self) -> list[tuple[int, int]]:
        """The (i, j) of the window in row-major order, in input pixels."""
        (kh, kw), (dh, dw) = self.size, self.dilation
        return [(i * dh, j * dw) for i in range(kh) for j in range(kw)]


def plug(module: nnx.Module, lowering: Lowering) -> None:
    """Sets the convolution of every plain nnx.Conv and the pools of our own layers in `module` to a lowering."""
    convolution = conv_general_dilated if lowering == "matrix" else native_conv_general_dilated
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Conv) and node.conv_general_dilated in (
            conv_general_dilated,
            native_conv_general_dilated,
            lax.conv_general_dilated,
        ):
            node.conv_general_dilated = convolution
        elif isinstance(node, Pool):
            node.lowering = lowering


class Pool(nnx.Module):
    """A pooling layer that follows the lowering that `plug` sets."""

    def __init__(self, kind: Literal["max", "average"], size: tuple[int, int], strides: tuple[int, int], padding: Any):
        self.kind, self.size, self.strides, self.padding = kind, size, strides, padding
        self.lowering: Lowering = "native"

    def __call__(self, images: jax.Array) -> jax.Array:
        """[b h w c] → [b y x c]."""
        pads = window_pads(images.shape[1:3], self.size, self.strides, self.padding)
        pool = {"max": max_pool, "average": average_pool}[self.kind]
        return pool(images, self.size, self.strides, pads, self.lowering)


def window_pads(shape: Sequence[int], size: Sequence[int], strides: Sequence[int], padding: str | int) -> Pads:
    """(low, high) pixels to add to h and w for "valid", "same" (as in lax) or a number of pixels."""
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    pads = lax.padtype_to_pads(tuple(shape), tuple(size), tuple(strides), padding.upper())
    return (tuple(pads[0]), tuple(pads[1]))  # type: ignore[return-value]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **other: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` as matrix products where they serve: 2-D, NHWC, one group, no transposition.

    Anything else goes to lax as it is.
    """
    dilation = tuple(rhs_dilation or (1, 1))
    serves = (
        lhs.ndim == 4
        and feature_group_count == 1
        and all(d == 1 for d in lhs_dilation or ())
        and not any(value not in (None, 1) for value in other.values())
        and _is_nhwc(lhs, rhs, dimension_numbers)
    )
    if not serves:
        return native_conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
            precision=precision, **other,
        )  # fmt: skip
    if isinstance(padding, str):
        reach = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], reach, window_strides, padding)
    window = _Window(rhs.shape[:2], tuple(window_strides), dilation)  # type: ignore[arg-type]
    padded = _pad(lhs, padding)
    if min(window.places(*padded.shape[1:3])) < 1:
        raise ValueError(f"kernel {rhs.shape[:2]} is larger than the padded image {padded.shape[1:3]}")
    return _convolve(padded, rhs, window, precision)


def native_conv_general_dilated(lhs: jax.Array, rhs: jax.Array, *arguments: Any, **named: Any) -> jax.Array:
    """`lax.conv_general_dilated`; of a batch that is split over a mesh each device convolves its own examples.

    Left to the compiler, the kernel gradient of convolutions that are mapped over members gathers all examples.
    """
    return by_example(lambda lhs, rhs: lax.conv_general_dilated(lhs, rhs, *arguments, **named), lhs, rhs)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: jax.Array, kernel: jax.Array, window: _Window, precision: Any) -> jax.Array:
    """[b h w c] * [i j c o] → [b y x o], no padding."""
    return _product(_patches(images, window), kernel.reshape(-1, kernel.shape[3]), precision)


def _convolve_forward(images: jax.Array, kernel: jax.Array, window: _Window, precision: Any) -> tuple:
    return _convolve(images, kernel, window, precision), (images, kernel)


def _convolve_backward(window: _Window, precision: Any, saved: tuple, gradient: jax.Array) -> tuple:
    images, kernel = saved
    patches = _patches(images, window)  # made again: that costs less than keeping nine times the images
    kernel_gradient = _product_over_pixels(patches, gradient, precision).reshape(kernel.shape)  # [i j c o]
    return _input_gradient(images.shape, kernel, gradient, window, precision), kernel_gradient


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _input_gradient(
    shape: tuple[int, ...], kernel: jax.Array, gradient: jax.Array, window: _Window, precision: Any
) -> jax.Array:
    """[b h w c]: one product gives what each output sends to each place of its window; shifted adds collect it."""
    b, h, w, c = shape
    y, x = gradient.shape[1:3]
    columns = kernel.reshape(-1, kernel.shape[3]).T  # [o ijc]
    sent = _product(gradient, columns, precision).reshape(b, y, x, -1, c)
    return _sum(_spread(sent[:, :, :, n], offset, window.strides, (h, w)) for n, offset in enumerate(window.offsets()))


def _patches(images: jax.Array, window: _Window) -> jax.Array:
    """[b y x ijc]: all pixels below each place of the window."""
    y, x = window.places(*images.shape[1:3])
    return jnp.concatenate([_slice(images, offset, window.strides, (y, x)) for offset in window.offsets()], axis=-1)


def _product(pixels: jax.Array, columns: jax.Array, precision: Any) -> jax.Array:
    """[b y x d] · [d o] → [b y x o]."""
    flat = jnp.dot(pixels.reshape(-1, pixels.shape[-1]), columns, precision=precision)
    return flat.reshape(*pixels.shape[:-1], -1)


def _product_over_pixels(left: jax.Array, right: jax.Array, precision: Any) -> jax.Array:
    """[b y x d] and [b y x o] → [d o], summed over all pixels."""
    return jnp.dot(left.reshape(-1, left.shape[-1]).T, right.reshape(-1, right.shape[-1]), precision=precision)


def max_pool(
    images: jax.Array, size: tuple[int, int], strides: tuple[int, int], pads: Pads, lowering: Lowering
) -> jax.Array:
    """[b h w c] → [b y x c], the largest value of each window; its gradient goes to the first of equals, as in lax."""
    lowest = -jnp.inf if jnp.issubdtype(images.dtype, jnp.floating) else jnp.iinfo(images.dtype).min
    if lowering == "native":
        dims = ((1, *size, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))
        return lax.reduce_window(images, np.asarray(lowest, images.dtype), lax.max, *dims)
    return _max_pool(_pad(images, pads, lowest), _Window(size, strides))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(images: jax.Array, window: _Window) -> jax.Array:
    places = window.places(*images.shape[1:3])
    return reduce(jnp.maximum, (_slice(images, offset, window.strides, places) for offset in window.offsets()))


def _max_pool_forward(images: jax.Array, window: _Window) -> tuple:
    largest = _max_pool(images, window)
    return largest, (images, largest)


def _max_pool_backward(window: _Window, saved: tuple, gradient: jax.Array) -> tuple:
    images, largest = saved
    b, h, w, c = images.shape
    y, x = largest.shape[1:3]
    offsets = window.offsets()
    winner = jnp.full(largest.shape, len(offsets) - 1, jnp.int16)  # which of its window each output came from
    for n in reversed(range(len(offsets) - 1)):
        winner = jnp.where(_slice(images, offsets[n], window.strides, (y, x)) == largest, jnp.int16(n), winner)
    if window.size != window.strides:
        shares = (jnp.where(winner == n, gradient, 0) for n in range(len(offsets)))
        return (_sum(_spread(s, offsets[n], window.strides, (h, w)) for n, s in enumerate(shares)),)
    kh, kw = window.size
    place = jnp.arange(kh * kw, dtype=jnp.int16).reshape(1, 1, kh, 1, kw, 1)
    spread = jnp.where(winner[:, :, None, :, None] == place, gradient[:, :, None, :, None], 0)  # [b y i x j c]
    spread = spread.reshape(b, y * kh, x * kw, c)
    return (jnp.pad(spread, ((0, 0), (0, h - y * kh), (0, w - x * kw), (0, 0))),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average_pool(
    images: jax.Array, size: tuple[int, int], strides: tuple[int, int], pads: Pads, lowering: Lowering
) -> jax.Array:
    """[b h w c] → [b y x c], the mean of each window over the pixels that are not padding."""
    add = _window_sum if lowering == "matrix" else _native_window_sum
    counts = _native_window_sum(jnp.ones((1, *images.shape[1:3], 1), images.dtype), size, strides, pads)
    return add(images, size, strides, pads) / counts


def _window_sum(images: jax.Array, size: tuple[int, int], strides: tuple[int, int], pads: Pads) -> jax.Array:
    window, padded = _Window(size, strides), _pad(images, pads)
    places = window.places(*padded.shape[1:3])
    return _sum(_slice(padded, offset, strides, places) for offset in window.offsets())


def _native_window_sum(images: jax.Array, size: tuple[int, int], strides: tuple[int, int], pads: Pads) -> jax.Array:
    dims = ((1, *size, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))
    return lax.reduce_window(images, np.zeros((), images.dtype), lax.add, *dims)


def _slice(images: jax.Array, offset: tuple[int, int], strides: tuple[int, int], places: tuple[int, int]) -> jax.Array:
    """[b y x c]: the pixel at `offset` of the window, at each of its places."""
    (i, j), (sh, sw), (y, x) = offset, strides, places
    return images[:, i : i + (y - 1) * sh + 1 : sh, j : j + (x - 1) * sw + 1 : sw]


def _spread(values: jax.Array, offset: tuple[int, int], strides: tuple[int, int], shape: tuple[int, int]) -> jax.Array:
    """The transpose of `_slice`: [b y x c] put back into zeros [b h w c]."""
    edges = [
        (start, size - start - (n - 1) * step - 1, step - 1)
        for start, size, n, step in zip(offset, shape, values.shape[1:3], strides, strict=True)
    ]
    return lax.pad(values, jnp.zeros((), values.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def _pad(images: jax.Array, pads: Sequence[tuple[int, int]], value: float = 0) -> jax.Array:
    if not any(low or high for low, high in pads):
        return images
    return lax.pad(
        images,
        jnp.asarray(value, images.dtype),
        ((0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)),
    )


def _sum(terms: Any) -> jax.Array:
    add: Callable[[jax.Array, jax.Array], jax.Array] = jnp.add
    return reduce(add, terms)


def _is_nhwc(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, ("NHWC", "HWIO", "NHWC"))

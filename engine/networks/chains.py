"""Convolutions that follow one another, with their pools, become one operation for prediction (`kernels/chain.py`)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from engine.kernels import chain, lowerings
from engine.kernels.chain import Link
from engine.kernels.windows import Window, sliding
from engine.models.activations import Activation
from engine.networks.build import Row, inner
from engine.networks.modules import Activated

LINEAR = Activation("linear")


class ChainModule(nnx.Module):
    """Convolutions one after the other, for images of one size, with kernels made ready once; no gradient."""

    def __init__(self, links: list[Link], convs: list[nnx.Conv], image_shape: tuple[int, ...]):
        self.links = tuple(links)
        kernels = [conv.kernel[...] for conv in convs]
        biases = [jnp.zeros(conv.out_features) if conv.bias is None else conv.bias[...] for conv in convs]
        self.weights = nnx.Variable(chain.pack(links, kernels, biases, image_shape))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b y x o]."""
        return chain.convolve(x, self.weights[...], self.links)


class Like(NamedTuple):
    """The shape and dtype of float32 images."""

    shape: tuple[int, ...]
    dtype: Any = jnp.dtype(jnp.float32)


def join_convolutions(rows: list[Row]) -> list[Row]:
    """The rows with two or more convolutions that follow one another, if our own code runs all, as one layer."""
    joined = list[Row]()
    while rows:
        links, convs, rest = _take_links(rows)
        shape = rows[0][1]
        if len(links) > 1 and chain.are_small(links, shape):
            joined.append((ChainModule(links, convs, shape), shape, False))
        else:
            joined += rows[: max(1, len(rows) - len(rest))]
        rows = rest if links else rows[1:]
    return joined


def _take_links(rows: list[Row]) -> tuple[list[Link], list[nnx.Conv], list[Row]]:
    """The convolutions at the beginning of rows, each with a pool that follows, and the other rows."""
    links, convs, rest = list[Link](), list[nnx.Conv](), rows
    shape = rows[0][1]
    while rest and tuple(rest[0][1]) == tuple(shape) and (link := _make_link(rest)):
        links.append(link)
        convs.append(inner(rest[0][0]))  # type: ignore[arg-type]
        shape, rest = link.output_shape(shape), rest[2 if link.pool else 1 :]
    return links, convs, rest


def _make_link(rows: list[Row]) -> Link | None:
    """The first row, with the pool of the second if it is one, or None if it is another layer."""
    layer, shape, _ = rows[0]
    conv = inner(layer)
    activation = layer.activation if isinstance(layer, Activated) else LINEAR
    is_fused = activation.known.is_fused
    images = Like((1, *shape))
    if not (len(shape) == 3 and (is_fused or activation == LINEAR) and lowerings.runs_directly(conv, images)):  # type: ignore[arg-type]
        return None
    assert isinstance(conv, nnx.Conv)
    window = sliding(images.shape, conv.kernel_size, conv.strides, conv.kernel_dilation, conv.padding)  # type: ignore[arg-type]
    if min(map(min, window.pads)) < 0:
        return None
    pool = rows[1][0] if len(rows) > 1 and lowerings.pools_directly(rows[1][0]) else None
    tail = Window(pool.size, pool.strides) if isinstance(pool, lowerings.Pool) else None
    return Link(conv.kernel.shape, window, tail, is_fused)  # type: ignore[arg-type]

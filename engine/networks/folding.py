"""Batch norms with fixed statistics become part of the convolution before them, which is exact algebra.

`γ (w·x + b − μ) / √(σ² + ε) + β` is a convolution with the kernel `w s` and the bias `(b − μ) s + β`, where
`s = γ / √(σ² + ε)`. The activation that follows, and the addition of another path, are computed with it.
"""

from collections.abc import Callable
from functools import partial, reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from engine.kernels import direct, ffi, separable
from engine.kernels.direct import FusedTail, direct_conv_general_dilated
from engine.kernels.windows import Window, padded_size, sliding
from engine.kernels.xla import NHWC
from engine.models.activations import Activation
from engine.models.blocks import Join
from engine.models.shapes import Shape
from engine.networks.build import PathsModule, Row, SequentialModule, activation_of, inner, looks_past, run_rows
from engine.networks.chains import Like, join_convolutions
from engine.networks.modules import Activated, BatchNormModule, DepthwiseModule

LINEAR = Activation("linear")
CACHED_VALUES = 2**18  # of images that are convolved at once; one of 224×224, whose maps are 32 times as many values


class FoldedConv(nnx.Module):
    """A convolution with a batch norm folded into it, and an activation. It has no gradient.

    shape: of its images [h w c]. is_kept: it is used many times, so that its kernel is worth to be made ready for
    minimal filtering once.
    """

    def __init__(self, conv: nnx.Conv, norm: BatchNormModule, activation: Activation, shape: Shape, is_kept: bool):
        self.window = conv.kernel_size, conv.strides, conv.kernel_dilation, conv.padding
        self.activation = activation
        kernel, bias = folded(conv, norm)
        self.filters, self.channels = kernel.shape[3], kernel.shape[2] * conv.feature_group_count
        self.is_depthwise = conv.feature_group_count > 1
        self.is_packed = separable.supports_pointwise(Like((1, 1, 1, self.channels)), kernel, self._on((1, 1, 1, 1)))
        is_dense = is_kept and not self.is_depthwise
        window = self._on((1, *shape))
        self.is_spread = is_dense and ffi.can_spread(kernel, window)
        spread = partial(ffi.spread, sums=window.positions(*padded_size((1, *shape), window)))
        ready = separable.pack if self.is_packed else spread if self.is_spread else jnp.asarray
        self.kernel = nnx.Variable(ready(kernel))
        self.bias = nnx.Variable(bias)

    def __call__(self, x: jax.Array, added: jax.Array | None = None) -> jax.Array:
        """[b h w c] → [b y x o]. added: [b y x o], added before the activation."""
        window, name = self._on(x.shape), self.activation.function
        tail: Any = name if name in separable.TAILS else "linear"
        kernel, bias = self.kernel[...], self.bias[...]
        if self.is_packed:
            x = separable.pointwise(x, kernel, self.filters, bias, added, window, tail)
            return x if name == tail else self.activation.apply(x)
        if self.is_depthwise and separable.supports_depthwise(x, kernel, window):
            x = separable.depthwise(x, kernel, bias, window, tail if added is None else "linear")
            return x if name == tail and added is None else self._finished(x, added)
        is_fused = self.activation.known.is_fused and added is None
        if self.is_spread:
            x = ffi.convolve_spread(x, kernel, bias, window, is_fused)
            return x if is_fused else self._finished(x, added)
        if not self.is_depthwise and direct.supports(x, kernel, window):
            x = self._convolved(x, bias=bias, tail=FusedTail(None, is_fused))
            return x if is_fused else self._finished(x, added)
        return self._finished(self._convolved(x) + bias.reshape(1, 1, 1, -1), added)

    def looks_past(self, whole: Shape, part: Shape) -> bool:
        """As of `build.looks_past`: a kernel of 1×1 reads images where they lie, and a copy of the part costs time."""
        seen = (self._on(shape).positions(*shape[1:3]) for shape in (whole, (1, *part)))
        return self.is_packed and len(set(seen)) == 1

    def _finished(self, x: jax.Array, added: jax.Array | None) -> jax.Array:
        return self.activation.apply(x if added is None else x + added)

    def _convolved(self, x: jax.Array, **fused: Any) -> jax.Array:
        _, strides, dilation, padding = self.window
        groups = self.channels // self.kernel.shape[2]
        return direct_conv_general_dilated(
            x, self.kernel[...], strides, padding, None, dilation, NHWC, feature_group_count=groups, **fused
        )

    def _on(self, shape: tuple[int, ...]) -> Window:
        size, strides, dilation, padding = self.window
        return sliding(shape, size, strides, dilation, padding)  # type: ignore[arg-type]


class FoldedSequential(nnx.Module):
    """The layers of a SequentialModule, with batch norms folded."""

    def __init__(self, rows: list[Row]):
        layers, shapes, takes_mask = zip(*rows, strict=True) if rows else ((), (), ())
        self.layers, self.shapes, self.takes_mask = nnx.List(layers), tuple[Shape, ...](shapes), tuple(takes_mask)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None, added: jax.Array | None = None) -> jax.Array:
        """[b …] → [b …]. added: to what the last layer, a FoldedConv, gives before its activation."""
        rows = list(zip(self.layers, self.shapes, self.takes_mask, strict=True))
        if added is None:
            return run_rows(rows, x, mask)
        x, (last, shape, _) = run_rows(rows[:-1], x, mask), rows[-1]
        return last(x[:, : shape[0], : shape[1]], added)  # type: ignore[operator]

    def looks_past(self, whole: Shape, part: Shape) -> bool:
        """As of `build.looks_past`; the first layer sees what all of them see."""
        return len(self.layers) > 0 and self.shapes[0] == tuple(part) and looks_past(self.layers[0], whole, part)


class FoldedSum(nnx.Module):
    """The paths of a block that are added: the first one's last convolution adds the others'."""

    def __init__(self, first: FoldedSequential, others: list[FoldedSequential]):
        self.first, self.others = first, nnx.List(others)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """[b …] → [b …]."""
        return self.first(x, mask=mask, added=reduce(jnp.add, [path(x, mask=mask) for path in self.others]))

    def looks_past(self, whole: Shape, part: Shape) -> bool:
        """As of `build.looks_past`, if all paths do."""
        return all(path.looks_past(whole, part) for path in (self.first, *self.others))


class FoldedPaths(PathsModule):
    """A block of folded paths, joined."""

    def __init__(self, join: Join, paths: list[FoldedSequential]):
        self.join, self.paths = join, nnx.List(paths)  # type: ignore[assignment]


def folded(conv: nnx.Conv, norm: BatchNormModule) -> tuple[jax.Array, jax.Array]:
    """(kernel [i j c o], bias [o]) of the convolution that gives what both give."""
    factor = lax.rsqrt(norm.var[...] + norm.epsilon)
    factor = factor if norm.scale is None else factor * norm.scale[...]
    mean = norm.mean[...] if conv.bias is None else norm.mean[...] - conv.bias[...]
    bias = -mean * factor if norm.bias is None else norm.bias[...] - mean * factor
    return conv.kernel[...] * factor.reshape(1, 1, 1, -1), bias


def fold(module: SequentialModule, end: int | None = None) -> FoldedSequential:
    """The layers before number `end`, which run as in evaluation, folded, and those after it as they are."""
    rows = module.rows
    before, after = rows[:end], [] if end is None else rows[end:]
    if end is not None:
        return FoldedSequential([*_folded_rows(before, False), *after])
    return FoldedSequential(join_convolutions(_folded_rows(before, True)))


def has_folded(module: nnx.Module) -> bool:
    """Whether a batch norm was folded into any convolution."""
    return any(isinstance(layer, FoldedConv) for _, layer in nnx.iter_modules(module))


def run_in_parts(run: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """What `run` makes of images [b …], so many at once that their maps stay in a CPU's caches."""
    most = max(1, CACHED_VALUES // max(1, prod(images.shape[1:])))
    at_once = next((n for n in range(min(most, len(images)), 0, -1) if len(images) % n == 0), 1)
    if len(images) <= at_once:
        return run(images)
    outputs = lax.map(run, images.reshape(-1, at_once, *images.shape[1:]))  # [b/n n …]
    return outputs.reshape(len(images), *outputs.shape[2:])


def _folded_rows(rows: list[Row], is_kept: bool) -> list[Row]:
    made, rest = list[Row](), list(rows)
    while rest:
        layer, shape, takes_mask = rest.pop(0)
        if rest and isinstance(inner(rest[0][0]), BatchNormModule) and _folds(layer):
            norm = rest.pop(0)[0]
            activation = norm.activation if isinstance(norm, Activated) else None
            if activation is None and rest and (activation := activation_of(rest[0][0])):
                rest.pop(0)
            layer = FoldedConv(layer, inner(norm), activation or LINEAR, shape, is_kept)  # type: ignore[arg-type]
            takes_mask = False
        elif isinstance(inner(layer), PathsModule):
            layer = _folded_paths(layer, is_kept)
        made.append((layer, shape, takes_mask))
    return made


def _folds(layer: nnx.Module) -> bool:
    """Whether a layer is a convolution that a batch norm may be folded into: one that our own code for CPUs runs."""
    if getattr(layer, "conv_general_dilated", None) is not direct_conv_general_dilated or not separable.is_loaded():
        return False
    if isinstance(layer, DepthwiseModule) and layer.multiplier > 1:
        return False
    groups = layer.feature_group_count if isinstance(layer, nnx.Conv) else 0
    return groups == 1 or (groups > 1 and isinstance(layer, DepthwiseModule))


def _folded_paths(layer: nnx.Module, is_kept: bool) -> nnx.Module:
    """A block with its paths folded."""
    block, activation = inner(layer), layer.activation if isinstance(layer, Activated) else None
    assert isinstance(block, PathsModule)
    paths = [FoldedSequential(_folded_rows(path.rows, is_kept)) for path in block.paths]
    last = paths[0].layers[-1] if len(paths[0].layers) else None
    if block.join == "add" and len(paths) > 1 and isinstance(last, FoldedConv) and last.activation == LINEAR:
        last.activation = activation or LINEAR
        return FoldedSum(paths[0], paths[1:])
    copy = FoldedPaths(block.join, paths)
    return copy if activation is None else Activated(copy, activation)

"""A trained network in int8: integer weights, and uint8 between layers, for prediction on a CPU.

Weights have a scale for each output channel. The input of a layer has one scale, from the least and the largest value
seen in calibration. Pictures are uint8 already: their normalization becomes part of the first layer's weights.
Batch norms are folded into the convolutions before them first. As Jacob et al. (2018), arXiv:1712.05877.

Axes: i j kernel, c input channels, o output channels.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from engine.config.contract import InputSpec
from engine.kernels import quantized
from engine.kernels.lowerings import Pool
from engine.kernels.windows import Window, sliding
from engine.models.activations import Activation
from engine.models.layers import Flatten
from engine.networks.build import Row, SequentialModule, activation_of, inner, run_rows
from engine.networks.folding import LINEAR, FoldedSequential, folded
from engine.networks.modules import Activated, BatchNormModule, Function

MOST_WEIGHT = 127
MOST_BIAS = 2**29  # far from the end of int32, which the sums of products need
WITH_SUMS = ("linear", "relu", "relu6")  # activations that bounds of uint8 can be


@dataclass(frozen=True)
class Code:
    """What uint8 numbers q stand for: (q − zeros) · steps; float64[1], or [c], one for each channel."""

    steps: np.ndarray
    zeros: np.ndarray

    @classmethod
    def of_range(cls, least: float, largest: float) -> "Code":
        """The one whose 256 numbers reach from the least to the largest value, and have 0 among them."""
        least, largest = min(least, 0.0), max(largest, 0.0)
        step = (largest - least) / quantized.LARGEST or 1.0
        return cls(np.array([step]), np.rint(np.array([-least / step])))

    @classmethod
    def of_pictures(cls, spec: InputSpec) -> "Code | None":
        """That of stored pictures, for the values that the model is fed; None if each has its own, or is not uint8."""
        if spec.dtype != "uint8" or spec.per_example or spec.center_example or spec.whiten:
            return None
        std, mean = np.array(spec.std or (1.0,)), np.array(spec.mean or (0.0,))
        return cls(spec.scale / std, mean / spec.scale)

    def encode(self, values: jax.Array) -> jax.Array:
        """uint8[…] of float32 values, which have one scale."""
        levels = jnp.round(values * np.float32(1 / self.steps[0])) + np.float32(self.zeros[0])
        return jnp.clip(levels, 0, quantized.LARGEST).astype(jnp.uint8)

    def decode(self, levels: jax.Array) -> jax.Array:
        """float32[… c] of uint8."""
        by_channel = (1,) * (levels.ndim - 1) + (-1,)
        zeros, steps = (part.astype(np.float32).reshape(by_channel) for part in (self.zeros, self.steps))
        return (levels.astype(jnp.float32) - zeros) * steps


class Product:
    """A convolution or dense layer with the batch norm, activation and pool after it."""

    def __init__(self, layer: Any, norm: BatchNormModule | None, activation: Activation, is_pooled: bool):
        self.layer, self.activation, self.is_pooled = layer, activation, is_pooled
        if norm is not None:
            self.kernel, self.bias = map(np.asarray, folded(layer, norm))
        else:
            self.kernel = np.asarray(layer.kernel[...])
            self.bias = np.zeros(self.kernel.shape[-1]) if layer.bias is None else np.asarray(layer.bias[...])
        if self.kernel.ndim == 2:
            self.kernel = self.kernel[None, None]  # [d o] → [1 1 d o]

    @property
    def has_bounds(self) -> bool:
        """Whether its activation is one of WITH_SUMS, so that it can give uint8."""
        return self.activation.function in WITH_SUMS

    def make_arrays(self, given: Code, gives: Code | None) -> dict[str, np.ndarray]:
        """The arguments of `quantized.convolve` beside images, window and tail."""
        channels = self.kernel.shape[2]
        steps, zeros = (np.resize(part, channels) for part in (given.steps, given.zeros))
        taps = self.kernel.astype(np.float64) * steps[:, None]
        # A bias far beyond the weights decides what one int32 stands for: then these hardly matter.
        factors = np.maximum(np.abs(taps).max((0, 1, 2)) / MOST_WEIGHT, np.abs(self.bias) / MOST_BIAS)
        factors = np.where(factors > 0, factors, 1.0)
        kernel = np.rint(taps / factors).astype(np.int8)
        bias = np.rint(self.bias / factors - kernel.sum((0, 1), dtype=np.float64).T @ zeros)
        return {
            "packed": np.asarray(quantized.pack(jnp.asarray(kernel))),
            "bias": bias.astype(np.int32),
            "factors": (factors / (gives.steps[0] if gives else 1.0)).astype(np.float32),
            "edge": np.clip(np.rint(zeros), 0, quantized.LARGEST).astype(np.uint8),
        }

    def run(self, levels: jax.Array, arrays: dict[str, Any], gives: Code | None) -> jax.Array:
        """uint8[b …] → uint8[b …], or float32[b …] with the activation applied if it gives no uint8."""
        tail = quantized.Tail(self.is_pooled)
        if gives is not None:
            zero = int(gives.zeros[0])
            tail = tail._replace(zero=zero, least=0 if self.activation.function == "linear" else zero)
        weights = arrays["packed"], arrays["bias"], arrays["factors"]
        if levels.ndim == 2:
            outputs = quantized.multiply(levels, *weights, tail)
        else:
            outputs = quantized.convolve(levels, *weights, arrays["edge"], window_of(self.layer, levels.shape), tail)
        return outputs if gives is not None else self.activation.apply(outputs)


@dataclass(frozen=True)
class Part:
    """Layers that run together. product: their int8 form; None: they have none, or keep uint8 as it is (`keeps`)."""

    rows: tuple[Row, ...]
    names: tuple[str, ...]
    product: Product | None = None
    keeps: bool = False

    @property
    def has_weights(self) -> bool:
        """Whether any of its layers has parameters."""
        return any(jax.tree.leaves(nnx.state(layer, nnx.Param)) for layer, _, _ in self.rows)


def split_parts(module: SequentialModule, names: Sequence[str]) -> list[Part]:
    """The layers of a module in evaluation, in order; names: of its layers. The last one with weights stays float32."""
    rows, parts, n = module.rows, list[Part](), 0
    while n < len(rows):
        layer = rows[n][0]
        product, count = _take_product(rows[n:]) if _has_product(layer, module.shapes[n]) else (None, 1)
        keeps = product is None and _keeps_order(layer)
        parts.append(Part(tuple(rows[n : n + count]), tuple(names[n : n + count]), product, keeps))
        n += count
    last = max((n for n, part in enumerate(parts) if part.has_weights), default=0)
    return [Part(part.rows, part.names) if n == last else part for n, part in enumerate(parts)]


def window_of(conv: nnx.Conv, shape: tuple[int, ...]) -> Window:
    """The window of a convolution over images [b h w c]."""
    return sliding(shape, conv.kernel_size, conv.strides, conv.kernel_dilation, conv.padding)  # type: ignore[arg-type]


def _has_product(layer: nnx.Module, shape: tuple[int, ...]) -> bool:
    layer = inner(layer)
    if type(layer) is nnx.Linear:
        return len(shape) == 1 and shape[0] <= quantized.MOST_TAPS
    if type(layer) is not nnx.Conv or layer.feature_group_count != 1 or len(shape) != 3:
        return False
    return quantized.supports(layer.kernel.shape, window_of(layer, (1, *shape)))


def _take_product(rows: list[Row]) -> tuple[Product, int]:
    """The int8 form of the first of some layers with those after it that it includes, and how many these are in all."""
    layer, following = rows[0][0], deque(row[0] for row in rows[1:4])
    norm, activation = None, layer.activation if isinstance(layer, Activated) else None
    is_conv = isinstance(layer, nnx.Conv)  # without an activation
    if is_conv and following and isinstance(normed := inner(following[0]), BatchNormModule):
        with_norm, norm = following.popleft(), normed
        activation = with_norm.activation if isinstance(with_norm, Activated) else None
    if activation is None and following and (activation := activation_of(following[0])):
        following.popleft()
    activation = activation or LINEAR
    is_pooled = bool(following) and activation.function in WITH_SUMS and _is_two_by_two(following[0])
    product = Product(inner(layer), norm, activation, is_pooled)
    return product, min(4, len(rows)) - len(following) + is_pooled


def _is_two_by_two(layer: nnx.Module) -> bool:
    is_max = isinstance(layer, Pool) and layer.kind == "max" and layer.padding in ("valid", 0, ((0, 0), (0, 0)))
    return is_max and layer.size == layer.strides == (2, 2)  # type: ignore[union-attr]


def _keeps_order(layer: nnx.Module) -> bool:
    """Whether a layer picks or moves values only, so that it is the same of uint8."""
    is_flatten = isinstance(layer, Function) and isinstance(layer.layer, Flatten)
    return is_flatten or isinstance(layer, nnx.Dropout) or (isinstance(layer, Pool) and layer.kind == "max")


def find_extremes(parts: Sequence[Part], x: jax.Array) -> jax.Array:
    """The least and the largest input of each part with an int8 form, for each example: axes b, part, 2."""
    found = []
    for part in parts:
        if part.product is not None:
            flat = x.reshape(len(x), -1)
            found.append(jnp.stack([flat.min(1), flat.max(1)], 1))
        x = run_rows(part.rows, x, None)
    return jnp.stack(found, 1)


Run = Callable[[Any, jax.Array], jax.Array]


def quantize_parts(parts: Sequence[Part], pictures: Code | None, extremes: np.ndarray) -> tuple[list[Any], Run]:
    """(weights, run): `run(weights, inputs)` gives the outputs of all parts, as float32.

    pictures: of inputs that are uint8; None: they are float32, as the model is fed them.
    extremes: from `find_extremes`, over all examples of the calibration: axes part, 2.
    """
    codes = iter([Code.of_range(*map(float, pair)) for pair in extremes])
    needed = [next(codes) if part.product else None for part in parts]
    if pictures is not None:
        first = next((n for n, part in enumerate(parts) if not part.keeps), 0)
        needed[first] = pictures if parts[first].product else None
    gives = [
        _next_code(parts, needed, n) if part.product and part.product.has_bounds else None
        for n, part in enumerate(parts)
    ]
    weights, graphs = list[Any](), list[Any]()
    for part, given, out in zip(parts, needed, gives, strict=True):
        if part.product is not None and given is not None:
            weights.append(jax.tree.map(jnp.asarray, part.product.make_arrays(given, out)))
            graphs.append(None)
        else:
            *rest, arrays = nnx.split(FoldedSequential(list(part.rows)), nnx.RngState, ...)
            weights.append(nnx.as_pure(arrays))
            graphs.append(rest)

    def run(weights: list[Any], x: jax.Array) -> jax.Array:
        code = pictures
        for part, graph, arrays, given, out in zip(parts, graphs, weights, needed, gives, strict=True):
            if graph is None:
                assert part.product is not None
                assert given is not None
                x = x if code is not None else given.encode(x)
                x = part.product.run(_cropped(x, part.rows[0][1]), arrays, out)
                code = out
            else:
                if code is not None and not part.keeps:
                    x, code = code.decode(x), None
                x = nnx.merge(*graph, arrays)(x)
        return x if code is None else code.decode(x)

    return weights, run


def _next_code(parts: Sequence[Part], needed: list[Code | None], n: int) -> Code | None:
    """The code in which the next part that does more than to keep it takes what comes; None: float32."""
    after = next((m for m in range(n + 1, len(parts)) if not parts[m].keeps), None)
    return None if after is None else needed[after]


def _cropped(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return x[:, : shape[0], : shape[1]] if len(shape) == 3 else x

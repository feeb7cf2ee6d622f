"""Model specs → Flax NNX modules."""

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from engine.errors import InputError, problem, shape_text
from engine.kernels import lowerings, pooling, separable
from engine.models import blocks, convolutions, layers, norms, pools, specs, tokens
from engine.models.activations import Activation, activation_spec
from engine.models.cropping import inputs_that_count
from engine.models.layer import CustomLayer, Layer
from engine.models.shapes import Shape, pair
from engine.networks.functions import global_max, up_sample
from engine.networks.modules import (
    Activated,
    BatchNormModule,
    DepthwiseModule,
    Function,
    LayerScaleModule,
    PReLUModule,
    SeparableModule,
    TransposeModule,
    conv_module,
    dropout_module,
)
from engine.networks.tokens import AttentionModule, ClassTokenModule, PositionEmbeddingModule
from engine.records.custom import Custom

Row = tuple[nnx.Module, Shape, bool]
"""A layer, how much of its input counts, and whether it takes a mask."""


def run_rows(rows: Sequence[Row], x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """What layers, applied one after the other, make of inputs [b …]; mask: as of SequentialModule."""
    rest = deque(rows)
    while rest:
        layer, shape, takes_mask = rest.popleft()
        if len(shape) == 3 and not looks_past(layer, x.shape, shape):
            x = x[:, : shape[0], : shape[1]]
        if lowerings.runs_directly(inner(layer), x):
            x = _run_directly(layer, rest, x, mask)
        elif isinstance(norm := inner(layer), BatchNormModule) and norm.runs_directly(x):
            x = _normalize_directly(layer, norm, rest, x, mask if takes_mask else None)
        else:
            x = _run(layer, x, mask if takes_mask else None)
    return x


def looks_past(layer: nnx.Module, whole: Shape, part: Shape) -> bool:
    """Whether a layer makes of images of shape `whole` [b h w c] what it makes of their top left part [h w c]."""
    return (says := getattr(layer, "looks_past", None)) is not None and says(whole, part)


class SequentialModule(nnx.Module):
    """The layers of a Sequential spec, applied one after the other, from number `first` (of 0) to before `end`.

    A path of a block is one too.
    """

    def __init__(self, spec: specs.Sequential, input_shape: Shape, rngs: nnx.Rngs):
        self.spec = spec
        self.shapes = (tuple(input_shape), *(row.output_shape for row in spec.rows(input_shape)))
        self.layers = nnx.List(_build_layer(*of, rngs) for of in zip(spec.layers, self.shapes, strict=False))
        self.first, self.end = 0, len(spec.layers)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """[b …] → [b k]. Batch statistics leave out the examples where `mask` [b] is false."""
        return run_rows(self.rows, x, mask)

    @property
    def rows(self) -> list["Row"]:
        """The layers that run."""
        counted = inputs_that_count(self.spec.layers[: self.end], self.shapes)
        takes_mask = (layer.takes_mask for layer in self.spec.layers)
        return list(zip(self.layers, counted, takes_mask, strict=False))[self.first :]


class PathsModule(nnx.Module):
    """The paths of a block, joined."""

    def __init__(self, layer: blocks.Paths, input_shape: Shape, rngs: nnx.Rngs):
        self.join: blocks.Join = layer.join
        self.paths = nnx.List(SequentialModule(specs.Sequential(path), input_shape, rngs) for path in layer.paths)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """[b …] → [b …]. mask: as of SequentialModule."""
        outputs = [path(x, mask=mask) for path in self.paths]
        if self.join == "concat":
            return jnp.concatenate(outputs, axis=-1)
        return reduce(jnp.add if self.join == "add" else jnp.multiply, outputs)


def build(
    spec: specs.Model, input_shape: Shape, num_outputs: int, rngs: nnx.Rngs, lowering: pooling.Lowering = "xla"
) -> nnx.Module:
    """The NNX module of a spec for examples of `input_shape`, kernels as their initializers draw them, and zero biases.

    Raises InputError where a layer does not fit what comes to it, or where the output is not [b num_outputs].
    """
    if isinstance(spec, Custom):
        module = _build_custom(spec, input_shape, num_outputs, rngs)
    else:
        spec = spec.with_outputs(num_outputs)
        _check_output(spec.output_shape(input_shape), num_outputs)
        module = SequentialModule(spec, input_shape, rngs)
        _keep_outputs_float32(module.layers[-1])
    lowerings.plug(module, lowering)
    _keep_batch_norm_narrow(module)
    return module


def takes_mask(module: nnx.Module) -> bool:
    """Whether the module has a parameter for which examples of a batch count."""
    return "mask" in inspect.signature(type(module).__call__).parameters


def _run(layer: nnx.Module, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    if isinstance(layer, Activated):
        return layer.activation.apply(_run(layer.layer, x, mask))
    call: Callable[..., jax.Array] = layer  # type: ignore[assignment]
    return call(x) if mask is None else call(x, mask=mask)


def _run_directly(layer: nnx.Module, rest: deque[Row], x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """A convolution with its activation, and with a pool that follows, which is taken from the rest.

    The pool goes before the activation, where the largest of the activated is the activation of the largest.
    """
    norm = inner(rest[0][0]) if rest else None
    if isinstance(layer, nnx.Conv) and isinstance(norm, BatchNormModule) and norm.absorbs_bias(x):
        following, _, takes_mask = rest.popleft()
        bias = None if layer.bias is None else layer.bias[...]
        maps = lowerings.convolve_directly(layer, x, has_bias=False)
        return _normalize_directly(following, norm, rest, maps, mask if takes_mask else None, bias)
    activation = layer.activation if isinstance(layer, Activated) else Activation("linear")
    pool = rest[0][0] if rest and activation.known.is_monotone and lowerings.pools_directly(rest[0][0]) else None
    if pool is not None:
        rest.popleft()
    is_fused = activation.known.is_fused
    x = lowerings.convolve_directly(inner(layer), x, pool, is_fused)  # type: ignore[arg-type]
    return x if is_fused else activation.apply(x)


def _normalize_directly(
    layer: nnx.Module, norm: BatchNormModule, rest: deque[Row], x: jax.Array, mask: jax.Array | None,
    bias: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """A batch norm with its activation, or with one that follows, which is taken from the rest.

    bias: one that x lacks, of the convolution before.
    """
    activation = layer.activation if isinstance(layer, Activated) else None
    if activation is None and rest and (activation := activation_of(rest[0][0])):
        rest.popleft()
    tail: Any = activation.function if activation else "linear"
    if tail in separable.TAILS:
        return norm.run_directly(x, mask, tail, bias)
    x = norm.run_directly(x, mask, bias=bias)
    return activation.apply(x) if activation else x


def activation_of(layer: nnx.Module) -> Activation | None:
    """The activation that a layer is."""
    is_one = isinstance(layer, Function) and isinstance(layer.layer, Activation)
    return layer.layer if is_one else None  # type: ignore[union-attr]


def inner(layer: nnx.Module) -> nnx.Module:
    """A layer without its activation."""
    return layer.layer if isinstance(layer, Activated) else layer


def _pool(kind: Literal["max", "average"]) -> "Builder":
    def build_pool(layer: pools.MaxPool | pools.AveragePool, shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
        return lowerings.Pool(kind, pair(layer.size), pair(layer.strides or layer.size), layer.padding)

    return build_pool


def _function(function: Callable[[Any, jax.Array], jax.Array]) -> "Builder":
    return lambda layer, shape, rngs: Function(layer, function)


def _global_max(layer: pools.GlobalMaxPool, x: jax.Array) -> jax.Array:
    largest = global_max(x)  # [b h w c] → [b c]
    return largest[:, None, None] if layer.keep_axes else largest


Builder = Callable[[Any, Shape, nnx.Rngs], nnx.Module]
BUILDERS: dict[type, Builder] = {
    convolutions.Conv: conv_module,
    convolutions.DepthwiseConv: DepthwiseModule,
    convolutions.SeparableConv: SeparableModule,
    convolutions.ConvTranspose: TransposeModule,
    pools.MaxPool: _pool("max"),
    pools.AveragePool: _pool("average"),
    blocks.Paths: PathsModule,
    norms.BatchNorm: BatchNormModule,
    norms.LayerScale: LayerScaleModule,
    tokens.Attention: AttentionModule,
    tokens.ClassToken: ClassTokenModule,
    tokens.PositionEmbedding: PositionEmbeddingModule,
    layers.PReLU: PReLUModule,
    layers.Dropout: lambda layer, shape, rngs: dropout_module(layer, layer.broadcast_axes, rngs),
    layers.DropPath: lambda layer, shape, rngs: dropout_module(layer, tuple(range(1, len(shape) + 1)), rngs),
    pools.GlobalMaxPool: _function(_global_max),
    layers.UpSample: _function(up_sample),
}
"""(layer, shape of an example, rngs) → module of the layers that need kernels or networks. Others build themselves."""


def _build_layer(layer: Layer, shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
    plain = layer.loaded()
    make = next((BUILDERS[kind] for kind in type(plain).__mro__ if kind in BUILDERS), None)
    module = plain.build(shape, rngs)
    if module is None:
        module = make(plain, shape, rngs) if make else Function(layer)
    activation = activation_spec(plain.activation)
    if activation and not isinstance(plain, Activation):
        module = Activated(module, activation)
    if isinstance(layer, CustomLayer):
        _check_own_layer(layer, module, shape)
    return module


def _check_own_layer(layer: CustomLayer, module: Any, shape: Shape) -> None:
    """Raises InputError if a user's module does other than its layer says."""
    if not isinstance(module, nnx.Module):
        got = f"{layer.own.path}, which builds a {type(module).__name__}"
        raise InputError(problem("layer", got, "a subclass of flax.nnx.Module", "Derive it from that."))
    params = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    is_random = any(isinstance(node, nnx.RngKey) for _, node in nnx.iter_graph(module))
    for method, given, found in (
        ("output_shape", tuple(layer.output_shape(shape)), _output_shape(module, layer.own.path, shape)),
        ("num_params", layer.num_params(shape), params),
        ("is_random", layer.is_random, is_random),
    ):
        if given != found:
            got = f"{given} for an input of {shape_text(shape)}"
            raise InputError(problem(f"{layer.own.path} {method}", got, f"{found}, as its module has", "Correct one."))


def _build_custom(spec: Custom, input_shape: Shape, num_outputs: int, rngs: nnx.Rngs) -> nnx.Module:
    module_class = spec.load()
    arguments: dict[str, Any] = dict(spec.arguments)
    try:
        module = module_class(input_shape=input_shape, num_outputs=num_outputs, rngs=rngs, **arguments)
    except TypeError as error:
        rule = "a class called with input_shape, num_outputs, rngs and its arguments, all by name"
        raise InputError(problem("model", f"{spec.path} ({error})", rule, "Give its __init__ these.")) from error
    if not isinstance(module, nnx.Module):
        raise InputError(problem("model", spec.path, "a subclass of flax.nnx.Module", "Derive it from that."))
    _check_output(_output_shape(module, spec.path, input_shape), num_outputs)
    return module


def _output_shape(module: nnx.Module, path: str, input_shape: Shape) -> Shape:
    """The shape of an example's output of a user's own module."""
    try:
        inputs = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
        outputs = nnx.eval_shape(lambda module, x: module(x), module, inputs)
        return outputs.shape[1:]
    except InputError:
        raise
    except (TypeError, AttributeError, ValueError) as error:
        rule = f"a module called with float32[b {shape_text(input_shape)}] alone that gives one array"
        reason = str(error).splitlines()[0]
        raise InputError(problem("model", f"{path} ({reason})", rule, "Correct its __call__.")) from error


def _keep_batch_norm_narrow(module: nnx.Module) -> None:
    """Lets batch norms give bfloat16 for bfloat16: Flax would promote it to the float32 of their running averages."""
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.BatchNorm):
            node.promote_dtype = _unchanged  # type: ignore[assignment]


def _unchanged(arrays: tuple, dtype: Any = None) -> tuple:
    return arrays


def _keep_outputs_float32(last: nnx.Module) -> None:
    """Sums of bfloat16 products are float32; the last layer does not round them, or half a percent of logits tie."""
    layer = inner(last)
    if isinstance(layer, nnx.Linear):
        layer.preferred_element_type = jnp.float32


def _check_output(shape: Shape, num_outputs: int) -> None:
    if tuple(shape) != (num_outputs,):
        remedy = "End the model with Dense(), which takes that number from the data."
        got = f"{shape_text(shape)} outputs an example"
        raise InputError(problem("model", got, f"{num_outputs}, as the data asks for", remedy))

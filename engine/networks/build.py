"""Model specs → Flax NNX modules."""

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from engine.errors import InputError, problem, shape_text
from engine.kernels import lowerings, pooling
from engine.models import layers, specs
from engine.models.activations import Activation, activation_of
from engine.models.cropping import inputs_that_count
from engine.models.shapes import Shape, pair
from engine.networks.functions import FUNCTIONS, INITIALIZERS, activate
from engine.networks.modules import (
    Activated,
    BatchNorm,
    DepthwiseModule,
    Function,
    PReLUModule,
    SeparableModule,
    TransposeModule,
    conv_module,
)
from engine.records.custom import Custom


class SequentialModule(nnx.Module):
    """The layers of a Sequential spec, applied one after the other, from number `first` (of 0) to before `end`."""

    def __init__(self, spec: specs.Sequential, input_shape: Shape, rngs: nnx.Rngs):
        self.spec = spec
        self.shapes = (tuple(input_shape), *(row.output_shape for row in spec.rows(input_shape)))
        self.layers = nnx.List(_build_layer(*of, rngs) for of in zip(spec.layers, self.shapes, strict=False))
        self.first, self.end = 0, len(spec.layers)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """[b …] → [b k]. Batch statistics leave out the examples where `mask` [b] is false."""
        counted = inputs_that_count(self.spec.layers[: self.end], self.shapes)
        rest = deque(list(zip(self.layers, counted, strict=False))[self.first :])
        while rest:
            layer, shape = rest.popleft()
            if len(shape) == 3:
                x = x[:, : shape[0], : shape[1]]
            if lowerings.runs_directly(_inner(layer), x):
                x = _run_directly(layer, rest, x)
            elif isinstance(layer, BatchNorm):
                x = layer(x, mask=mask)
            else:
                x = layer(x)  # type: ignore[operator]
        return x


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
    """Whether the module wants to be told which examples of a batch count."""
    return "mask" in inspect.signature(type(module).__call__).parameters


def _run_directly(layer: nnx.Module, rest: deque[tuple[nnx.Module, Shape]], x: jax.Array) -> jax.Array:
    """A convolution with its activation, and with a pool that follows, which is taken from the rest.

    The pool goes before the activation, where the largest of the activated is the activation of the largest.
    """
    activation = layer.activation if isinstance(layer, Activated) else Activation("linear")
    pool = rest[0][0] if rest and activation.is_monotone and lowerings.pools_directly(rest[0][0]) else None
    if pool is not None:
        rest.popleft()
    is_relu = activation.name == "relu"
    x = lowerings.convolve_directly(_inner(layer), x, pool, is_relu)  # type: ignore[arg-type]
    return x if is_relu else activate(activation, x)


def _inner(layer: nnx.Module) -> nnx.Module:
    return layer.layer if isinstance(layer, Activated) else layer


def _dense(layer: layers.Dense, shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
    assert layer.units is not None
    draw = INITIALIZERS[layer.kernel_initializer]
    return nnx.Linear(shape[0], layer.units, use_bias=layer.use_bias, kernel_init=draw, rngs=rngs)


def _pool(kind: Literal["max", "average"]) -> "Builder":
    def build_pool(layer: layers.MaxPool | layers.AveragePool, shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
        return lowerings.Pool(kind, pair(layer.size), pair(layer.strides or layer.size), layer.padding)

    return build_pool


def _group_norm(layer: layers.GroupNorm, shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
    sizes = {"num_groups": layer.groups, "epsilon": layer.epsilon}
    return nnx.GroupNorm(shape[-1], **sizes, use_fast_variance=False, rngs=rngs)


Builder = Callable[[Any, Shape, nnx.Rngs], nnx.Module]
BUILDERS: dict[type, Builder] = {
    layers.Dense: _dense,
    layers.Conv: lambda layer, shape, rngs: conv_module(layer, shape[2], rngs),
    layers.DepthwiseConv: lambda layer, shape, rngs: DepthwiseModule(layer, shape[2], rngs),
    layers.SeparableConv: lambda layer, shape, rngs: SeparableModule(layer, shape[2], rngs),
    layers.ConvTranspose: lambda layer, shape, rngs: TransposeModule(layer, shape[2], rngs),
    layers.MaxPool: _pool("max"),
    layers.AveragePool: _pool("average"),
    layers.Dropout: lambda layer, shape, rngs: nnx.Dropout(layer.rate, rngs=rngs),
    layers.SpatialDropout: lambda layer, shape, rngs: nnx.Dropout(layer.rate, broadcast_dims=(1, 2), rngs=rngs),
    layers.BatchNorm: lambda layer, shape, rngs: BatchNorm(
        shape[-1], momentum=layer.momentum, epsilon=layer.epsilon, rngs=rngs
    ),
    layers.LayerNorm: lambda layer, shape, rngs: nnx.LayerNorm(
        shape[-1], epsilon=layer.epsilon, use_fast_variance=False, rngs=rngs
    ),
    layers.GroupNorm: _group_norm,
    layers.PReLU: lambda layer, shape, rngs: PReLUModule(layer, shape),
}
"""(layer, shape of an example, rngs) → module of the layers that are more than a function."""


def _build_layer(layer: layers.Layer, shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
    if type(layer) in FUNCTIONS:
        return Function(layer)
    module = BUILDERS[type(layer)](layer, shape, rngs)
    activation = activation_of(getattr(layer, "activation", None))
    return Activated(module, activation) if activation else module


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
    _check_output(_custom_output_shape(module, spec, input_shape), num_outputs)
    return module


def _custom_output_shape(module: nnx.Module, spec: Custom, input_shape: Shape) -> Shape:
    try:
        inputs = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
        outputs = nnx.eval_shape(lambda module, x: module(x), module, inputs)
        return outputs.shape[1:]
    except (TypeError, AttributeError, ValueError) as error:
        rule = f"a module called with float32[b {shape_text(input_shape)}] alone that gives one array"
        reason = str(error).splitlines()[0]
        raise InputError(problem("model", f"{spec.path} ({reason})", rule, "Correct its __call__.")) from error


def _keep_batch_norm_narrow(module: nnx.Module) -> None:
    """Lets batch norms give bfloat16 for bfloat16: Flax would promote it to the float32 of their running averages."""
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.BatchNorm):
            node.promote_dtype = _unchanged  # type: ignore[assignment]


def _unchanged(arrays: tuple, dtype: Any = None) -> tuple:
    return arrays


def _keep_outputs_float32(last: nnx.Module) -> None:
    """Sums of bfloat16 products are float32; the last layer does not round them, or half a percent of logits tie."""
    layer = _inner(last)
    if isinstance(layer, nnx.Linear):
        layer.preferred_element_type = jnp.float32


def _check_output(shape: Shape, num_outputs: int) -> None:
    if tuple(shape) != (num_outputs,):
        remedy = "End the model with Dense(), which takes that number from the data."
        got = f"{shape_text(shape)} outputs an example"
        raise InputError(problem("model", got, f"{num_outputs}, as the data asks for", remedy))

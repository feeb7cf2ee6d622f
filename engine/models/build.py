"""Model specs → Flax NNX modules."""

import inspect
from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine import ops
from engine.errors import InputError, problem, shape_text
from engine.models import layers, specs
from engine.models.cropping import inputs_that_count
from engine.models.layers import Shape, pair

KERNEL_INIT = nnx.initializers.glorot_uniform()

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "softplus": jax.nn.softplus,
    "softmax": jax.nn.softmax,
}
MONOTONE = (None, "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus")


class Activated(nnx.Module):
    """A layer with an activation after it."""

    def __init__(self, layer: nnx.Module, activation: str):
        self.layer, self.activation = layer, activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b …]."""
        return ACTIVATIONS[self.activation](self.layer(x))  # type: ignore[operator]


class Function(nnx.Module):
    """A layer without parameters: GlobalAveragePool, Flatten, Activation or Rescale."""

    def __init__(self, layer: layers.GlobalAveragePool | layers.Flatten | layers.Activation | layers.Rescale):
        self.layer = layer

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b …]."""
        match self.layer:
            case layers.GlobalAveragePool():
                return x.mean(axis=(1, 2))
            case layers.Flatten():
                return x.reshape(x.shape[0], -1)  # [b h w c] → [b d]
            case layers.Activation(name):
                return ACTIVATIONS[name](x)
            case layers.Rescale(scale, offset):
                return x * scale + offset


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
            if ops.runs_directly(_inner(layer), x):
                x = _run_directly(layer, rest, x)
            elif isinstance(layer, nnx.BatchNorm) and mask is not None:
                wide = mask.reshape(-1, *(1,) * (x.ndim - 1))  # [b] → [b 1 1 1]
                x = layer(x, mask=jnp.broadcast_to(wide, x.shape))
            else:
                x = layer(x)  # type: ignore[operator]
        return x


def build(
    spec: specs.Model, input_shape: Shape, num_outputs: int, rngs: nnx.Rngs, lowering: ops.Lowering = "native"
) -> nnx.Module:
    """The NNX module of a spec for examples of `input_shape`, Glorot-uniform kernels and zero biases.

    Raises InputError where a layer does not fit what comes to it, or where the output is not [b num_outputs].
    """
    if isinstance(spec, specs.Custom):
        module = _build_custom(spec, input_shape, num_outputs, rngs)
    else:
        spec = spec.with_outputs(num_outputs)
        _check_output(spec.output_shape(input_shape), num_outputs)
        module = SequentialModule(spec, input_shape, rngs)
        _keep_outputs_float32(module.layers[-1])
    ops.plug(module, lowering)
    _keep_batch_norm_narrow(module)
    return module


def takes_mask(module: nnx.Module) -> bool:
    """Whether the module wants to be told which examples of a batch count."""
    return "mask" in inspect.signature(type(module).__call__).parameters


def _run_directly(layer: nnx.Module, rest: deque[tuple[nnx.Module, Shape]], x: jax.Array) -> jax.Array:
    """A convolution with its activation, and with a pool that follows, which is taken from the rest.

    The pool goes before the activation, where the largest of the activated is the activation of the largest.
    """
    activation = layer.activation if isinstance(layer, Activated) else None
    pool = rest[0][0] if rest and activation in MONOTONE and ops.pools_directly(rest[0][0]) else None
    if pool is not None:
        rest.popleft()
    x = ops.convolve_directly(_inner(layer), x, pool, activation == "relu")  # type: ignore[arg-type]
    return x if activation in (None, "relu") else ACTIVATIONS[activation](x)


def _inner(layer: nnx.Module) -> nnx.Module:
    return layer.layer if isinstance(layer, Activated) else layer


def _build_layer(layer: layers.Layer, shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
    match layer:
        case layers.Dense():
            assert layer.units is not None
            dense = nnx.Linear(shape[0], layer.units, use_bias=layer.use_bias, kernel_init=KERNEL_INIT, rngs=rngs)
            return Activated(dense, layer.activation) if layer.activation else dense
        case layers.Conv():
            conv = _build_conv(layer, shape[2], rngs)
            return Activated(conv, layer.activation) if layer.activation else conv
        case layers.MaxPool(size, strides, padding):
            return ops.Pool("max", pair(size), pair(strides or size), padding)
        case layers.AveragePool(size, strides, padding):
            return ops.Pool("average", pair(size), pair(strides or size), padding)
        case layers.Dropout(rate):
            return nnx.Dropout(rate, rngs=rngs)
        case layers.BatchNorm(momentum, epsilon):
            return nnx.BatchNorm(shape[-1], momentum=momentum, epsilon=epsilon, rngs=rngs)
        case _:
            return Function(layer)


def _build_conv(layer: layers.Conv, channels: int, rngs: nnx.Rngs) -> nnx.Conv:
    pads = layer.padding
    return nnx.Conv(
        channels,
        layer.filters,
        pair(layer.kernel_size),
        pair(layer.strides),
        padding=((pads, pads), (pads, pads)) if isinstance(pads, int) else pads.upper(),
        kernel_dilation=pair(layer.dilation),
        feature_group_count=layer.groups,
        use_bias=layer.use_bias,
        kernel_init=KERNEL_INIT,
        rngs=rngs,
    )


def _build_custom(spec: specs.Custom, input_shape: Shape, num_outputs: int, rngs: nnx.Rngs) -> nnx.Module:
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


def _custom_output_shape(module: nnx.Module, spec: specs.Custom, input_shape: Shape) -> Shape:
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

"""NNX modules of layers that Flax lacks, or computes with other numbers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from engine.config.plan import DATA
from engine.kernels import batch_norm, batch_norm_gpu
from engine.kernels.lowerings import Lowered
from engine.kernels.separable import Tail
from engine.kernels.windows import Pads, Window, collect
from engine.kernels.xla import NHWC, xla_conv_general_dilated
from engine.models.activations import Activation
from engine.models.convolutions import Conv, ConvTranspose, DepthwiseConv, SeparableConv
from engine.models.layer import Layer
from engine.models.layers import Dropout, PReLU
from engine.models.norms import BatchNorm, LayerScale
from engine.models.shapes import Padding, Shape, padded_sides, pair
from engine.models.weights import Initializer, initializer
from engine.networks.functions import repeated

_are_split = ContextVar("_are_split", default=False)


@contextmanager
def split_over_devices(are_split: bool) -> Iterator[None]:
    """A block in which modules are traced for the examples of one device, if `are_split`, and add up over `data`."""
    token = _are_split.set(are_split)
    try:
        yield
    finally:
        _are_split.reset(token)


class Activated(nnx.Module):
    """A layer with an activation after it."""

    def __init__(self, layer: nnx.Module, activation: Activation):
        self.layer, self.activation = layer, activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b …]."""
        return self.activation.apply(self.layer(x))  # type: ignore[operator]


class Function(nnx.Module):
    """A layer without parameters; `function` computes it, by default the spec's own."""

    def __init__(self, layer: Layer, function: Callable[[Any, jax.Array], jax.Array] | None = None):
        self.layer, self.function = layer, function

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b …]."""
        return self.layer.apply(x) if self.function is None else self.function(self.layer, x)


class BatchNormModule(Lowered, nnx.BatchNorm):
    """Flax's batch norm with a variance that is exact however far the mean is from 0; bfloat16 for bfloat16."""

    def __init__(self, layer: BatchNorm, shape: Shape, rngs: nnx.Rngs):
        super().__init__(
            shape[-1], momentum=layer.momentum, epsilon=layer.epsilon, use_scale=layer.use_scale,
            use_bias=layer.use_offset, rngs=rngs,
        )  # fmt: skip

    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """[b … c] → [b … c]. mask: bool[b], the examples that count."""
        is_fixed = self.use_running_average if use_running_average is None else use_running_average
        if is_fixed:
            mean, variance = self.mean[...], self.var[...]
        elif self.runs_directly(x):
            return self.run_directly(x, mask)
        else:
            mean, variance = moments(x, mask)
            self._average(mean, variance)
        by_channel = (1,) * (x.ndim - 1) + (-1,)
        own = [part[...] for part in (self.scale, self.bias) if part is not None]
        factor = lax.rsqrt(variance + self.epsilon).reshape(by_channel)
        if self.scale is not None:
            factor = factor * self.scale[...].reshape(by_channel)
        outputs = (x - mean.reshape(by_channel)) * factor
        if self.bias is not None:
            outputs = outputs + self.bias[...].reshape(by_channel)
        return outputs.astype(jnp.result_type(x, *own))

    def runs_directly(self, x: jax.Array) -> bool:
        """Whether it can be one operation with the activation after it, by the statistics of the batch."""
        is_whole = not _are_split.get()
        return is_whole and self.lowering == "direct" and not self.use_running_average and batch_norm.supports(x)

    def absorbs_bias(self, x: jax.Array) -> bool:
        """Whether the bias of a convolution of x before it is left out: it only moves the mean, which is subtracted.

        Its gradient, which is nothing but rounding, is then 0, and takes no sum over all images. On a GPU alone: where
        the convolution's own code adds it, nothing is gained.
        """
        return batch_norm_gpu.supports(x) and self.runs_directly(x)

    def run_directly(
        self, x: jax.Array, mask: jax.Array | None, tail: Tail = "linear", bias: jax.Array | None = None
    ) -> jax.Array:
        """[b … c] → [b … c], the activation applied. bias: [c] that x lacks, which the average of the mean has."""
        scale, offset = (None if part is None else part[...] for part in (self.scale, self.bias))
        outputs, mean, variance = batch_norm.normalize(x, scale, offset, mask, self.epsilon, tail)
        self._average(mean if bias is None else mean + bias, variance)
        return outputs

    def _average(self, mean: jax.Array, variance: jax.Array) -> None:
        for average, new in ((self.mean, mean), (self.var, variance)):
            average[...] = self.momentum * average[...] + (1 - self.momentum) * new


def moments(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """float32 (mean [c], variance [c]) over all axes of x [b … c] but the last, of the examples that `mask` [b] counts.

    Squared are distances to a value near the mean, so that nothing cancels: the mean of all images' middle rows. These
    are 1/h of what is read, and both sums still take one pass over the images. The mean of n values of N is within
    √(N/n) standard deviations of that of all, so h is the most roundings that the variance is off by. Vectors, which
    are small, take two passes.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    near = lax.stop_gradient(_mean(x[:, x.shape[1] // 2] if x.ndim > 2 else x, mask))
    distance = x - near.reshape(*(1,) * (x.ndim - 1), -1)
    mean = _mean(distance, mask)
    return near + mean, jnp.maximum(0, _mean(jnp.square(distance), mask) - jnp.square(mean))


def _mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """[c]: the mean over all axes of x [b … c] but the last, of the examples that `mask` [b] counts."""
    axes = tuple(range(x.ndim - 1))
    if mask is None and not _are_split.get():
        return x.mean(axes)
    mask = jnp.ones(len(x), bool) if mask is None else mask
    counted = jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, 0)
    total, count = counted.sum(axes), mask.sum()
    if _are_split.get():
        total, count = lax.psum((total, count), DATA)
    return total / (count * prod(x.shape[1:-1]))


class DropoutModule(nnx.Dropout):
    """Flax's dropout, with one draw for a whole batch, of which each device takes its part."""

    def __call__(self, inputs: jax.Array, **how: Any) -> jax.Array:  # type: ignore[override]
        """[b …] → [b …]."""
        is_drawn = self.rate > 0 and not self.deterministic
        if not (is_drawn and _are_split.get()):
            return super().__call__(inputs, **how)
        share, count = len(inputs), lax.axis_size(DATA)
        shape = [1 if axis in self.broadcast_dims else size for axis, size in enumerate(inputs.shape)]
        shape[0] *= count
        drawn = jax.random.bernoulli(self.rngs(), 1 - self.rate, shape)  # type: ignore[misc]
        kept = lax.dynamic_slice_in_dim(drawn, lax.axis_index(DATA) * share, share)
        return lax.select(jnp.broadcast_to(kept, inputs.shape), inputs / (1 - self.rate), jnp.zeros_like(inputs))


def dropout_module(layer: Dropout, broadcast_axes: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Dropout:
    """Dropout that draws once along some axes."""
    return DropoutModule(layer.rate, broadcast_dims=broadcast_axes, rngs=rngs)


class LayerScaleModule(nnx.Module):
    """Each channel times a trained number."""

    def __init__(self, layer: LayerScale, shape: Shape, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.full(shape[-1:], layer.start, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b … c] → [b … c]."""
        return x * self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))


class PReLUModule(nnx.Module):
    """relu with learned slopes below 0."""

    def __init__(self, layer: PReLU, shape: Shape, rngs: nnx.Rngs):
        self.slope = nnx.Param(jnp.zeros(layer.slopes_shape(shape)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b …]."""
        return jax.nn.relu(x) - self.slope[...][None] * jax.nn.relu(-x)


class DepthwiseModule(nnx.Conv):
    """A convolution of each channel by itself, with one kernel or several; the kernel is [i j 1 c·multiplier]."""

    def __init__(self, layer: DepthwiseConv, shape: Shape, rngs: nnx.Rngs):
        self.multiplier, channels = layer.multiplier, shape[2]
        count, draw = channels * layer.multiplier, initializer(layer.kernel_initializer)

        def draw_maps(key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
            """As Keras, whose fans are those of [i j c multiplier]."""
            return draw(key, (*shape[:2], channels, layer.multiplier), dtype).reshape(shape)

        super().__init__(count, count, feature_group_count=count, **_window(layer, draw_maps), rngs=rngs)

    def __call__(self, inputs: jax.Array, *arguments: Any) -> jax.Array:
        """[b h w c] → [b y x c·multiplier]."""
        return super().__call__(repeated(inputs, 3, self.multiplier) if self.multiplier > 1 else inputs, *arguments)


class SeparableModule(nnx.Module):
    """A depthwise convolution without biases, then one of 1×1."""

    def __init__(self, layer: SeparableConv, shape: Shape, rngs: nnx.Rngs):
        by_channel = DepthwiseConv(
            layer.kernel_size, layer.strides, layer.padding, layer.multiplier, layer.dilation, use_bias=False,
            kernel_initializer=layer.kernel_initializer,
        )  # fmt: skip
        mixing = Conv(layer.filters, 1, use_bias=layer.use_bias, kernel_initializer=layer.kernel_initializer)
        self.depthwise = DepthwiseModule(by_channel, shape, rngs)
        self.pointwise = conv_module(mixing, by_channel.output_shape(shape), rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b y x o]."""
        return self.pointwise(self.depthwise(x))


class TransposeModule(Lowered):
    """A transposed convolution with a kernel [i j o c]."""

    def __init__(self, layer: ConvTranspose, shape: Shape, rngs: nnx.Rngs):
        self.layer = layer
        kernel_shape = (*pair(layer.kernel_size), layer.filters, shape[2])
        self.kernel = nnx.Param(initializer(layer.kernel_initializer)(rngs.params(), kernel_shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(layer.filters)) if layer.use_bias else nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b y x o]."""
        maps = (self._by_lax if self.lowering == "xla" else self._by_product)(x, self.kernel[...])
        return maps if self.bias is None else maps + self.bias[...].reshape(1, 1, 1, -1)

    def _by_product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """One matrix product, whose columns are added where the window of each pixel lies."""
        size, (kh, kw, o, c) = self.layer.output_shape(x.shape[1:]), kernel.shape
        sent = (x.reshape(-1, c) @ kernel.reshape(-1, c).T).reshape(*x.shape[:3], kh * kw, o)  # [bhw c] @ [c ijo]
        window = Window((kh, kw), pair(self.layer.strides), pads=self._pads(x.shape))
        return collect((sent[:, :, :, n] for n in range(kh * kw)), (len(x), *size), window)

    def _by_lax(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """A convolution with the flipped kernel, of pixels with zeros between them."""
        flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)  # [i j c o]
        pads = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, self._pads(x.shape), strict=False)]
        return xla_conv_general_dilated(x, flipped, (1, 1), pads, pair(self.layer.strides), None, NHWC)

    def _pads(self, shape: Shape) -> Pads:
        """What the windows reach beyond the output at the start and end of h and of w; below 0, where they fall short.

        As Keras on JAX: an odd pixel of padding is taken from the end.
        """
        output = self.layer.output_shape(shape[1:])
        windows = zip(pair(self.layer.kernel_size), pair(self.layer.strides), shape[1:3], output[:2], strict=True)
        beyond = [(taps, (n - 1) * step + taps - size) for taps, step, n, size in windows]
        if self.layer.padding == "valid":
            return tuple((0, rest) for _, rest in beyond)  # type: ignore[return-value]
        before = [taps - 1 - min((2 * taps - 2 - rest + 1) // 2, taps - 1) for taps, rest in beyond]
        return tuple((low, rest - low) for low, (_, rest) in zip(before, beyond, strict=True))  # type: ignore[return-value]


def conv_module(layer: Conv, shape: Shape, rngs: nnx.Rngs) -> nnx.Conv:
    """Flax's convolution."""
    settings = _window(layer, initializer(layer.kernel_initializer))
    return nnx.Conv(shape[2], layer.filters, feature_group_count=layer.groups, **settings, rngs=rngs)


def _window(layer: Conv | DepthwiseConv, draw: Initializer) -> dict[str, Any]:
    """What convolutions have in common, as Flax names it."""
    return {
        "kernel_size": pair(layer.kernel_size),
        "strides": pair(layer.strides),
        "padding": _pads(layer.padding),
        "kernel_dilation": pair(layer.dilation),
        "use_bias": layer.use_bias,
        "kernel_init": draw,
    }


def _pads(padding: Padding) -> Any:
    return padding.upper() if isinstance(padding, str) else padded_sides(padding)

"""Layers of Keras by class name → ours: one table. What it lacks is refused by name, and never run."""

from collections.abc import Callable
from math import prod
from typing import Any

from engine.errors import InputError
from engine.host.json_files import shown
from engine.importers.keras_given import Given, layer_name, read_activation, read_regularizer
from engine.models import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    DepthwiseConv,
    Dropout,
    DropPath,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool,
    PReLU,
    Rescale,
    SeparableConv,
    SpatialDropout,
    Tokens,
    UpSample,
    ZeroPad,
)

WEIGHTED = frozenset({
    "Dense", "Conv2D", "Convolution2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "BatchNormalization",
    "LayerNormalization", "GroupNormalization", "PReLU", "Normalization",
})  # fmt: skip
ONLY_IN_TRAINING = ("GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization", "Identity")


def convert(given: Given) -> list[Layer]:
    """Our layers for one of Keras: none for what does nothing outside training."""
    if given.kind in ONLY_IN_TRAINING:
        return []
    if given.kind not in LAYERS:
        rule = f"one of {', '.join(sorted(LAYERS))}"
        got = "which runs code of its own" if given.kind == "Lambda" else "which has no counterpart here"
        raise given.refuse(got, rule, "Replace it by layers of this list, or write it as a layer of your own.")
    try:
        return LAYERS[given.kind](given)
    except InputError as error:
        if str(error).startswith(given.where):
            raise
        raise given.refuse(f"({error})", "settings that our layer has") from None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise given.refuse(f"with settings that do not fit ({error})", "those that Keras writes") from None


def _kernel(given: Given) -> dict[str, Any]:
    """What all layers with kernels have in common."""
    given.require(data_format="channels_last")
    return {
        "use_bias": bool(given.get("use_bias", True)),
        "activation": read_activation(given),
        "kernel_regularizer": read_regularizer(given),
        "name": layer_name(given.name),
    }


def _window(given: Given) -> dict[str, Any]:
    given.require(data_format="channels_last")
    return {
        "kernel_size": given.get("kernel_size", 3),
        "strides": given.get("strides", 1),
        "padding": given.get("padding", "valid"),
        **_kernel(given),
    }


def _dense(given: Given) -> list[Layer]:
    return [Dense(given.config["units"], **_kernel(given))]


def _conv(given: Given) -> list[Layer]:
    dilation, groups = given.get("dilation_rate", 1), given.get("groups", 1)
    return [Conv(given.config["filters"], dilation=dilation, groups=groups, **_window(given))]


def _depthwise(given: Given) -> list[Layer]:
    multiplier, dilation = given.get("depth_multiplier", 1), given.get("dilation_rate", 1)
    return [DepthwiseConv(multiplier=multiplier, dilation=dilation, **_window(given))]


def _separable(given: Given) -> list[Layer]:
    multiplier, dilation = given.get("depth_multiplier", 1), given.get("dilation_rate", 1)
    return [SeparableConv(given.config["filters"], multiplier=multiplier, dilation=dilation, **_window(given))]


def _transposed(given: Given) -> list[Layer]:
    given.require(output_padding=None)
    if given.get("dilation_rate", (1, 1)) != (1, 1):
        raise given.refuse(f"with dilation_rate {given.config['dilation_rate']}", "no dilation")
    return [ConvTranspose(given.config["filters"], **_window(given))]


def _check_axis(given: Given) -> None:
    axis = given.get("axis", -1)
    axis = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
    if axis not in (-1, len(given.shape)):
        raise given.refuse(f"with axis {shown(axis)}", "the axis of channels, the last")


def _batch_norm(given: Given) -> list[Layer]:
    _check_axis(given)
    given.require(renorm=False)
    settings: dict[str, Any] = {
        "use_scale": bool(given.get("scale", True)),
        "use_offset": bool(given.get("center", True)),
    }
    return [BatchNorm(given.number("momentum", 0.99), given.number("epsilon", 1e-3), **settings, **_named(given))]


def _layer_norm(given: Given) -> list[Layer]:
    _check_axis(given)
    given.require(scale=True, center=True, rms_scaling=False)
    return [LayerNorm(given.number("epsilon", 1e-3), **_named(given))]


def _group_norm(given: Given) -> list[Layer]:
    _check_axis(given)
    given.require(scale=True, center=True)
    groups = given.get("groups", 32)
    return [GroupNorm(given.shape[-1] if groups == -1 else groups, given.number("epsilon", 1e-3), **_named(given))]


def _pool(kind: Callable[..., Layer]) -> Callable[[Given], list[Layer]]:
    def make(given: Given) -> list[Layer]:
        given.require(data_format="channels_last")
        size, padding = given.get("pool_size", 2), given.get("padding", "valid")
        return [kind(size, given.get("strides", None), padding, **_named(given))]

    return make


def _global_pool(kind: Callable[..., Layer]) -> Callable[[Given], list[Layer]]:
    def make(given: Given) -> list[Layer]:
        given.require(data_format="channels_last")
        return [kind(keep_axes=bool(given.get("keepdims", False)), **_named(given))]

    return make


def _named(given: Given) -> dict[str, Any]:
    return {"name": layer_name(given.name)}


def _dropout(given: Given) -> list[Layer]:
    shape = given.get("noise_shape", None)
    if shape is not None and tuple(shape) != (None, *(1,) * len(given.shape)):
        raise given.refuse(f"with noise_shape {shape}", "None, or one draw for each example")
    rate = given.number("rate", 0.5)
    if not rate:
        return []
    return [Dropout(rate, **_named(given)) if shape is None else DropPath(rate, **_named(given))]


def _spatial_dropout(given: Given) -> list[Layer]:
    given.require(data_format="channels_last")
    return [SpatialDropout(rate, **_named(given))] if (rate := given.number("rate", 0.5)) else []


def _activation(given: Given) -> list[Layer]:
    activation = read_activation(given)
    return [] if activation is None else [Activation(activation.function, **_named(given))]


def _relu(given: Given) -> list[Layer]:
    most, threshold = given.config.get("max_value"), given.number("threshold", 0.0)
    slope = given.number("negative_slope", given.number("alpha", 0.0))
    if threshold or most not in (None, 6) or (most and slope):
        got = f"with max_value {shown(most)}, negative_slope {slope:g}, threshold {threshold:g}"
        raise given.refuse(got, "a slope, or max_value 6, and no threshold")
    return [_sloped(given, "leaky_relu", slope) if slope else Activation("relu6" if most else "relu", **_named(given))]


def _sloped(given: Given, kind: str, slope: float) -> Layer:
    return Activation(kind, slope, **_named(given))


def _leaky_relu(given: Given) -> list[Layer]:
    return [_sloped(given, "leaky_relu", given.number("negative_slope", given.number("alpha", 0.3)))]


def _softmax(given: Given) -> list[Layer]:
    _check_axis(given)
    return [Activation("softmax", **_named(given))]


def _prelu(given: Given) -> list[Layer]:
    return [PReLU(tuple(given.get("shared_axes", ())), **_named(given))]


def _edges(setting: str, kind: Callable[..., Layer]) -> Callable[[Given], list[Layer]]:
    def make(given: Given) -> list[Layer]:
        given.require(data_format="channels_last")
        return [kind(given.get(setting, 1), **_named(given))]

    return make


def _up_sample(given: Given) -> list[Layer]:
    given.require(data_format="channels_last")
    return [UpSample(given.get("size", 2), given.get("interpolation", "nearest"), **_named(given))]


def _flatten(given: Given) -> list[Layer]:
    given.require(data_format="channels_last")
    return [Flatten(**_named(given))]


def _reshape(given: Given) -> list[Layer]:
    """The reshapes that are another layer: to a vector, to tokens, to the shape that it has, to an image of a pixel."""
    target = [int(size) for size in given.get("target_shape", ())]
    known = prod(size for size in target if size != -1)
    if target.count(-1) == 1 and known > 0:
        target[target.index(-1)] = prod(given.shape) // known
    if prod(target) != prod(given.shape) or -1 in target:
        raise given.refuse(f"to {tuple(target)} of {given.shape}", "as many values as come to it")
    if tuple(target) == given.shape:
        return []
    if len(target) == 1:
        return [Flatten(**_named(given))]
    if len(given.shape) == 3 and len(target) == 2 and target[1] == given.shape[2]:
        return [Tokens(**_named(given))]
    raise given.refuse(f"to {tuple(target)} of {given.shape}", "to a vector, or to tokens (h·w, c)")


def _rescale(given: Given) -> list[Layer]:
    return [Rescale(given.number("scale", 1.0), given.number("offset", 0.0), **_named(given))]


LAYERS: dict[str, Callable[[Given], list[Layer]]] = {
    "Dense": _dense,
    "Conv2D": _conv,
    "Convolution2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Conv2DTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "MaxPooling2D": _pool(MaxPool),
    "AveragePooling2D": _pool(AveragePool),
    "GlobalAveragePooling2D": _global_pool(GlobalAveragePool),
    "GlobalMaxPooling2D": _global_pool(GlobalMaxPool),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Dropout": _dropout,
    "SpatialDropout2D": _spatial_dropout,
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": lambda given: [_sloped(given, "elu", given.number("alpha", 1.0))],
    "Softmax": _softmax,
    "PReLU": _prelu,
    "ZeroPadding2D": _edges("padding", ZeroPad),
    "Cropping2D": _edges("cropping", Crop),
    "UpSampling2D": _up_sample,
    "Rescaling": _rescale,
}
"""How each class is converted."""

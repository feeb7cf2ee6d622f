"""MobileNetV2, after Sandler et al., https://arxiv.org/abs/1801.04381. Names and numbers are those of Keras."""

from engine.models.activations import Activation
from engine.models.blocks import residual
from engine.models.convolutions import Conv, DepthwiseConv
from engine.models.families.parts import averaged_top, round_to_eights
from engine.models.layer import Layer
from engine.models.norms import BatchNorm
from engine.models.specs import Sequential

STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""(filters, blocks, strides of the first one)."""


def mobilenet_v2(width: float = 1.0, *, top: bool = True, num_classes: int | None = None) -> Sequential:
    """MobileNetV2 with `width` times as many channels, in multiples of 8.

    top: with global average pooling and a dense layer of `num_classes` outputs (None: as many as the data needs); else
    it ends with feature maps, float32[b h/32 w/32 1280], of more channels where `width` is above 1.
    """
    channels = round_to_eights(32 * width)
    layers: list[Layer] = [
        Conv(channels, 3, 2, "same", use_bias=False, name="Conv1"),
        _norm("bn_Conv1"),
        Activation("relu6", name="Conv1_relu"),
    ]
    number = 0
    for filters, count, first_strides in STAGES:
        outputs = round_to_eights(int(filters * width))
        for strides in (first_strides, *(1,) * (count - 1)):
            layers += _block(number, channels, outputs, strides)
            number, channels = number + 1, outputs
    last = round_to_eights(1280 * max(1, width))
    layers += [Conv(last, 1, use_bias=False, name="Conv_1"), _norm("Conv_1_bn"), Activation("relu6", name="out_relu")]
    return Sequential((*layers, *(averaged_top(num_classes) if top else ())))


def _norm(name: str) -> BatchNorm:
    return BatchNorm(0.999, name=name)


def _block(number: int, inputs: int, outputs: int, strides: int) -> tuple[Layer, ...]:
    name = f"block_{number}" if number else "expanded_conv"
    expansion = (
        Conv(6 * inputs, 1, use_bias=False, name=f"{name}_expand"),
        _norm(f"{name}_expand_BN"),
        Activation("relu6", name=f"{name}_expand_relu"),
    )
    layers = (
        *(expansion if number else ()),
        DepthwiseConv(3, strides, "same", use_bias=False, name=f"{name}_depthwise"),
        _norm(f"{name}_depthwise_BN"),
        Activation("relu6", name=f"{name}_depthwise_relu"),
        Conv(outputs, 1, use_bias=False, name=f"{name}_project"),
        _norm(f"{name}_project_BN"),
    )
    return (residual(layers, activation=None, name=name),) if strides == 1 and inputs == outputs else layers

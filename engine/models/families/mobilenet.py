"""MobileNet, after Howard et al., https://arxiv.org/abs/1704.04861. Names and numbers are those of Keras."""

from engine.models.activations import Activation
from engine.models.convolutions import Conv, Dense, DepthwiseConv
from engine.models.layer import Layer
from engine.models.layers import Dropout
from engine.models.norms import BatchNorm
from engine.models.pools import GlobalAveragePool
from engine.models.specs import Sequential

FILTERS = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
STRIDED = (2, 4, 6, 12)
"""The numbers, from 1, of the blocks that halve images."""


def mobilenet(width: float = 1.0, *, top: bool = True, num_classes: int | None = None) -> Sequential:
    """MobileNet with `width` times as many channels in each layer.

    top: with global average pooling and `num_classes` outputs (None: as many as the data needs); else it ends with
    feature maps, float32[b h/32 w/32 1024·width].
    """
    layers: list[Layer] = [
        Conv(int(32 * width), 3, 2, "same", use_bias=False, name="conv1"),
        BatchNorm(name="conv1_bn"),
        Activation("relu6", name="conv1_relu"),
    ]
    for number, filters in enumerate(FILTERS, 1):
        layers += _block(number, int(filters * width), number in STRIDED)
    if top:
        layers += [GlobalAveragePool(), Dropout(0.001, name="dropout"), Dense(num_classes, name="conv_preds")]
    return Sequential(tuple(layers))


def _block(number: int, filters: int, is_strided: bool) -> tuple[Layer, ...]:
    strides, padding = (2, ((0, 1), (0, 1))) if is_strided else (1, "same")  # not "same", which differs at odd sizes
    return (
        DepthwiseConv(3, strides, padding, use_bias=False, name=f"conv_dw_{number}"),
        BatchNorm(name=f"conv_dw_{number}_bn"),
        Activation("relu6", name=f"conv_dw_{number}_relu"),
        Conv(filters, 1, use_bias=False, name=f"conv_pw_{number}"),
        BatchNorm(name=f"conv_pw_{number}_bn"),
        Activation("relu6", name=f"conv_pw_{number}_relu"),
    )

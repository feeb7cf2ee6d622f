"""MobileNetV3, after Howard et al., https://arxiv.org/abs/1905.02244. Names and numbers are those of Keras."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from engine.errors import InputError, unknown
from engine.models.activations import Activation
from engine.models.blocks import residual, squeeze_excite
from engine.models.convolutions import Conv, Dense, DepthwiseConv
from engine.models.families.parts import round_to_eights
from engine.models.layer import Layer
from engine.models.layers import Dropout
from engine.models.norms import BatchNorm
from engine.models.pools import GlobalAveragePool
from engine.models.shapes import Padding
from engine.models.specs import Sequential


class Block(NamedTuple):
    """expansion: times as many channels in between. has_squeeze: whether these are weighted by squeeze and excite."""

    expansion: float
    filters: int
    kernel_size: int
    strides: int
    has_squeeze: bool
    activation: str


BLOCKS = {
    "small": (
        Block(1, 16, 3, 2, True, "relu"),
        Block(72 / 16, 24, 3, 2, False, "relu"),
        Block(88 / 24, 24, 3, 1, False, "relu"),
        Block(4, 40, 5, 2, True, "hard_silu"),
        *(Block(6, 40, 5, 1, True, "hard_silu"),) * 2,
        *(Block(3, 48, 5, 1, True, "hard_silu"),) * 2,
        Block(6, 96, 5, 2, True, "hard_silu"),
        *(Block(6, 96, 5, 1, True, "hard_silu"),) * 2,
    ),
    "large": (
        Block(1, 16, 3, 1, False, "relu"),
        Block(4, 24, 3, 2, False, "relu"),
        Block(3, 24, 3, 1, False, "relu"),
        Block(3, 40, 5, 2, True, "relu"),
        *(Block(3, 40, 5, 1, True, "relu"),) * 2,
        Block(6, 80, 3, 2, False, "hard_silu"),
        Block(2.5, 80, 3, 1, False, "hard_silu"),
        *(Block(2.3, 80, 3, 1, False, "hard_silu"),) * 2,
        *(Block(6, 112, 3, 1, True, "hard_silu"),) * 2,
        Block(6, 160, 5, 2, True, "hard_silu"),
        *(Block(6, 160, 5, 1, True, "hard_silu"),) * 2,
    ),
}
HIDDEN = {"small": 1024, "large": 1280}
"""Units before the outputs."""
KERAS, TORCH = (0.999, 1e-3), (0.9, 1e-5)
"""Momentum and epsilon of batch norms."""


def mobilenet_v3(
    size: Literal["small", "large"] = "large",
    width: float = 1.0,
    *,
    is_symmetric: bool = False,
    top: bool = True,
    num_classes: int | None = None,
) -> Sequential:
    """MobileNetV3, small or large, with `width` times as many channels, in multiples of 8.

    is_symmetric: padded by half the kernel on every side, with another epsilon in batch norms, as timm's own
    `mobilenetv3_large_100` is; its `tf_mobilenetv3_large_100` is that of Keras.
    top: with global average pooling, a hidden layer and `num_classes` outputs (None: as many as the data needs); else
    it ends with feature maps, float32[b h/32 w/32 c], with c of 576 (small) or 960 (large) times `width`.
    """
    if size not in BLOCKS:
        raise InputError(unknown("mobilenet_v3 size", size, BLOCKS))
    norm = partial(BatchNorm, *(TORCH if is_symmetric else KERAS))
    layers: list[Layer] = [
        Conv(16, 3, 2, 1 if is_symmetric else "same", use_bias=False, name="conv"),
        norm(name="conv_bn"),
        Activation("hard_silu"),
    ]
    channels = 16
    for number, block in enumerate(BLOCKS[size]):
        outputs = round_to_eights(block.filters * width)
        name = f"expanded_conv_{number}" if number else "expanded_conv"
        layers += _block(name, block, channels, outputs, block.kernel_size // 2 if is_symmetric else "same", norm)
        channels = outputs
    last = round_to_eights(6 * channels)
    layers += [Conv(last, 1, use_bias=False, name="conv_1"), norm(name="conv_1_bn"), Activation("hard_silu")]
    if top:
        hidden = round_to_eights(HIDDEN[size] * width) if width > 1 else HIDDEN[size]
        layers += [GlobalAveragePool(), Dense(hidden, "hard_silu", name="conv_2"), Dropout(0.2)]
        layers.append(Dense(num_classes, name="logits"))
    return Sequential(tuple(layers))


def _block(
    name: str, block: Block, inputs: int, outputs: int, padding: Padding, norm: Callable[..., BatchNorm]
) -> tuple[Layer, ...]:
    between = inputs if name == "expanded_conv" else round_to_eights(inputs * block.expansion)
    expansion = (
        Conv(between, 1, use_bias=False, name=f"{name}_expand"),
        norm(name=f"{name}_expand_bn"),
        Activation(block.activation),
    )
    layers = (
        *(() if name == "expanded_conv" else expansion),
        DepthwiseConv(block.kernel_size, block.strides, padding, use_bias=False, name=f"{name}_depthwise"),
        norm(name=f"{name}_depthwise_bn"),
        Activation(block.activation),
        *((_squeeze(f"{name}_squeeze_excite", between),) if block.has_squeeze else ()),
        Conv(outputs, 1, use_bias=False, name=f"{name}_project"),
        norm(name=f"{name}_project_bn"),
    )
    return (residual(layers, activation=None, name=name),) if block.strides == 1 and inputs == outputs else layers


def _squeeze(name: str, channels: int) -> Layer:
    names = (f"{name}_avg_pool", f"{name}_conv", f"{name}_conv_1")
    return squeeze_excite(channels, round_to_eights(channels / 4), "relu", "hard_sigmoid", f"{name}_mul", names)

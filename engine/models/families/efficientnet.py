"""EfficientNet, after Tan and Le, https://arxiv.org/abs/1905.11946, and its second version, https://arxiv.org/abs/2104.00298.

Names and numbers are those of Keras.
"""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from engine.errors import InputError, unknown
from engine.models.activations import Activation
from engine.models.blocks import residual, squeeze_excite
from engine.models.convolutions import Conv, Dense, DepthwiseConv
from engine.models.families.parts import round_to_eights
from engine.models.layer import Layer
from engine.models.layers import Dropout, DropPath
from engine.models.norms import BatchNorm
from engine.models.pools import GlobalAveragePool
from engine.models.specs import Sequential


class Stage(NamedTuple):
    """Blocks of one kind; the first has the strides.

    expansion: times as many channels in between. is_fused: one convolution in place of those of 1×1 and by channel,
    and no squeeze and excite.
    """

    kernel_size: int
    blocks: int
    filters: int
    expansion: int
    strides: int
    is_fused: bool = False


@dataclass(frozen=True)
class Version:
    """What the sizes of a version have in common.

    stages, stem: its blocks and first channels, before they are scaled. momentum: of its batch norms. most_lost: the
    share of channels that rounding to a multiple of 8 may lose. depthwise: the ending of these convolutions' names.
    """

    stages: tuple[Stage, ...]
    stem: int = 32
    momentum: float = 0.9
    most_lost: float = 1.0
    depthwise: str = "dwconv2"


class Scale(NamedTuple):
    """width, depth: times as many channels and blocks. dropout: before the outputs."""

    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.2


V1 = Version(
    (
        Stage(3, 1, 16, 1, 1),
        Stage(3, 2, 24, 6, 2),
        Stage(5, 2, 40, 6, 2),
        Stage(3, 3, 80, 6, 2),
        Stage(5, 3, 112, 6, 1),
        Stage(5, 4, 192, 6, 2),
        Stage(3, 1, 320, 6, 1),
    ),
    momentum=0.99,
    most_lost=0.1,
    depthwise="dwconv",
)
V2_B = Version(
    (
        Stage(3, 1, 16, 1, 1, True),
        Stage(3, 2, 32, 4, 2, True),
        Stage(3, 2, 48, 4, 2, True),
        Stage(3, 3, 96, 4, 2),
        Stage(3, 5, 112, 6, 1),
        Stage(3, 8, 192, 6, 2),
    )
)
V2_S = Version(
    (
        Stage(3, 2, 24, 1, 1, True),
        Stage(3, 4, 48, 4, 2, True),
        Stage(3, 4, 64, 4, 2, True),
        Stage(3, 6, 128, 4, 2),
        Stage(3, 9, 160, 6, 1),
        Stage(3, 15, 256, 6, 2),
    ),
    stem=24,
)
SIZES = {
    "b0": Scale(),
    "b1": Scale(1.0, 1.1),
    "b2": Scale(1.1, 1.2, 0.3),
    "b3": Scale(1.2, 1.4, 0.3),
    "b4": Scale(1.4, 1.8, 0.4),
    "b5": Scale(1.6, 2.2, 0.4),
    "b6": Scale(1.8, 2.6, 0.5),
    "b7": Scale(2.0, 3.1, 0.5),
}
SIZES_V2 = {
    "b0": (V2_B, Scale()),
    "b1": (V2_B, Scale(1.0, 1.1)),
    "b2": (V2_B, Scale(1.1, 1.2)),
    "b3": (V2_B, Scale(1.2, 1.4)),
    "s": (V2_S, Scale()),
}
DROP_PATH = 0.2  # of a block after the last; in proportion for those before


def efficientnet(size: str = "b0", *, top: bool = True, num_classes: int | None = None) -> Sequential:
    """EfficientNet B0 to B7, by `size` in small letters.

    top: with global average pooling, dropout and a dense layer of `num_classes` outputs (None: as many as the data
    needs); else it ends with feature maps, float32[b h/32 w/32 c], with c of 1280 for B0 to 2560 for B7.
    """
    if size not in SIZES:
        raise InputError(unknown("efficientnet size", size, SIZES))
    return _model(V1, SIZES[size], top, num_classes)


def efficientnet_v2(size: str = "b0", *, top: bool = True, num_classes: int | None = None) -> Sequential:
    """EfficientNetV2 B0 to B3 and S, by `size` in small letters. top, num_classes: as of `efficientnet`."""
    if size not in SIZES_V2:
        raise InputError(unknown("efficientnet_v2 size", size, SIZES_V2))
    return _model(*SIZES_V2[size], top, num_classes)


def _model(version: Version, scale: Scale, top: bool, num_classes: int | None) -> Sequential:
    def scaled(channels: int) -> int:
        return round_to_eights(channels * scale.width, version.most_lost)

    channels, done = scaled(version.stem), 0
    layers: list[Layer] = [
        Conv(channels, 3, 2, "same", use_bias=False, name="stem_conv"),
        *_norm_silu(version, "stem_bn", "stem_activation"),
    ]
    counts = [ceil(stage.blocks * scale.depth) for stage in version.stages]
    total = sum(counts) if version is V1 else sum(stage.blocks for stage in version.stages)
    for number, (stage, count) in enumerate(zip(version.stages, counts, strict=True), 1):
        make = _fused_block if stage.is_fused else _block
        for letter in "abcdefghijklmnopqrstuvwxyz"[:count]:
            name, first = f"block{number}{letter}", letter == "a"
            new = stage if first else stage._replace(strides=1)
            new = new._replace(filters=scaled(stage.filters))
            layers += _joined(name, make(version, new, name, channels), new, channels, DROP_PATH * done / total)
            channels, done = new.filters, done + 1
    last = Conv(scaled(1280), 1, use_bias=False, name="top_conv")
    layers += [last, *_norm_silu(version, "top_bn", "top_activation")]
    if top:
        dropout = Dropout(scale.dropout, name="top_dropout")
        layers += [GlobalAveragePool(name="avg_pool"), dropout, Dense(num_classes, name="predictions")]
    return Sequential(tuple(layers))


def _norm_silu(version: Version, norm: str, silu: str) -> tuple[Layer, ...]:
    return BatchNorm(version.momentum, name=norm), Activation("silu", name=silu)


def _joined(name: str, layers: tuple[Layer, ...], stage: Stage, inputs: int, rate: float) -> tuple[Layer, ...]:
    """The layers of a block; with its input added where that has the same shape."""
    if stage.strides > 1 or inputs != stage.filters:
        return layers
    drop = (DropPath(rate, name=f"{name}_drop"),) if rate else ()
    return (residual((*layers, *drop), activation=None, name=name),)


def _block(version: Version, stage: Stage, name: str, inputs: int) -> tuple[Layer, ...]:
    between = inputs * stage.expansion
    expansion = (
        Conv(between, 1, use_bias=False, name=f"{name}_expand_conv"),
        *_norm_silu(version, f"{name}_expand_bn", f"{name}_expand_activation"),
    )
    by_channel = DepthwiseConv(
        stage.kernel_size, stage.strides, "same", use_bias=False, name=f"{name}_{version.depthwise}"
    )
    return (
        *(expansion if stage.expansion > 1 else ()),
        by_channel,
        *_norm_silu(version, f"{name}_bn", f"{name}_activation"),
        _squeeze(name, between, max(1, inputs // 4)),
        Conv(stage.filters, 1, use_bias=False, name=f"{name}_project_conv"),
        BatchNorm(version.momentum, name=f"{name}_project_bn"),
    )


def _fused_block(version: Version, stage: Stage, name: str, inputs: int) -> tuple[Layer, ...]:
    kernel_size, strides, filters = stage.kernel_size, stage.strides, stage.filters
    if stage.expansion == 1:
        conv = Conv(filters, kernel_size, strides, "same", use_bias=False, name=f"{name}_project_conv")
        return conv, *_norm_silu(version, f"{name}_project_bn", f"{name}_project_activation")
    between = inputs * stage.expansion
    return (
        Conv(between, kernel_size, strides, "same", use_bias=False, name=f"{name}_expand_conv"),
        *_norm_silu(version, f"{name}_expand_bn", f"{name}_expand_activation"),
        Conv(filters, 1, use_bias=False, name=f"{name}_project_conv"),
        BatchNorm(version.momentum, name=f"{name}_project_bn"),
    )


def _squeeze(name: str, channels: int, hidden: int) -> Layer:
    names = (f"{name}_se_squeeze", f"{name}_se_reduce", f"{name}_se_expand")
    return squeeze_excite(channels, hidden, "silu", "sigmoid", f"{name}_se_excite", names)

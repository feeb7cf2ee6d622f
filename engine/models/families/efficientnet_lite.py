"""EfficientNet-Lite and MobileNetV2 as timm has them: inverted residuals without squeeze-and-excite, with relu6.

Layers have the names of timm's modules: `conv_stem`, `blocks.1.0.conv_dw`, `conv_head`, `classifier`.
Sources: arXiv:1801.04381, arXiv:1905.11946 and the description of EfficientNet-Lite in tensorflow/tpu.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from engine.models.activations import Activation
from engine.models.blocks import Paths
from engine.models.convolutions import Conv, Dense, DepthwiseConv
from engine.models.families.parts import round_to_eights
from engine.models.layer import Layer
from engine.models.layers import Dropout
from engine.models.norms import BatchNorm
from engine.models.pools import GlobalAveragePool
from engine.models.shapes import Padding
from engine.models.specs import Sequential


class Stage(NamedTuple):
    """Blocks in a row: how many, their kernel size, the strides of the first, by how much they widen, their output."""

    number: int
    kernel_size: int
    strides: int
    expansion: int
    filters: int


LITE = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
MOBILENET_V2 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(3, 3, 2, 6, 32),
    Stage(4, 3, 2, 6, 64),
    Stage(3, 3, 1, 6, 96),
    Stage(3, 3, 2, 6, 160),
    Stage(1, 3, 1, 6, 320),
)


class _Rules(NamedTuple):
    """How a library pads and normalises. is_same: "same", else half the kernel on every side."""

    is_same: bool
    momentum: float
    epsilon: float


_TENSORFLOW, _TORCH = _Rules(True, 0.99, 1e-3), _Rules(False, 0.9, 1e-5)


def efficientnet_lite(
    width: float = 1.0,
    depth: float = 1.0,
    *,
    dropout: float = 0.2,
    is_symmetric: bool = False,
    top: bool = True,
    num_classes: int | None = None,
) -> Sequential:
    """EfficientNet-Lite of a width and depth: timm's `tf_efficientnet_lite*`.

    Lite0 to Lite4 are (1, 1), (1, 1.1), (1.1, 1.2), (1.2, 1.4) and (1.4, 1.8), the last three with a dropout of 0.3.
    is_symmetric: padded by half the kernel on every side, with another epsilon in batch norms, as timm's own
    `efficientnet_lite0` is, whose arrays have the same names and shapes. top: ends with one output a class
    (`num_classes`; None: as many as the data has), else with the last feature maps, float32[b h/32 w/32 1280].
    """
    last = len(LITE) - 1
    stages = [
        stage._replace(
            number=stage.number if n in (0, last) else ceil(stage.number * depth),
            filters=round_to_eights(stage.filters * width),
        )
        for n, stage in enumerate(LITE)
    ]
    return _network(
        stages, 32, 1280, _TORCH if is_symmetric else _TENSORFLOW, _head(dropout, num_classes) if top else ()
    )


def torch_mobilenet_v2(
    width: float = 1.0, *, dropout: float = 0.2, top: bool = True, num_classes: int | None = None
) -> Sequential:
    """MobileNetV2 as timm and torchvision have it, padded by half the kernel on every side. top: as elsewhere."""
    stages = [stage._replace(filters=round_to_eights(stage.filters * width)) for stage in MOBILENET_V2]
    num_features = max(1280, round_to_eights(1280 * width))
    head = _head(dropout, num_classes) if top else ()
    return _network(stages, round_to_eights(32 * width), num_features, _TORCH, head)


def _head(dropout: float, num_classes: int | None) -> tuple[Layer, ...]:
    drop = (Dropout(dropout),) if dropout else ()
    return GlobalAveragePool(), *drop, Dense(num_classes, name="classifier")


def _network(
    stages: Sequence[Stage], num_stem: int, num_features: int, rules: _Rules, head: tuple[Layer, ...]
) -> Sequential:
    layers: list[Layer] = [_conv("conv_stem", num_stem, 3, 2, rules), _norm("bn1", rules), Activation("relu6")]
    num_in = num_stem
    for number, stage in enumerate(stages):
        for block in range(stage.number):
            one = stage._replace(strides=stage.strides if block == 0 else 1)
            layers.append(_block(f"blocks.{number}.{block}", num_in, one, rules))
            num_in = stage.filters
    layers += [_conv("conv_head", num_features, 1, 1, rules), _norm("bn2", rules), Activation("relu6")]
    return Sequential((*layers, *head))


def _block(name: str, num_in: int, stage: Stage, rules: _Rules) -> Layer:
    """An inverted residual. Where it does not widen, the first 1×1 is missing and timm numbers the rest from 1 on."""
    wide, act = num_in * stage.expansion, Activation("relu6")
    widens = stage.expansion > 1
    second, last = ("bn2", "bn3") if widens else ("bn1", "bn2")
    layers: list[Layer] = (
        [_conv(f"{name}.conv_pw", wide, 1, 1, rules), _norm(f"{name}.bn1", rules), act] if widens else []
    )
    padding = _padding(stage.kernel_size, rules)
    depthwise = DepthwiseConv(stage.kernel_size, stage.strides, padding, use_bias=False, name=f"{name}.conv_dw")
    layers += [depthwise, _norm(f"{name}.{second}", rules), act]
    narrow = f"{name}.conv_pwl" if widens else f"{name}.conv_pw"
    layers += [_conv(narrow, stage.filters, 1, 1, rules), _norm(f"{name}.{last}", rules)]
    is_residual = stage.strides == 1 and num_in == stage.filters
    return Paths((tuple(layers), ()) if is_residual else (tuple(layers),), name=name)


def _conv(name: str, filters: int, size: int, strides: int, rules: _Rules) -> Layer:
    padding = _padding(size, rules)
    return Conv(filters, size, strides, padding, use_bias=False, kernel_initializer="he_normal", name=name)


def _padding(size: int, rules: _Rules) -> Padding:
    return "same" if rules.is_same else size // 2


def _norm(name: str, rules: _Rules) -> Layer:
    return BatchNorm(rules.momentum, rules.epsilon, name=name)

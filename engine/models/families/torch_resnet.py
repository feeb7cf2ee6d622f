"""ResNet as torchvision and timm have it ("v1.5": a stage's stride lies in its 3×3), arXiv:1512.03385.

Layers have the names of both libraries' modules: `conv1`, `layer1.0.conv2`, `layer2.0.downsample.0`, `fc`.
"""

from collections.abc import Sequence

from engine.errors import InputError, problem
from engine.models.activations import Activation
from engine.models.blocks import residual
from engine.models.convolutions import Conv, Dense
from engine.models.layer import Layer
from engine.models.norms import BatchNorm
from engine.models.pools import GlobalAveragePool, MaxPool
from engine.models.shapes import check_count
from engine.models.specs import Sequential

WIDTHS = (64, 128, 256, 512)
EXPANSION = 4  # of a bottleneck's output over its 3×3


def torch_resnet(
    blocks: Sequence[int] = (2, 2, 2, 2),
    *,
    bottleneck: bool = False,
    top: bool = True,
    num_classes: int | None = None,
) -> Sequential:
    """ResNet of so many blocks in its stages: (2, 2, 2, 2) is ResNet18, (3, 4, 6, 3) ResNet34.

    With bottlenecks (3, 4, 6, 3) is ResNet50, (3, 4, 23, 3) ResNet101 and (3, 8, 36, 3) ResNet152.
    top: ends with one output a class (`num_classes`; None: as many as the data has), else with the last feature maps.
    """
    if len(blocks) != len(WIDTHS):
        raise InputError(problem("torch_resnet blocks", f"{len(blocks)} stages", "4", "Give how many blocks each has."))
    layers: list[Layer] = [*_normed("conv1", "bn1", 64, 7, 2), Activation("relu"), MaxPool(3, 2, 1)]
    num_in = 64
    for stage, (number, width) in enumerate(zip(blocks, WIDTHS, strict=True), 1):
        check_count("torch_resnet blocks", number)
        num_out = width * EXPANSION if bottleneck else width
        for block in range(number):
            name, strides = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = _bottleneck(name, width, strides) if bottleneck else _basic(name, width, strides)
            changes = strides > 1 or num_in != num_out
            shortcut = _normed(f"{name}.downsample.0", f"{name}.downsample.1", num_out, 1, strides) if changes else ()
            layers.append(residual(inner, shortcut, "relu", name=name))
            num_in = num_out
    return Sequential((*layers, *((GlobalAveragePool(), Dense(num_classes, name="fc")) if top else ())))


def _basic(name: str, width: int, strides: int) -> tuple[Layer, ...]:
    first = _normed(f"{name}.conv1", f"{name}.bn1", width, 3, strides)
    return (*first, Activation("relu"), *_normed(f"{name}.conv2", f"{name}.bn2", width, 3))


def _bottleneck(name: str, width: int, strides: int) -> tuple[Layer, ...]:
    first = _normed(f"{name}.conv1", f"{name}.bn1", width, 1)
    middle = _normed(f"{name}.conv2", f"{name}.bn2", width, 3, strides)
    last = _normed(f"{name}.conv3", f"{name}.bn3", width * EXPANSION, 1)
    return (*first, Activation("relu"), *middle, Activation("relu"), *last)


def _normed(conv: str, norm: str, filters: int, size: int, strides: int = 1) -> tuple[Layer, ...]:
    """Padded by half the kernel on every side, which is not "same" where strides are 2."""
    kernel = Conv(filters, size, strides, size // 2, use_bias=False, kernel_initializer="he_normal", name=conv)
    return kernel, BatchNorm(0.9, 1e-5, name=norm)

"""DenseNet, after Huang et al., https://arxiv.org/abs/1608.06993. Names and numbers are those of Keras."""

from collections.abc import Sequence

from engine.models.activations import Activation
from engine.models.blocks import Paths
from engine.models.convolutions import Conv
from engine.models.families.parts import averaged_top
from engine.models.layer import Layer
from engine.models.norms import BatchNorm
from engine.models.pools import AveragePool, MaxPool
from engine.models.specs import Sequential

GROWTH = 32  # channels that each block adds


def densenet(
    blocks: Sequence[int] = (6, 12, 24, 16), *, top: bool = True, num_classes: int | None = None
) -> Sequential:
    """DenseNet with so many blocks in each stage: (6, 12, 24, 16) is DenseNet121.

    (6, 12, 32, 32) is DenseNet169 and (6, 12, 48, 32) DenseNet201. top: with global average pooling and a dense layer
    of `num_classes` outputs (None: as many as the data needs); else it ends with feature maps,
    float32[b h/32 w/32 c], with c of 1024 (121), 1664 (169) and 1920 (201).
    """
    channels = 64
    layers: list[Layer] = [
        Conv(channels, 7, 2, 3, use_bias=False, name="conv1_conv"),
        *_norm_relu("conv1_bn", "conv1_relu"),
        MaxPool(3, 2, 1, name="pool1"),
    ]
    for stage, count in enumerate(blocks, 2):
        layers += [_block(f"conv{stage}_block{number}") for number in range(1, count + 1)]
        channels += GROWTH * count
        if stage <= len(blocks):
            channels //= 2
            layers += _transition(f"pool{stage}", channels)
    layers += _norm_relu("bn", "relu")
    return Sequential((*layers, *(averaged_top(num_classes) if top else ())))


def _norm_relu(norm: str, relu: str) -> tuple[Layer, ...]:
    return BatchNorm(epsilon=1.001e-5, name=norm), Activation("relu", name=relu)


def _block(name: str) -> Layer:
    """The input, and 32 more channels computed from it."""
    new = (
        *_norm_relu(f"{name}_0_bn", f"{name}_0_relu"),
        Conv(4 * GROWTH, 1, use_bias=False, name=f"{name}_1_conv"),
        *_norm_relu(f"{name}_1_bn", f"{name}_1_relu"),
        Conv(GROWTH, 3, padding="same", use_bias=False, name=f"{name}_2_conv"),
    )
    return Paths(((), new), "concat", name=name)


def _transition(name: str, channels: int) -> tuple[Layer, ...]:
    return (
        *_norm_relu(f"{name}_bn", f"{name}_relu"),
        Conv(channels, 1, use_bias=False, name=f"{name}_conv"),
        AveragePool(name=f"{name}_pool"),
    )

"""ResNet, after He et al., https://arxiv.org/abs/1512.03385, and its second version, https://arxiv.org/abs/1603.05027.

Names and numbers are those of Keras, whose first version strides in the first 1×1 convolution of a stage and has biases
before batch norms.
"""

from collections.abc import Iterator, Sequence

from engine.models.activations import Activation
from engine.models.blocks import residual
from engine.models.convolutions import Conv
from engine.models.families.parts import averaged_top
from engine.models.layer import Layer
from engine.models.layers import ZeroPad
from engine.models.norms import BatchNorm
from engine.models.pools import MaxPool
from engine.models.specs import Sequential

EPSILON = 1.001e-5
FILTERS = (64, 128, 256, 512)


def resnet(blocks: Sequence[int] = (3, 4, 6, 3), *, top: bool = True, num_classes: int | None = None) -> Sequential:
    """ResNet with so many blocks of three convolutions in each stage: (3, 4, 6, 3) is ResNet50.

    (3, 4, 23, 3) is ResNet101 and (3, 8, 36, 3) ResNet152. top: with global average pooling and a dense layer of
    `num_classes` outputs (None: as many as the data needs); else it ends with feature maps, float32[b h/32 w/32 2048].
    """
    stem = (*_stem(), *_norm_relu("conv1"), MaxPool(3, 2, 1, name="pool1_pool"))
    stages = [
        _block(f"conv{stage}_block{number}", filters, 2 if stage > 2 and number == 1 else 1, number == 1)
        for stage, filters, number, _ in _numbered(blocks)
    ]
    return Sequential((*stem, *stages, *(averaged_top(num_classes) if top else ())))


def resnet_v2(blocks: Sequence[int] = (3, 4, 6, 3), *, top: bool = True, num_classes: int | None = None) -> Sequential:
    """ResNet with batch norm and relu before each convolution, which strides in the last block of a stage.

    blocks, top, num_classes: as of `resnet`.
    """
    # What comes to the pool may be below 0, so that its own padding would not do.
    stem = (*_stem(), ZeroPad(1, name="pool1_pad"), MaxPool(3, 2, name="pool1_pool"))
    stages = [
        layer
        for stage, filters, number, count in _numbered(blocks)
        for layer in _block_v2(
            f"conv{stage}_block{number}", filters, 2 if stage < 5 and number == count else 1, number == 1
        )
    ]
    return Sequential((*stem, *stages, *_norm_relu("post"), *(averaged_top(num_classes) if top else ())))


def _numbered(blocks: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """(stage, from 2; filters; number of the block, from 1; blocks of the stage)."""
    for stage, (filters, count) in enumerate(zip(FILTERS, blocks, strict=True), 2):
        yield from ((stage, filters, number, count) for number in range(1, count + 1))


def _stem() -> tuple[Layer, ...]:
    return (Conv(64, 7, 2, 3, name="conv1_conv"),)


def _norm_relu(name: str) -> tuple[Layer, ...]:
    return BatchNorm(epsilon=EPSILON, name=f"{name}_bn"), Activation("relu", name=f"{name}_relu")


def _block(name: str, filters: int, strides: int, is_first: bool) -> Layer:
    main = (
        Conv(filters, 1, strides, name=f"{name}_1_conv"),
        *_norm_relu(f"{name}_1"),
        Conv(filters, 3, padding="same", name=f"{name}_2_conv"),
        *_norm_relu(f"{name}_2"),
        Conv(4 * filters, 1, name=f"{name}_3_conv"),
        BatchNorm(epsilon=EPSILON, name=f"{name}_3_bn"),
    )
    projection = (
        Conv(4 * filters, 1, strides, name=f"{name}_0_conv"),
        BatchNorm(epsilon=EPSILON, name=f"{name}_0_bn"),
    )
    return residual(main, projection if is_first else (), Activation("relu", name=f"{name}_out"), name)


def _block_v2(name: str, filters: int, strides: int, is_first: bool) -> tuple[Layer, ...]:
    """The first block of a stage projects what comes out of its batch norm and relu, the others add their input."""
    before = _norm_relu(f"{name}_preact")
    main = (
        Conv(filters, 1, use_bias=False, name=f"{name}_1_conv"),
        *_norm_relu(f"{name}_1"),
        Conv(filters, 3, strides, 1, use_bias=False, name=f"{name}_2_conv"),
        *_norm_relu(f"{name}_2"),
        Conv(4 * filters, 1, name=f"{name}_3_conv"),
    )
    if is_first:
        projection = (Conv(4 * filters, 1, strides, name=f"{name}_0_conv"),)
        return *before, residual(main, projection, None, name)
    shortcut = (MaxPool(1, strides),) if strides > 1 else ()
    return (residual((*before, *main), shortcut, None, name),)

"""Xception, after Chollet, https://arxiv.org/abs/1610.02357. Names and numbers are those of Keras."""

from engine.models.activations import Activation
from engine.models.blocks import residual
from engine.models.convolutions import Conv, SeparableConv
from engine.models.families.parts import averaged_top
from engine.models.layer import Layer
from engine.models.norms import BatchNorm
from engine.models.pools import MaxPool
from engine.models.specs import Sequential


def xception(*, top: bool = True, num_classes: int | None = None) -> Sequential:
    """Xception.

    top: with global average pooling and a dense layer of `num_classes` outputs (None: as many as the data needs); else
    it ends with feature maps, float32[b h/32 w/32 2048].
    """
    return Sequential(
        (
            *_conv(32, 2, "block1_conv1"),
            *_conv(64, 1, "block1_conv2"),
            _halving(2, 128, 128, ""),
            _halving(3, 256, 256, "_1"),
            _halving(4, 728, 728, "_2"),
            *(_middle(f"block{number}") for number in range(5, 13)),
            _halving(13, 728, 1024, "_3"),
            *_separable(1536, "block14_sepconv1"),
            Activation("relu", name="block14_sepconv1_act"),
            *_separable(2048, "block14_sepconv2"),
            Activation("relu", name="block14_sepconv2_act"),
            *(averaged_top(num_classes) if top else ()),
        )
    )


def _conv(filters: int, strides: int, name: str) -> tuple[Layer, ...]:
    conv = Conv(filters, 3, strides, use_bias=False, name=name)
    return conv, BatchNorm(name=f"{name}_bn"), Activation("relu", name=f"{name}_act")


def _separable(filters: int, name: str) -> tuple[Layer, ...]:
    return SeparableConv(filters, 3, padding="same", use_bias=False, name=name), BatchNorm(name=f"{name}_bn")


def _halving(number: int, first: int, filters: int, ending: str) -> Layer:
    """A block that halves images. Keras numbers the layers beside it, `conv2d{ending}`, which have no names there."""
    name = f"block{number}"
    beside = (
        Conv(filters, 1, 2, use_bias=False, name=f"conv2d{ending}"),
        BatchNorm(name=f"batch_normalization{ending}"),
    )
    main = (
        *((Activation("relu", name=f"{name}_sepconv1_act"),) if number > 2 else ()),
        *_separable(first, f"{name}_sepconv1"),
        Activation("relu", name=f"{name}_sepconv2_act"),
        *_separable(filters, f"{name}_sepconv2"),
        MaxPool(3, 2, "same", name=f"{name}_pool"),
    )
    return residual(main, beside, None, name)


def _middle(name: str) -> Layer:
    parts = [
        layer
        for number in (1, 2, 3)
        for layer in (
            Activation("relu", name=f"{name}_sepconv{number}_act"),
            *_separable(728, f"{name}_sepconv{number}"),
        )
    ]
    return residual(parts, activation=None, name=name)

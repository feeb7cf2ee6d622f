"""InceptionV3, after Szegedy et al., https://arxiv.org/abs/1512.00567. Names and numbers are those of Keras.

Keras numbers the convolutions and batch norms in the order in which they are made, which is that of this file.
"""

from collections.abc import Iterator
from itertools import count

from engine.models.activations import Activation
from engine.models.blocks import Paths
from engine.models.convolutions import Conv
from engine.models.families.parts import averaged_top
from engine.models.layer import Layer
from engine.models.norms import BatchNorm
from engine.models.pools import AveragePool, MaxPool
from engine.models.shapes import Padding, Size
from engine.models.specs import Sequential

Path = tuple[Layer, ...]


def inception_v3(*, top: bool = True, num_classes: int | None = None) -> Sequential:
    """InceptionV3.

    top: with global average pooling and a dense layer of `num_classes` outputs (None: as many as the data needs); else
    it ends with feature maps, float32[b h/32 − 1 w/32 − 1 2048] or so (8×8 of 299×299).
    """
    make = _Numbered()
    stem = (
        *make(32, 3, 2, "valid"),
        *make(32, 3, 1, "valid"),
        *make(64, 3),
        MaxPool(3, 2),
        *make(80, 1, 1, "valid"),
        *make(192, 3, 1, "valid"),
        MaxPool(3, 2),
    )
    mixed = (
        *(_mixed_35(make, number, pooled) for number, pooled in enumerate((32, 64, 64))),
        _halving_35(make),
        *(_mixed_17(make, number, filters) for number, filters in enumerate((128, 160, 160, 192), 4)),
        _halving_17(make),
        *(_mixed_8(make, number) for number in (9, 10)),
    )
    return Sequential((*stem, *mixed, *(averaged_top(num_classes) if top else ())))


class _Numbered:
    """Makes convolutions with batch norm and relu, and numbers them."""

    def __init__(self) -> None:
        self._endings: Iterator[str] = (f"_{number}" if number else "" for number in count())

    def __call__(self, filters: int, size: Size, strides: int = 1, padding: Padding = "same") -> Path:
        ending = next(self._endings)
        conv = Conv(filters, size, strides, padding, use_bias=False, name=f"conv2d{ending}")
        return conv, BatchNorm(use_scale=False, name=f"batch_normalization{ending}"), Activation("relu")


def _pooled(make: _Numbered, filters: int) -> Path:
    return AveragePool(3, 1, "same"), *make(filters, 1)


def _mixed_35(make: _Numbered, number: int, pooled: int) -> Layer:
    """Of maps of 35×35 at the usual size, as below."""
    paths = (
        make(64, 1),
        (*make(48, 1), *make(64, 5)),
        (*make(64, 1), *make(96, 3), *make(96, 3)),
        _pooled(make, pooled),
    )
    return Paths(paths, "concat", name=f"mixed{number}")


def _halving_35(make: _Numbered) -> Layer:
    paths = (
        make(384, 3, 2, "valid"),
        (*make(64, 1), *make(96, 3), *make(96, 3, 2, "valid")),
        (MaxPool(3, 2),),
    )
    return Paths(paths, "concat", name="mixed3")


def _mixed_17(make: _Numbered, number: int, filters: int) -> Layer:
    wide, high = (1, 7), (7, 1)
    paths = (
        make(192, 1),
        (*make(filters, 1), *make(filters, wide), *make(192, high)),
        (*make(filters, 1), *make(filters, high), *make(filters, wide), *make(filters, high), *make(192, wide)),
        _pooled(make, 192),
    )
    return Paths(paths, "concat", name=f"mixed{number}")


def _halving_17(make: _Numbered) -> Layer:
    paths = (
        (*make(192, 1), *make(320, 3, 2, "valid")),
        (*make(192, 1), *make(192, (1, 7)), *make(192, (7, 1)), *make(192, 3, 2, "valid")),
        (MaxPool(3, 2),),
    )
    return Paths(paths, "concat", name="mixed8")


def _mixed_8(make: _Numbered, number: int) -> Layer:
    paths = (
        make(320, 1),
        (*make(384, 1), Paths((make(384, (1, 3)), make(384, (3, 1))), "concat", name=f"mixed9_{number - 9}")),
        (*make(448, 1), *make(384, 3), Paths((make(384, (1, 3)), make(384, (3, 1))), "concat")),
        _pooled(make, 192),
    )
    return Paths(paths, "concat", name=f"mixed{number}")

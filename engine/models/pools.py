"""Specs of pools. See `models.layers`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from engine.errors import InputError, problem
from engine.models.layer import Layer
from engine.models.shapes import (
    Padding,
    Shape,
    Size,
    check_image,
    check_padding,
    check_positive,
    padded_sides,
    pair,
    reached,
    slide,
)
from engine.records import ADDED

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class _Pool(Layer):
    pools_values: ClassVar[bool] = True

    size: Size = 2
    strides: Size | None = None
    padding: Padding = "valid"

    def __post_init__(self):
        super().__post_init__()
        _check_pool(type(self).__name__, self.size, self.strides, self.padding)

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, c) with one value a window."""
        check_image(shape)
        return (*slide(shape, self.size, self.strides or self.size, self.padding), shape[2])

    def needed_input(self, shape: Shape, output: Shape) -> Shape:
        """What lies under the windows of the output; all of the image if it is padded."""
        return reached(output, self.size, self.strides or self.size, self.padding) or shape[:2]


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest value of each window, padded pixels aside. `strides=None` means windows side by side."""


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window; padded pixels are not counted. `strides=None` means windows side by side."""


@dataclass(frozen=True)
class _GlobalPool(Layer):
    pools_values: ClassVar[bool] = True
    ends_trunk: ClassVar[bool] = True

    keep_axes: bool = field(default=False, kw_only=True, metadata=ADDED)

    def output_shape(self, shape: Shape) -> Shape:
        """(c,), or (1, 1, c)."""
        check_image(shape)
        return (1, 1, shape[2]) if self.keep_axes else (shape[2],)


@dataclass(frozen=True)
class GlobalAveragePool(_GlobalPool):
    """The mean of each channel. keep_axes: as an image of one pixel, which others can be multiplied by."""

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b h w c] → [b c], or [b 1 1 c]."""
        return x.mean(axis=(1, 2), keepdims=self.keep_axes)


@dataclass(frozen=True)
class GlobalMaxPool(_GlobalPool):
    """The largest value of each channel. keep_axes: as an image of one pixel."""


def _check_pool(name: str, size: Size, strides: Size | None, padding: Padding) -> None:
    check_positive(f"{name} size", size)
    check_positive(f"{name} strides", 1 if strides is None else strides)
    check_padding(name, padding)
    sides = zip(padded_sides(padding), pair(size), strict=True)
    if any(pixels >= side for pads, side in sides for pixels in pads):
        raise InputError(problem(f"{name} padding", padding, "less than the window", "Pad less or pool wider."))

"""Layer specs: frozen descriptions of layers that know their output shape and parameter count without JAX.

Shapes are those of one example: (h, w, c) for images, (d,) for vectors. A spec checks its own numbers when it is
built and the shape it is given when the model is; both raise InputError. Layers with kernels: `models.convolutions`;
pools: `models.pools`; normalisation: `models.norms`; tokens: `models.tokens`. Modules that need kernels or
networks: the table in `networks.build`.
"""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.errors import InputError, problem, shape_text, unknown
from engine.models.layer import Layer
from engine.models.shapes import (
    Edges,
    Shape,
    Size,
    check_edges,
    check_image,
    check_positive,
    edges,
    is_number,
    is_whole,
    pair,
)

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class Flatten(Layer):
    """All values of an example as one vector, in row-major order."""

    keeps_values: ClassVar[bool] = True
    ends_trunk: ClassVar[bool] = True

    def output_shape(self, shape: Shape) -> Shape:
        """(d,)."""
        return (prod(shape),)

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b h w c] → [b d]."""
        return x.reshape(x.shape[0], -1)


@dataclass(frozen=True)
class Dropout(Layer):
    """Sets a share `rate` of the values to zero while training and scales the rest to keep the mean."""

    is_random: ClassVar[bool] = True
    keeps_values: ClassVar[bool] = True
    broadcast_axes: ClassVar[tuple[int, ...]] = ()
    """Of [b h w c], those along which all values share one draw."""

    rate: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not is_number(self.rate) or not 0 <= self.rate < 1:
            name = f"{type(self).__name__} rate"
            raise InputError(problem(name, repr(self.rate), "0 ≤ rate < 1", "Give the share to drop, like 0.5."))


@dataclass(frozen=True)
class SpatialDropout(Dropout):
    """Sets whole channels of an image to zero, a share `rate` of them, while training and scales the rest."""

    broadcast_axes: ClassVar[tuple[int, ...]] = (1, 2)

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged; refuses vectors."""
        check_image(shape)
        return shape


@dataclass(frozen=True)
class DropPath(Dropout):
    """Sets whole examples to zero, a share `rate` of them, while training and scales the rest: within `residual`, the
    block is left out for these (stochastic depth, Huang et al. 2016)."""


@dataclass(frozen=True)
class PReLU(Layer):
    """relu with a slope below 0 that is learned, from 0 on: one for each value, or one for all along `shared_axes`.

    shared_axes: as in Keras counted from the batch: (1, 2) has one slope a channel.
    """

    shared_axes: tuple[int, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.shared_axes, tuple) or not all(is_whole(n) and 1 <= n <= 3 for n in self.shared_axes):
            rule = "axes from 1 to 3, in a tuple"
            raise InputError(problem("PReLU shared_axes", repr(self.shared_axes), rule, "Give (1, 2) for channels."))

    def slopes_shape(self, shape: Shape) -> Shape:
        """The shape of the slopes, 1 along shared axes."""
        return tuple(1 if axis in self.shared_axes else size for axis, size in enumerate(shape, 1))

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        if any(axis > len(shape) for axis in self.shared_axes):
            raise InputError(problem("", shape_text(shape), f"as many axes as {self.shared_axes} names", "Name fewer."))
        return shape

    def num_params(self, shape: Shape) -> int:
        """The slopes."""
        return prod(self.slopes_shape(shape))


@dataclass(frozen=True)
class Rescale(Layer):
    """`scale × value + offset`."""

    scales_inputs: ClassVar[bool] = True

    scale: float
    offset: float = 0.0

    def needed_input(self, shape: Shape, output: Shape) -> Shape:
        """As much as of its output."""
        return output[:2]

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b …] → [b …]."""
        return x * self.scale + self.offset


@dataclass(frozen=True)
class UpSample(Layer):
    """Images `size` times as large: each pixel repeated (nearest), or lines between pixel centres (bilinear)."""

    pools_values: ClassVar[bool] = True

    size: Size = 2
    interpolation: Literal["nearest", "bilinear"] = "nearest"

    def __post_init__(self):
        super().__post_init__()
        check_positive("UpSample size", self.size)
        if self.interpolation not in ("nearest", "bilinear"):
            raise InputError(unknown("UpSample interpolation", self.interpolation, ("nearest", "bilinear")))

    def output_shape(self, shape: Shape) -> Shape:
        """(h·size, w·size, c)."""
        check_image(shape)
        return (*(n * times for n, times in zip(shape[:2], pair(self.size), strict=True)), shape[2])


@dataclass(frozen=True)
class ZeroPad(Layer):
    """Zeros around images: pixels on each side, (height, width) or ((top, bottom), (left, right))."""

    padding: Edges = 1

    def __post_init__(self):
        super().__post_init__()
        check_edges("ZeroPad padding", self.padding)

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, c), larger."""
        check_image(shape)
        return (*(n + sum(sides) for n, sides in zip(shape[:2], edges(self.padding), strict=True)), shape[2])

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b h w c] → [b y x c]."""
        import jax.numpy as jnp

        return jnp.pad(x, ((0, 0), *edges(self.padding), (0, 0)))


@dataclass(frozen=True)
class Crop(Layer):
    """Images without their edges: pixels on each side, (height, width) or ((top, bottom), (left, right))."""

    pools_values: ClassVar[bool] = True

    cropping: Edges = 1

    def __post_init__(self):
        super().__post_init__()
        check_edges("Crop cropping", self.cropping)

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, c), smaller."""
        check_image(shape)
        height, width = (n - sum(sides) for n, sides in zip(shape[:2], edges(self.cropping), strict=True))
        if min(height, width) < 1:
            raise InputError(problem("", shape_text(shape[:2]), "more than the pixels to crop", "Crop fewer."))
        return (height, width, shape[2])

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b h w c] → [b y x c]."""
        (top, bottom), (left, right) = edges(self.cropping)
        return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]

"""Specs of layers with kernels: Dense and the convolutions. See `models.layers`.

kernel_initializer: a name of `models.weights`. kernel_regularizer: one too, or l1(), l2() or L1L2() with an amount.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

from engine.errors import InputError, problem
from engine.models.activations import Activation, activation_spec
from engine.models.layer import Layer
from engine.models.shapes import (
    Padding,
    Shape,
    Size,
    check_count,
    check_groups,
    check_image,
    check_padding,
    check_positive,
    check_vector,
    pair,
    reached,
    slide,
)
from engine.models.weights import L1L2, check_initializer, initializer, regularizer_of
from engine.records.custom import Custom

if TYPE_CHECKING:
    from flax import nnx

AnyActivation = str | Custom | Activation | None
AnyRegularizer = L1L2 | str | None


class _Kernel(Layer):
    """The fields that all layers with kernels have, and their checks."""

    has_kernel: ClassVar[bool] = True
    activation: AnyActivation
    kernel_initializer: str
    kernel_regularizer: AnyRegularizer

    def __post_init__(self):
        super().__post_init__()
        activation_spec(self.activation)
        check_initializer(self.kernel_initializer)
        object.__setattr__(self, "kernel_regularizer", regularizer_of(self.kernel_regularizer))


class _Convolution(_Kernel):
    """The checks of all layers whose kernels slide over images, of the fields that they have."""

    kernel_size: Size
    strides: Size
    padding: Padding

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        for field in ("filters", "multiplier", "groups"):
            if hasattr(self, field):
                check_count(f"{name} {field}", getattr(self, field))
        for field in ("kernel_size", "strides", "dilation"):
            if hasattr(self, field):
                check_positive(f"{name} {field}", getattr(self, field))
        check_padding(name, self.padding)


class _Windowed(_Convolution):
    """A convolution whose windows lie in its input."""

    dilation: Size

    def needed_input(self, shape: Shape, output: Shape) -> Shape:
        """The part under the windows of the output; all of the image if it is padded."""
        return reached(output, self.kernel_size, self.strides, self.padding, self.dilation) or shape[:2]


@dataclass(frozen=True)
class Dense(_Kernel):
    """`units` weighted sums of a vector, or of each token.

    `units=None` stands for the number of outputs that the data needs.
    """

    units: int | None = None
    activation: AnyActivation = None
    use_bias: bool = True
    kernel_initializer: str = "glorot_uniform"
    kernel_regularizer: AnyRegularizer = None

    def __post_init__(self):
        super().__post_init__()
        if self.units is not None:
            check_count("Dense units", self.units)

    def output_shape(self, shape: Shape) -> Shape:
        """(units,), or (n, units) of n tokens; refuses images."""
        check_vector(shape)
        return (*shape[:-1], _known_units(self.units))

    def num_params(self, shape: Shape) -> int:
        """Weights and biases."""
        return _known_units(self.units) * (shape[-1] + self.use_bias)

    def build(self, shape: Shape, rngs: "nnx.Rngs") -> "nnx.Module":
        """[b … d] → [b … units]."""
        from flax import nnx

        draw = initializer(self.kernel_initializer)
        return nnx.Linear(shape[-1], _known_units(self.units), use_bias=self.use_bias, kernel_init=draw, rngs=rngs)

    def with_outputs(self, num_outputs: int) -> "Dense":
        """With its units filled in where they were left open."""
        return self if self.units is not None else replace(self, units=num_outputs)

    def with_open_outputs(self) -> "Dense":
        """With `units=None`."""
        return replace(self, units=None)


@dataclass(frozen=True)
class Conv(_Windowed):
    """A 2-D convolution of `filters` kernels.

    padding: "valid", "same", a number of pixels on each side or ((top, bottom), (left, right)).
    """

    filters: int
    kernel_size: Size = 3
    strides: Size = 1
    padding: Padding = "valid"
    dilation: Size = 1
    groups: int = 1
    use_bias: bool = True
    activation: AnyActivation = None
    kernel_initializer: str = "glorot_uniform"
    kernel_regularizer: AnyRegularizer = None

    def __post_init__(self):
        super().__post_init__()
        if self.filters % self.groups:
            rule = f"a divisor of its {self.filters} filters"
            raise InputError(problem("Conv groups", self.groups, rule, "Change one of them."))

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, filters) after the kernel has slid over the image."""
        check_image(shape)
        check_groups(shape[2], self.groups)
        return (*slide(shape, self.kernel_size, self.strides, self.padding, self.dilation), self.filters)

    def num_params(self, shape: Shape) -> int:
        """Weights and biases."""
        return self.filters * (prod(pair(self.kernel_size)) * shape[2] // self.groups + self.use_bias)


@dataclass(frozen=True)
class DepthwiseConv(_Windowed):
    """A convolution of each channel by itself, with `multiplier` kernels each.

    The maps of one channel lie side by side. Fans are those of Keras, of a kernel of h × w × c × multiplier.
    """

    kernel_size: Size = 3
    strides: Size = 1
    padding: Padding = "valid"
    multiplier: int = 1
    dilation: Size = 1
    use_bias: bool = True
    activation: AnyActivation = None
    kernel_initializer: str = "glorot_uniform"
    kernel_regularizer: AnyRegularizer = None

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, c·multiplier)."""
        check_image(shape)
        places = slide(shape, self.kernel_size, self.strides, self.padding, self.dilation)
        return (*places, shape[2] * self.multiplier)

    def num_params(self, shape: Shape) -> int:
        """Weights and biases."""
        return shape[2] * self.multiplier * (prod(pair(self.kernel_size)) + self.use_bias)


@dataclass(frozen=True)
class SeparableConv(_Windowed):
    """A depthwise convolution without biases, then one of 1×1 to `filters` channels.

    Initializer and regularizer are those of both kernels.
    """

    filters: int
    kernel_size: Size = 3
    strides: Size = 1
    padding: Padding = "valid"
    multiplier: int = 1
    dilation: Size = 1
    use_bias: bool = True
    activation: AnyActivation = None
    kernel_initializer: str = "glorot_uniform"
    kernel_regularizer: AnyRegularizer = None

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, filters)."""
        check_image(shape)
        return (*slide(shape, self.kernel_size, self.strides, self.padding, self.dilation), self.filters)

    def num_params(self, shape: Shape) -> int:
        """Weights of both kernels, and biases."""
        between = shape[2] * self.multiplier
        return between * (prod(pair(self.kernel_size)) + self.filters) + self.filters * self.use_bias


@dataclass(frozen=True)
class ConvTranspose(_Convolution):
    """A transposed convolution: images `strides` times as large ("same"), or larger by what the kernel adds ("valid").

    Its kernel has the axes h × w × filters × c, as in Keras, which is where its fans come from.
    """

    filters: int
    kernel_size: Size = 3
    strides: Size = 1
    padding: Padding = "valid"
    use_bias: bool = True
    activation: AnyActivation = None
    kernel_initializer: str = "glorot_uniform"
    kernel_regularizer: AnyRegularizer = None

    def __post_init__(self):
        super().__post_init__()
        if self.padding not in ("valid", "same"):
            rule, remedy = '"valid" or "same"', "Choose one, and Crop() after it."
            raise InputError(problem("ConvTranspose padding", repr(self.padding), rule, remedy))

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, filters)."""
        check_image(shape)
        windows = zip(shape[:2], pair(self.kernel_size), pair(self.strides), strict=True)
        sizes = (n * step + (0 if self.padding == "same" else max(taps - step, 0)) for n, taps, step in windows)
        return (*sizes, self.filters)

    def num_params(self, shape: Shape) -> int:
        """Weights and biases."""
        return self.filters * (prod(pair(self.kernel_size)) * shape[2] + self.use_bias)


def _known_units(units: int | None) -> int:
    if units is None:
        raise InputError(problem("", "no number of units", "one", "Give Dense(units), or build with num_outputs."))
    return units

"""Layer specs: frozen descriptions of layers that know their output shape and parameter count without JAX.

Shapes are those of one example: (h, w, c) for images, (d,) for vectors. A spec checks its own numbers when it is
built and the shape it is given when the model is; both raise InputError.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeGuard

from engine.errors import InputError, problem, shape_text, unknown

Shape = tuple[int, ...]
Size = int | tuple[int, int]
Padding = Literal["valid", "same"] | int

ACTIVATIONS = (
    "relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu", "softplus", "softmax",
)  # fmt: skip


def pair(size: Size) -> tuple[int, int]:
    """(height, width) of a size given as one number or two."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class _Untrained:
    """A layer without parameters, whose output has the shape of its input unless it says otherwise."""

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def num_params(self, shape: Shape) -> int:
        """None."""
        return 0


@dataclass(frozen=True)
class Dense:
    """`units` weighted sums of a vector. `units=None` stands for the number of outputs the data asks for."""

    units: int | None = None
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self):
        if self.units is not None:
            _check_count("Dense units", self.units)
        _check_activation(self.activation)

    def output_shape(self, shape: Shape) -> Shape:
        """(units,); refuses anything but a vector."""
        _check_vector(shape)
        return (_known_units(self.units),)

    def num_params(self, shape: Shape) -> int:
        """Weights and biases."""
        return _known_units(self.units) * (shape[0] + self.use_bias)


@dataclass(frozen=True)
class Conv:
    """A 2-D convolution of `filters` kernels. `padding` is "valid", "same" or pixels on each side."""

    filters: int
    kernel_size: Size = 3
    strides: Size = 1
    padding: Padding = "valid"
    dilation: Size = 1
    groups: int = 1
    use_bias: bool = True
    activation: str | None = None

    def __post_init__(self):
        _check_count("Conv filters", self.filters)
        _check_count("Conv groups", self.groups)
        for name in ("kernel_size", "strides", "dilation"):
            _check_positive(f"Conv {name}", getattr(self, name))
        _check_padding("Conv", self.padding)
        _check_activation(self.activation)
        if self.filters % self.groups:
            raise InputError(
                problem(
                    "Conv groups",
                    self.groups,
                    f"a divisor of its {self.filters} filters",
                    "Change one of them.",
                )
            )

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, filters) after the kernel has slid over the image."""
        _check_image(shape)
        if shape[2] % self.groups:
            raise InputError(f"got {shape[2]} channels; expected a multiple of its {self.groups} groups")
        return (*_slide(shape, self.kernel_size, self.strides, self.padding, self.dilation), self.filters)

    def num_params(self, shape: Shape) -> int:
        """Weights and biases."""
        return self.filters * (prod(pair(self.kernel_size)) * shape[2] // self.groups + self.use_bias)


@dataclass(frozen=True)
class _Pool(_Untrained):
    size: Size = 2
    strides: Size | None = None
    padding: Padding = "valid"

    def __post_init__(self):
        _check_pool(type(self).__name__, self.size, self.strides, self.padding)

    def output_shape(self, shape: Shape) -> Shape:
        """(h, w, c) with one value a window."""
        _check_image(shape)
        return (*_slide(shape, self.size, self.strides or self.size, self.padding), shape[2])


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest value of each window. `strides=None` means windows side by side."""


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window; padded pixels are not counted. `strides=None` means windows side by side."""


@dataclass(frozen=True)
class GlobalAveragePool(_Untrained):
    """The mean of each channel."""

    def output_shape(self, shape: Shape) -> Shape:
        """(c,)."""
        _check_image(shape)
        return (shape[2],)


@dataclass(frozen=True)
class Flatten(_Untrained):
    """All values of an example as one vector, in row-major order."""

    def output_shape(self, shape: Shape) -> Shape:
        """(d,)."""
        return (prod(shape),)


@dataclass(frozen=True)
class Dropout(_Untrained):
    """Sets a share `rate` of the values to zero while training and scales the rest to keep the mean."""

    rate: float = 0.5

    def __post_init__(self):
        if not isinstance(self.rate, (int, float)) or not 0 <= self.rate < 1:
            raise InputError(
                problem("Dropout rate", repr(self.rate), "0 ≤ rate < 1", "Give the share to drop, like 0.5.")
            )


@dataclass(frozen=True)
class BatchNorm:
    """Normalises each channel by the batch's mean and variance; by their running averages outside training."""

    momentum: float = 0.99
    epsilon: float = 1e-3

    def __post_init__(self):
        if not 0 <= self.momentum < 1:
            raise InputError(problem("BatchNorm momentum", self.momentum, "0 ≤ momentum < 1", "Give 0.99 or so."))
        if self.epsilon <= 0:
            raise InputError(problem("BatchNorm epsilon", self.epsilon, "a positive number", "Give 1e-3 or so."))

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        return shape

    def num_params(self, shape: Shape) -> int:
        """Scale and offset of each channel; the running averages are not trained and not counted."""
        return 2 * shape[-1]


@dataclass(frozen=True)
class Activation(_Untrained):
    """A function of each value, by name."""

    name: str

    def __post_init__(self):
        if self.name not in ACTIVATIONS:
            raise InputError(unknown("activation", self.name, ACTIVATIONS))


@dataclass(frozen=True)
class Rescale(_Untrained):
    """`scale × value + offset`."""

    scale: float
    offset: float = 0.0


Layer = Dense | Conv | MaxPool | AveragePool | GlobalAveragePool | Flatten | Dropout | BatchNorm | Activation | Rescale


def _slide(shape: Shape, window: Size, strides: Size, padding: Padding, dilation: Size = 1) -> tuple[int, int]:
    """(h, w) of the places a window can take, by the rules of lax and Keras."""
    (kh, kw), (sh, sw), (dh, dw) = pair(window), pair(strides), pair(dilation)
    reach_h, reach_w = (kh - 1) * dh + 1, (kw - 1) * dw + 1
    if padding == "same":
        return -(-shape[0] // sh), -(-shape[1] // sw)
    pixels = padding if isinstance(padding, int) else 0
    h, w = shape[0] + 2 * pixels, shape[1] + 2 * pixels
    if h < reach_h or w < reach_w:
        raise InputError(
            f"got {shape_text(shape[:2])}; expected at least {shape_text((reach_h, reach_w))} for its window. "
            'Use fewer or smaller pools and convolutions before it, or padding="same".'
        )
    return (h - reach_h) // sh + 1, (w - reach_w) // sw + 1


def _check_pool(name: str, size: Size, strides: Size | None, padding: Padding) -> None:
    _check_positive(f"{name} size", size)
    _check_positive(f"{name} strides", 1 if strides is None else strides)
    _check_padding(name, padding)
    if isinstance(padding, int) and any(padding >= side for side in pair(size)):
        raise InputError(problem(f"{name} padding", padding, "less than the window", "Pad less or pool wider."))


def _check_image(shape: Shape) -> None:
    if len(shape) != 3:
        raise InputError(
            f"got a vector of {shape_text(shape)}; expected an image h×w×c. Put it before Flatten and Dense."
        )


def _check_vector(shape: Shape) -> None:
    if len(shape) != 1:
        raise InputError(
            f"got an image of {shape_text(shape)}; expected a vector. Put Flatten() or GlobalAveragePool() before it."
        )


def _check_count(field: str, number: int) -> None:
    if not _is_whole(number) or number < 1:
        raise InputError(problem(field, repr(number), "a positive whole number", "Correct the layer."))


def _check_positive(field: str, size: Size) -> None:
    numbers = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    if not all(_is_whole(number) and number > 0 for number in numbers):
        raise InputError(problem(field, repr(size), "a positive whole number, or two", "Correct the layer."))


def _check_padding(layer: str, padding: Padding) -> None:
    if padding not in ("valid", "same") and not (_is_whole(padding) and padding >= 0):
        rule = '"valid", "same" or a number of pixels'
        raise InputError(problem(f"{layer} padding", repr(padding), rule, "Choose one of these."))


def _is_whole(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool)


def _check_activation(name: str | None) -> None:
    if name is not None and name not in ACTIVATIONS:
        raise InputError(unknown("activation", name, ACTIVATIONS))


def _known_units(units: int | None) -> int:
    if units is None:
        raise InputError("got no number of units; expected one. Give Dense(units), or build with num_outputs.")
    return units

"""What a layer is: one frozen dataclass with its output shape, its parameters, its module and the input that it needs.

Shapes are those of one example: (h, w, c) for images, (d,) for vectors.
"""

import re
from dataclasses import dataclass, field, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from engine.errors import InputError, problem
from engine.models.shapes import Shape
from engine.records import ADDED, from_json, to_json
from engine.records.custom import Custom, custom

if TYPE_CHECKING:
    import jax
    from flax import nnx


NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,79}"
"""What a layer may be called: patterns, and lists of names on a command line, need the other characters."""


@dataclass(frozen=True)
class Layer:
    """Base of all layers. Yours is a frozen dataclass derived from it, in any file that can be imported.

    It defines `build` if it has parameters or randomness, else `apply`; and what else differs from the defaults here.
    Numbers it cannot use are refused in `__post_init__` (call the base's first), shapes in `output_shape`, both by
    InputError. A field `activation` is applied after the layer; of a field `kernel_regularizer` the loss gets its
    penalty on parameters called kernel.

    name: what freezing and the like call it by, unique in a model; by default its kind and a number, like conv_1.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    KINDS: ClassVar[dict[str, type["Layer"]]] = {}
    """The layers of this package by name, which records know them by; others go by their import path."""
    has_kernel: ClassVar[bool] = False
    """Whether it has weights to multiply with, so that keeping its outputs while it is frozen saves time."""
    is_random: ClassVar[bool] = False
    """Whether it draws random numbers in training."""
    takes_mask: ClassVar[bool] = False
    """Whether its module has a parameter `mask` (bool[b]: the examples that are no padding), as batch norm has."""
    keeps_values: ClassVar[bool] = False
    """Whether its outputs are its inputs, in evaluation, in another shape at most."""
    pools_values: ClassVar[bool] = False
    """Whether its outputs are means or maxima of its inputs, or some of them."""
    scales_inputs: ClassVar[bool] = False
    """Whether what follows it no longer depends on the range of its inputs."""
    ends_trunk: ClassVar[bool] = False
    """Whether it makes a vector of images or tokens, so that a new head takes its place and that of all after it."""
    activation = cast("Any", None)  # no fields here: layers that have them say where
    kernel_regularizer = cast("Any", None)

    name: str | None = field(default=None, kw_only=True, repr=False, metadata=ADDED)

    def __init_subclass__(cls, **named: Any):
        super().__init_subclass__(**named)
        if cls.__module__.startswith("engine.") and not cls.__name__.startswith("_"):
            Layer.KINDS[cls.__name__] = cls

    def __post_init__(self):
        """Makes tuples of lists and Python's numbers of NumPy's, which records can store. Checks come after it."""
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, _plain(value))
        if _has_name(type(self)) and self.name is not None:
            check_name(self.name)

    @property
    def kind(self) -> str:
        """The name of its class."""
        return type(self).__name__

    @property
    def has_params(self) -> bool:
        """Whether it has parameters, as a class that counts them does."""
        return type(self).num_params is not Layer.num_params

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of an example's output for an input of `shape`: by default the same."""
        return shape

    def num_params(self, shape: Shape) -> int:
        """The number of trained parameters for an input of `shape`: by default 0."""
        return 0

    def num_statistics(self, shape: Shape) -> int:
        """How many numbers it keeps that are not trained, as the running averages of batch norm: by default 0."""
        return 0

    def needed_input(self, shape: Shape, output: Shape) -> Shape:
        """(h, w) of the first rows and columns of an image (of `shape`) that those of the output (`output`) depend on.

        By default all of them. Pools may leave the last ones out, which then need not be computed.
        """
        return shape[:2]

    def build(self, shape: Shape, rngs: "nnx.Rngs") -> "nnx.Module | None":
        """The Flax NNX module, called with [b …] for inputs of `shape`; None if the layer is a function, `apply`."""
        return None

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b …] → [b …], of a layer without parameters and randomness."""
        rule = "one that defines build (its NNX module) or apply"
        raise InputError(problem("layer", type(self).__name__, rule, "Add a method."))

    def with_outputs(self, num_outputs: int) -> "Layer":
        """The layer with `num_outputs` where its number of outputs was left open."""
        return self

    def with_open_outputs(self) -> "Layer | None":
        """The layer with its number of outputs left open; None if it has no such number."""
        return None

    def without_activation(self) -> "Layer | None":
        """The layer without its activation; None if it is nothing else."""
        return replace(self, activation=None)

    def loaded(self) -> "Layer":
        """The layer itself; of the spec of a user's own layer, that layer."""
        return self


def _of_own(name: str) -> Any:
    return property(lambda layer: getattr(layer.loaded(), name))


@dataclass(frozen=True)
class CustomLayer(Layer):
    """The spec of a user's own layer: the import path of its class and its fields. Using it imports the class."""

    own: Custom

    has_kernel = _of_own("has_kernel")
    is_random = _of_own("is_random")
    takes_mask = _of_own("takes_mask")
    keeps_values = _of_own("keeps_values")
    pools_values = _of_own("pools_values")
    scales_inputs = _of_own("scales_inputs")
    ends_trunk = _of_own("ends_trunk")
    activation = _of_own("activation")
    kernel_regularizer = _of_own("kernel_regularizer")
    output_shape = _of_own("output_shape")
    num_params = _of_own("num_params")
    num_statistics = _of_own("num_statistics")
    needed_input = _of_own("needed_input")
    build = _of_own("build")
    apply = _of_own("apply")

    @property
    def kind(self) -> str:
        """The name of the class."""
        return self.own.name

    @property
    def has_params(self) -> bool:
        """As the user's layer."""
        return self.loaded().has_params

    def loaded(self) -> Layer:
        """The user's layer; imports its class."""
        kind = self.own.load("layer")
        if not (isinstance(kind, type) and issubclass(kind, Layer) and is_dataclass(kind)):
            raise InputError(problem("layer", self.own.path, _RULE, "Name one of these."))
        return from_json(kind, self.own.arguments, self.own.path)

    def with_outputs(self, num_outputs: int) -> Layer:
        """As the user's layer."""
        return replace(as_spec(self.loaded().with_outputs(num_outputs)), name=self.name)

    def with_open_outputs(self) -> Layer | None:
        """As the user's layer."""
        opened = self.loaded().with_open_outputs()
        return None if opened is None else replace(as_spec(opened), name=self.name)

    def without_activation(self) -> Layer | None:
        """As the user's layer."""
        plain = self.loaded().without_activation()
        return None if plain is None else replace(as_spec(plain), name=self.name)


_RULE = "a frozen dataclass derived from engine.models.Layer"


def as_spec(layer: Layer) -> Layer:
    """A layer as a model's spec holds it: one of this package as it is, one of the user's own by its import path."""
    if type(layer) in Layer.KINDS.values():
        return layer
    if "__dataclass_fields__" not in vars(type(layer)):
        raise InputError(problem("layer", type(layer).__name__, _RULE, "Write @dataclass(frozen=True) above it."))
    fields = {name: value for name, value in to_json(layer).items() if name != "kind"}
    name = fields.pop("name", None) if _has_name(type(layer)) else None
    return CustomLayer(replace(custom(type(layer)), arguments=fields), name=name)


def check_name(name: Any) -> None:
    """Raises InputError for what a layer cannot be called."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        rule = "letters, digits, _ . and -, at most 80, of which the first is a letter, a digit or _"
        raise InputError(problem("layer name", repr(name)[:82], rule, "Call it like conv_1."))


def _has_name(kind: type[Layer]) -> bool:
    """Whether the field `name` of a class is that of all layers, and none of its author's own."""
    return kind.__dataclass_fields__["name"] is Layer.__dataclass_fields__["name"]


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_plain(part) for part in value)
    return value.item() if isinstance(value, np.number) else value

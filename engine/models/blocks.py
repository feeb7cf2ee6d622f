"""Blocks: several paths from one input, joined. The one way in which a model is more than a row of layers.

`residual`, `squeeze_excite` and `inverted_residual` return such blocks; a block may hold others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from engine.errors import InputError, problem, shape_text, unknown, within
from engine.models.activations import activation_spec
from engine.models.convolutions import AnyActivation, Conv, DepthwiseConv
from engine.models.layer import Layer, as_spec
from engine.models.norms import BatchNorm
from engine.models.pools import GlobalAveragePool
from engine.models.shapes import Shape, Size

Join = Literal["add", "concat", "multiply"]
JOINS: tuple[Join, ...] = ("add", "concat", "multiply")
MOST_DEPTH = 8  # of blocks within blocks
MOST_PATHS = 64


def _any(name: str) -> Any:
    """A property: whether that of any layer within holds."""
    return property(lambda block: any(getattr(layer, name) for layer in block.inner))


@dataclass(frozen=True)
class Paths(Layer):
    """Paths of layers from the same input, whose outputs are joined. An empty path is the input itself.

    join: add (outputs of one shape), concat (by channels) or multiply (an output of one pixel, (1, 1, c), multiplies
    all pixels of another, as in squeeze-and-excitation). activation: after the join.
    """

    has_kernel: ClassVar[bool] = _any("has_kernel")
    is_random: ClassVar[bool] = _any("is_random")
    takes_mask: ClassVar[bool] = _any("takes_mask")

    paths: tuple[tuple[Layer, ...], ...]
    join: Join = "add"
    activation: AnyActivation = None

    def __post_init__(self):
        given = self.paths
        if not isinstance(given, list | tuple) or not all(isinstance(path, list | tuple) for path in given):
            raise InputError(problem("Paths", repr(given)[:80], "a tuple of tuples of layers", "Add brackets."))
        for layer in (layer for path in given for layer in path):
            if not isinstance(layer, Layer):
                remedy = "Give layers, like Conv(32)."
                raise InputError(problem("Paths", repr(layer)[:80], "layers in each path", remedy))
        object.__setattr__(self, "paths", tuple(tuple(map(as_spec, path)) for path in given))
        super().__post_init__()
        if not 1 <= len(given) <= MOST_PATHS:
            raise InputError(problem("Paths", f"{len(given)} paths", f"1 to {MOST_PATHS}", "Write another block."))
        if self.join not in JOINS:
            raise InputError(unknown("Paths join", self.join, JOINS))
        activation_spec(self.activation)
        if self.depth > MOST_DEPTH:
            rule = f"at most {MOST_DEPTH} within each other"
            raise InputError(problem("Paths", f"{self.depth} blocks", rule, "Put layers one after the other instead."))

    @property
    def has_params(self) -> bool:
        """Whether any layer within has."""
        return any(layer.has_params for layer in self.inner)

    @property
    def inner(self) -> Iterator[Layer]:
        """The layers of all paths, one path after the other."""
        return (layer for path in self.paths for layer in path)

    @property
    def depth(self) -> int:
        """How many blocks lie within each other, itself included."""
        return 1 + max((layer.depth for layer in self.inner if isinstance(layer, Paths)), default=0)

    def output_shape(self, shape: Shape) -> Shape:
        """That of the joined outputs; refuses outputs that do not go together."""
        shapes = [_follow(path, shape)[-1] for path in self.paths]
        axes = list(zip(*shapes, strict=True)) if len({len(each) for each in shapes}) == 1 else []
        equal = [len(set(sizes)) == 1 for sizes in axes]
        rule = {
            "add": "equal shapes to add",
            "concat": "shapes that differ in channels alone",
            "multiply": "shapes that are equal, or have 1 pixel or 1 channel, to multiply",
        }[self.join]
        fits = {
            "add": all(equal),
            "concat": all(equal[:-1]),
            "multiply": all(len({*sizes} - {1}) <= 1 for sizes in axes),
        }[self.join]
        if not axes or not fits:
            got = ", ".join(map(shape_text, shapes))
            raise InputError(problem("", f"paths that give {got}", rule, "Change strides, padding or filters of one."))
        whole = tuple(max(sizes) for sizes in axes)
        return (*whole[:-1], sum(axes[-1])) if self.join == "concat" else whole

    def num_params(self, shape: Shape) -> int:
        """Those of all layers within."""
        return sum(layer.num_params(at) for layer, at in self._with_inputs(shape))

    def num_statistics(self, shape: Shape) -> int:
        """Those of all layers within."""
        return sum(layer.num_statistics(at) for layer, at in self._with_inputs(shape))

    def inner_inputs(self, shape: Shape) -> Iterator[Shape]:
        """The shape of the input of each layer, at any depth, blocks before what is in them, as names are given."""
        for layer, at in self._with_inputs(shape):
            yield at
            if isinstance(layer, Paths):
                yield from layer.inner_inputs(at)

    def _with_inputs(self, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
        for path in self.paths:
            yield from zip(path, _follow(path, shape), strict=False)

    def with_outputs(self, num_outputs: int) -> "Paths":
        """With the outputs filled in that layers within left open."""
        changed = tuple(tuple(layer.with_outputs(num_outputs) for layer in path) for path in self.paths)
        return self if changed == self.paths else Paths(changed, self.join, self.activation, name=self.name)


def _follow(path: Sequence[Layer], shape: Shape) -> list[Shape]:
    """The input of the first layer, then the output of each; raises InputError naming the one that does not fit."""
    shapes = [shape]
    for layer in path:
        try:
            shapes.append(layer.output_shape(shapes[-1]))
        except InputError as error:
            called = f"{layer.kind} {layer.name}" if layer.name else layer.kind
            raise within(called, error) from None
    return shapes


def residual(
    layers: Sequence[Layer],
    shortcut: Sequence[Layer] = (),
    activation: AnyActivation = "relu",
    name: str | None = None,
) -> Paths:
    """The layers' output plus their input, or what the layers of a shortcut make of it (He et al. 2016)."""
    return Paths((tuple(layers), tuple(shortcut)), "add", activation, name=name)


def squeeze_excite(
    channels: int,
    squeezed: int,
    activation: AnyActivation = "relu",
    gate: AnyActivation = "sigmoid",
    name: str | None = None,
    layer_names: tuple[str | None, str | None, str | None] = (None, None, None),
) -> Paths:
    """Each channel times a gate from the means of all (Hu et al. 2018).

    channels: of the input; squeezed: how many the means go through. layer_names: of the mean and of both convolutions.
    """
    mean, reduce, expand = layer_names
    gated = (
        GlobalAveragePool(keep_axes=True, name=mean),
        Conv(squeezed, 1, activation=activation, name=reduce),
        Conv(channels, 1, activation=gate, name=expand),
    )
    return Paths(((), gated), "multiply", name=name)


def inverted_residual(
    channels: int,
    filters: int,
    expansion: int = 6,
    kernel_size: Size = 3,
    strides: int = 1,
    activation: AnyActivation = "relu6",
    name: str | None = None,
) -> Paths:
    """A convolution of 1×1 to `expansion` times the channels, a depthwise one, and one of 1×1 to `filters` channels
    without activation, each with batch norm; plus the input where the shapes are equal (Sandler et al. 2018).

    channels: of the input. With an expansion of 1 there is no first convolution.
    """
    spec = activation_spec(activation)
    act = () if spec is None else (spec,)
    wide = (Conv(channels * expansion, 1, use_bias=False), BatchNorm(), *act) if expansion > 1 else ()
    layers = (
        *wide,
        *(DepthwiseConv(kernel_size, strides, "same", use_bias=False), BatchNorm(), *act),
        *(Conv(filters, 1, use_bias=False), BatchNorm()),
    )
    has_shortcut = strides == 1 and channels == filters
    return Paths((layers, ()) if has_shortcut else (layers,), "add", name=name)

"""Model specs: what a checkpoint stores to rebuild a model without the script that made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from engine.errors import InputError, problem, within
from engine.models.activations import Activation
from engine.models.blocks import Paths
from engine.models.convolutions import AnyActivation, Conv, Dense
from engine.models.layer import Layer, as_spec
from engine.models.layers import Dropout, Flatten
from engine.models.names import NamedLayer, name_layers
from engine.models.pools import MaxPool
from engine.models.shapes import Padding, Shape, Size
from engine.records import to_json
from engine.records.custom import Custom, Gives

if TYPE_CHECKING:
    from engine.host.console import Table
    from engine.models.graph import Graph

MOST_LAYERS = 2_000  # more would be compiled for hours


class LayerRow(NamedTuple):
    """One line of a summary: layer number (from 1), name, output shape of one example, parameters, and statistics."""

    number: int
    name: str
    output_shape: Shape
    num_params: int
    num_statistics: int = 0


_BEFORE_KERAS: dict[str, Any] = {
    "gelu": to_json(Activation("gelu_tanh")),
    "leaky_relu": to_json(Activation("leaky_relu", 0.01)),
}
"""What names of activations meant in records of version 1."""


@dataclass(frozen=True)
class Sequential:
    """Layers applied one after the other."""

    RECORD_VERSION: ClassVar[int] = 2  # 1: gelu was its approximation by tanh, leaky_relu had a slope of 0.01
    is_layered: ClassVar[bool] = True  # a class of the user's own is not: its layers are known when it is built
    gives: ClassVar[Gives] = "logits"

    layers: tuple[Layer, ...]

    def __post_init__(self):
        layers = tuple((self.layers,) if isinstance(self.layers, Layer) else self.layers)
        if len(layers) > MOST_LAYERS:
            remedy = "Build the model in a class of your own."
            raise InputError(problem("layers", f"{len(layers):,}", f"at most {MOST_LAYERS:,}", remedy))
        for number, layer in enumerate(layers, 1):
            if not isinstance(layer, Layer):
                rule = f"one of {', '.join(Layer.KINDS)}, or a layer of your own"
                raise InputError(problem(f"layer {number}", repr(layer), rule, _layer_remedy(layer)))
        object.__setattr__(self, "layers", tuple(map(as_spec, layers)))
        if len(self.named) > MOST_LAYERS:
            rule, remedy = f"at most {MOST_LAYERS:,}, at all depths", "Build the model in a class of your own."
            raise InputError(problem("layers", f"{len(self.named):,}", rule, remedy))

    @classmethod
    def upgraded(cls, given: dict[str, Any], version: int) -> dict[str, Any]:
        """The fields of a record of an earlier version, in today's terms."""
        layers = given.get("layers")
        return {**given, "layers": [_upgraded_layer(layer) for layer in layers] if isinstance(layers, list) else layers}

    @property
    def layer_names(self) -> tuple[str, ...]:
        """A name for each layer, its own or its kind and which of that kind it is: conv_1, max_pool_1, …, dense_1.

        Blocks are one layer here; `named` has those within them too.
        """
        return tuple(each.name for each in self.named if len(each.position) == 1)

    @cached_property
    def named(self) -> tuple[NamedLayer, ...]:
        """All layers, at any depth, with their names."""
        return name_layers(self.layers)

    def with_outputs(self, num_outputs: int) -> "Sequential":
        """The same model with `num_outputs` filled in where a layer left its outputs open."""
        return Sequential(tuple(layer.with_outputs(num_outputs) for layer in self.layers))

    def with_open_outputs(self) -> "Sequential":
        """The same model with as many outputs as the data needs: the last layer that has a number of them has none."""
        for number in reversed(range(len(self.layers))):
            opened = self.layers[number].with_open_outputs()
            if opened is not None:
                return self.with_layer(number, opened)
        return self

    def with_layer(self, number: int, layer: Layer | None) -> "Sequential":
        """The same model with another layer at a position, counted from 0, or with none there."""
        new = () if layer is None else (layer,)
        return Sequential((*self.layers[:number], *new, *self.layers[number + 1 :]))

    def rows(self, input_shape: Shape) -> list[LayerRow]:
        """The output of each layer for one example; raises InputError naming the first layer that does not fit."""
        rows, shape = [], tuple(input_shape)
        for number, (name, layer) in enumerate(zip(self.layer_names, self.layers, strict=True), 1):
            try:
                after = layer.output_shape(shape)
                rows.append(LayerRow(number, name, after, layer.num_params(shape), layer.num_statistics(shape)))
            except InputError as error:
                raise within(f"layer {number} {layer.kind}", error) from None
            shape = after
        return rows

    def all_rows(self, input_shape: Shape) -> list[LayerRow]:
        """As `rows`, with those within blocks after the row of the block, in the order of `named`."""
        inputs, shape = list[Shape](), tuple(input_shape)
        for row, layer in zip(self.rows(input_shape), self.layers, strict=True):
            inputs += [shape, *(layer.inner_inputs(shape) if isinstance(layer, Paths) else ())]
            shape = row.output_shape
        return [
            LayerRow(
                each.position[0] + 1, each.name, each.layer.output_shape(at), each.layer.num_params(at),
                each.layer.num_statistics(at),
            )
            for each, at in zip(self.named, inputs, strict=True)
        ]  # fmt: skip

    def with_head(self, head: Sequence[Layer]) -> "Sequential":
        """The trunk with other layers after it: up to the first Flatten or pool over whole images, or all of it.

        Layers within blocks are not looked at.
        """
        ends = (number for number, layer in enumerate(self.layers) if layer.ends_trunk)
        return Sequential((*self.layers[: next(ends, len(self.layers))], *head))

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one example's output."""
        rows = self.rows(input_shape)
        return rows[-1].output_shape if rows else tuple(input_shape)

    def num_params(self, input_shape: Shape) -> int:
        """All trained parameters."""
        return sum(row.num_params for row in self.rows(input_shape))

    def summary(self, input_shape: Shape, num_outputs: int | None = None, inner: bool = False) -> "Table":
        """The layers with their output shapes and parameters, as a table to print or to show in a notebook.

        num_outputs: where a last Dense() leaves them open. inner: the layers within blocks have rows too.
        """
        from engine.models.summary import summary_table

        return summary_table(self._with_known(num_outputs), input_shape, inner=inner)

    def graph(self, input_shape: Shape, num_outputs: int | None = None) -> "Graph":
        """The layers with their output shapes and parameters, as a graph to show in a notebook or to save as SVG."""
        from engine.models.graph import make_graph

        model = self._with_known(num_outputs)
        return make_graph(model.named, model.all_rows(input_shape), input_shape)

    def _repr_html_(self) -> str:
        from engine.models.summary import layers_html

        return layers_html(self)

    def _with_known(self, num_outputs: int | None) -> "Sequential":
        return self if num_outputs is None else self.with_outputs(num_outputs)

    def num_statistics(self, input_shape: Shape) -> int:
        """All numbers that are kept and not trained, like the running averages of batch norms."""
        return sum(row.num_statistics for row in self.rows(input_shape))


Model = Sequential | Custom


def _layer_remedy(layer: Any) -> str:
    is_kind = isinstance(layer, type) and issubclass(layer, Layer)
    return f"Write {layer.__name__}(), with what it needs in the brackets." if is_kind else "Use a layer spec."


def _upgraded_layer(layer: Any) -> Any:
    if not isinstance(layer, dict):
        return layer
    field = "name" if layer.get("kind") == "Activation" else "activation"
    meant = _BEFORE_KERAS.get(layer[field]) if isinstance(layer.get(field), str) else None
    if meant is None:
        return layer
    return meant if field == "name" else {**layer, field: meant}


def mlp(hidden: Sequence[int] = (128,), *, activation: AnyActivation = "relu", dropout: float = 0.0) -> Sequential:
    """A multilayer perceptron: flatten, hidden layers (each with dropout after it, if any), one output a class."""
    layers: list[Layer] = [Flatten()]
    for units in hidden:
        layers.append(Dense(units, activation=activation))
        if dropout:
            layers.append(Dropout(dropout))
    return Sequential((*layers, Dense()))


def cnn(
    filters: Sequence[int] = (32, 64, 128),
    *,
    kernel_size: Size = 3,
    padding: Padding = "valid",
    activation: AnyActivation = "relu",
    pool_size: Size | None = 2,
    pool_last: bool = False,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
) -> Sequential:
    """A convnet: convolutions with max-pools between them (and after the last with `pool_last`), then an MLP head."""
    layers: list[Layer] = []
    for i, number in enumerate(filters):
        layers.append(Conv(number, kernel_size, padding=padding, activation=activation))
        if pool_size is not None and (pool_last or i < len(filters) - 1):
            layers.append(MaxPool(pool_size))
    head = mlp(hidden, activation=activation, dropout=dropout)
    return Sequential((*layers, *head.layers))

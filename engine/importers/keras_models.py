"""Whole Keras models (`.keras`, or `.h5` of model.save) → specs of ours with their weights. No code of them is run."""

from collections.abc import Iterator, Mapping
from itertools import chain, count
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from engine.augment.config import AugmentConfig
from engine.config.contract import InputSpec
from engine.errors import InputError, problem
from engine.host.json_files import shown
from engine.importers.keras_front import Front, take_front
from engine.importers.keras_given import Given, layer_name
from engine.importers.keras_graph import JOINS, Graph, Node, read_graph
from engine.importers.keras_layers import WEIGHTED, convert
from engine.importers.keras_series import Join, as_series
from engine.importers.read import read_weights
from engine.importers.weights_file import WeightsFile
from engine.models import Activation, Layer, Paths, Sequential
from engine.models.shapes import Shape
from engine.text import counted

GLOBAL_POOLS = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")
AS_LEVELS = "the model normalises nothing: pixels go in as 0 to 255, unless you say otherwise"
AS_LOGITS = "it ends in neither softmax nor sigmoid: outputs are taken as logits"
AT_THE_END = ("softmax", "sigmoid")


class KerasModel(NamedTuple):
    """A Keras model in our terms.

    spec: its layers, with Keras's names; its outputs are logits. weights: by `layer/variable`, variables as Keras calls
    them (kernel, gamma, moving_mean); all of them belong to the spec. input_spec: the contract, with what was folded
    in. is_scaled: whether the model normalised its inputs itself; else pixels go in as 0 to 255. augment: what layers
    at the front changed at random. gives: softmax or sigmoid, if the model ended in it. notes: what was changed.
    """

    spec: Sequential
    weights: Mapping[str, np.ndarray]
    input_spec: InputSpec
    num_outputs: int
    is_scaled: bool
    augment: AugmentConfig
    gives: str | None
    notes: tuple[str, ...]


def keras_model(path: str | PathLike[str], height_width: tuple[int, int] | None = None) -> KerasModel:
    """The model in a file of Keras. height_width: of images, where the model takes any size.

    Raises InputError, naming the layer, where one has no counterpart here or the layers are no series of parallel
    paths; or, as `read_weights` does, about the file.
    """
    file = read_weights(path)
    where = str(file.path)
    if "model_config" not in file.about:
        remedy = "Name the family that they belong to, or save the whole model: model.save('model.keras')"
        raise InputError(problem(where, "weights without a model", "a whole Keras model", remedy))
    graph = read_graph(file.about["model_config"], where)
    arrays, strays = _by_layer(file, graph)
    front = _read_input(graph.nodes[graph.input], where)
    series, folded = take_front(as_series(graph, where), front, arrays, where)
    size = _choose_size(front, height_width, where)
    input_spec = front.spec(size)
    version = file.about.get("keras_version") or ("2" if file.format == "keras h5" else "3")
    is_before_3 = not str(version).startswith("3")
    made = _Maker(where, is_before_3).series(series, input_spec.network_shape)
    layers, gives = _without_end(made)
    spec = Sequential(tuple(layers))
    num_outputs = _count_outputs(spec, input_spec.network_shape, where)
    if strays:
        got = f"{counted(len(strays), 'array')} of no layer ({', '.join(strays[:3])[:200]})"
        raise InputError(problem(where, got, "arrays of the model's layers", "Save the model again by Keras."))
    notes = [*file.notes, *front.notes, *_notes(graph, front, gives)]
    kept = {name: array for name, array in arrays.items() if name not in folded}
    return KerasModel(spec, kept, input_spec, num_outputs, front.is_scaled, front.augment, gives, tuple(notes))


class _Maker:
    """Nodes → layers, with the shape that comes to each."""

    def __init__(self, where: str, is_before_3: bool):
        self.where, self.is_before_3 = where, is_before_3

    def series(self, series: tuple[Node | Join, ...], shape: Shape) -> list[Layer]:
        """Our layers for a series, whose input has that shape."""
        layers: list[Layer] = []
        for part in _with_kept_axes(series):
            for layer in self.join(part, shape) if isinstance(part, Join) else self.layer(part, shape):
                layers.append(layer)
                shape = self.after(part, layer, shape)
        return layers

    def layer(self, node: Node, shape: Shape) -> list[Layer]:
        """Our layers for one."""
        return convert(Given(node.kind, node.config, node.name, shape, self.is_before_3, self.where))

    def join(self, part: Join, shape: Shape) -> list[Layer]:
        """A block for paths that join."""
        node = part.node
        if node.kind not in JOINS:
            got = f"layer {node.name[:80]!r} ({node.kind[:80]}) of {len(node.inputs)} inputs"
            remedy = "Build such a model in a class of your own."
            raise InputError(problem(self.where, got, f"one of {', '.join(JOINS)}", remedy))
        if node.kind == "Concatenate" and node.config.get("axis", -1) not in (-1, len(shape)):
            got = f"layer {node.name[:80]!r} that joins along axis {shown(node.config.get('axis'))}"
            raise InputError(problem(self.where, got, "the axis of channels, the last", "Write a layer of your own."))
        paths = tuple(tuple(self.series(path, shape)) for path in part.paths)
        return [Paths(paths, JOINS[node.kind], name=layer_name(node.name))]  # type: ignore[arg-type]

    def after(self, part: Node | Join, layer: Layer, shape: Shape) -> Shape:
        """The shape that comes out of a layer."""
        try:
            return layer.output_shape(shape)
        except InputError as error:
            node = part.node if isinstance(part, Join) else part
            remedy = "Save the model again, or build it in engine.models."
            got = f"layer {node.name[:80]!r} ({node.kind[:80]}): {error}"
            raise InputError(problem(self.where, got, "layers that fit each other", remedy)) from None


def _with_kept_axes(series: tuple[Node | Join, ...]) -> Iterator[Node | Join]:
    """The series with global pools that keep their axes in place of a reshape of their outputs to (1, 1, c)."""
    rest = list(series)
    for number, part in enumerate(rest):
        after = rest[number + 1] if number + 1 < len(rest) else None
        if isinstance(part, Node) and isinstance(after, Node) and part.kind in GLOBAL_POOLS and _is_pixel(after):
            yield part._replace(config={**part.config, "keepdims": True})
        elif not (number and isinstance(part, Node) and _is_pixel(part) and _kind(rest[number - 1]) in GLOBAL_POOLS):
            yield part


def _kind(part: Node | Join) -> str | None:
    return part.kind if isinstance(part, Node) else None


def _is_pixel(node: Node) -> bool:
    """Whether it reshapes to an image of one pixel."""
    target = node.config.get("target_shape")
    return node.kind == "Reshape" and isinstance(target, list) and len(target) == 3 and target[:2] == [1, 1]


def _by_layer(file: WeightsFile, graph: Graph) -> tuple[dict[str, np.ndarray], list[str]]:
    """(the file's arrays by our names of layers, those of no layer). The nodes of the graph get these names."""
    names, by_stored = set[str](), dict[str, Node]()
    for at, node in enumerate(graph.nodes):
        stored = node.key if file.is_by_order else node.name
        if node.kind in WEIGHTED and stored in by_stored:
            got, remedy = f"two layers called {stored[:80]!r}", "Give them names of their own, and save it again."
            raise InputError(problem(str(file.path), got, "one of its own for each layer with weights", remedy))
        again = (f"{node.name[:70]}_{number}" for number in count(2))
        name = next(name for name in map(layer_name, chain([node.name], again)) if name not in names)
        names.add(name)
        graph.nodes[at] = node._replace(config={**node.config, "name": name})
        if node.kind in WEIGHTED:
            by_stored[stored] = graph.nodes[at]
    found, strays = dict[str, np.ndarray](), []
    for name, array in file.arrays.items():
        layer, _, variable = name.rpartition("/")
        if (node := by_stored.get(layer)) is None:
            strays.append(name)
            continue
        is_unscaled = node.config.get("center") is False and node.config.get("scale") is not False
        if file.format != "keras h5" and is_unscaled and variable == "beta":
            variable = "gamma"  # the one of both that is there
        found[f"{node.name}/{variable}"] = array
    return found, strays


def _read_input(node: Node, where: str) -> Front:
    shape = node.config.get("batch_shape") or node.config.get("batch_input_shape")
    if not isinstance(shape, list) or len(shape) != 4:
        rule, remedy = "images [batch, height, width, channels]", "Build the model in engine.models."
        raise InputError(problem(where, f"inputs of shape {shown(shape)}", rule, remedy))
    height, width, channels = shape[1:]
    if not all(size is None or (type(size) is int and 0 < size < 2**16) for size in shape[1:]) or channels is None:
        rule = "sizes that are known, or None for height and width"
        raise InputError(problem(where, f"inputs of shape {shown(shape)}", rule, "Save it with an input shape."))
    return Front((height, width) if height and width else None, channels)


def _choose_size(front: Front, given: tuple[int, int] | None, where: str) -> tuple[int, int]:
    if front.size is None and given is None:
        rule, remedy = "a height and width", "Give --data.image-size, that which the model was trained with."
        raise InputError(problem(where, "a model for images of any size", rule, remedy))
    if given is not None and front.size not in (None, given):
        rule = f"{front.size[0]}×{front.size[1]}, which the model says" if front.size else ""
        raise InputError(problem("image_size", f"{given[0]}×{given[1]}", rule, "Leave it out."))
    return given or front.size  # type: ignore[return-value]


def _without_end(layers: list[Layer]) -> tuple[list[Layer], str | None]:
    """(the layers without a final softmax or sigmoid, which it was)."""
    last = layers[-1] if layers else None
    activation = last if isinstance(last, Activation) else getattr(last, "activation", None)
    function = getattr(activation, "function", None)
    if last is None or function not in AT_THE_END:
        return layers, None
    plain = last.without_activation()
    return [*layers[:-1], *([] if plain is None else [plain])], str(function)


def _count_outputs(spec: Sequential, shape: Shape, where: str) -> int:
    outputs = spec.output_shape(shape)
    if len(outputs) != 1:
        rule, remedy = "a vector of class scores", "Put GlobalAveragePooling2D or Flatten and Dense at its end."
        raise InputError(problem(where, f"outputs of shape {outputs}", rule, remedy))
    return outputs[0]


def _notes(graph: Graph, front: Front, gives: str | None) -> list[str]:
    frozen = sum(node.config.get("trainable") is False for node in graph.nodes)
    narrow = sorted({str(policy) for node in graph.nodes if (policy := _policy(node)) not in (None, "float32")})
    return [
        *(
            []
            if front.is_scaled
            else ["the model normalises nothing: pixels go in as 0 to 255, unless you say otherwise"]
        ),
        f"its final {gives} left out: outputs are logits" if gives else AS_LOGITS,
        *([f"{frozen} layers were frozen, which is not carried over"] if frozen else []),
        *([f"computed in float32, not {', '.join(narrow)}"] if narrow else []),
    ]


def _policy(node: Node) -> Any:
    dtype: Any = node.config.get("dtype")
    while isinstance(dtype, dict):
        dtype = (dtype.get("config") or {}).get("name") if isinstance(dtype.get("config"), dict) else None
    return dtype if isinstance(dtype, str) else None

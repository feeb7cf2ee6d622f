"""Configs of Keras models, Sequential or Functional, as one graph of layers.

Keras 2 and 3 write inbound nodes in different ways; models within models are flattened. Nothing in a config is looked
up or called but by the tables of `keras_layers`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.errors import InputError, problem
from engine.host.json_files import shown

MODELS = ("Sequential", "Functional", "Model")
JOINS = {"Add": "add", "Concatenate": "concat", "Multiply": "multiply"}
ARITHMETIC: dict[str, Callable[[float], dict[str, float]]] = {
    "Add": lambda number: {"scale": 1.0, "offset": number},
    "Subtract": lambda number: {"scale": 1.0, "offset": -number},
    "Multiply": lambda number: {"scale": number, "offset": 0.0},
    "Divide": lambda number: {"scale": 1 / (number or 1e-300), "offset": 0.0},
    "TrueDivide": lambda number: {"scale": 1 / (number or 1e-300), "offset": 0.0},
}
"""Operations on a tensor and a number, as `x / 255` is stored, as settings of a Rescaling."""
MOST_NODES = 5_000
MOST_DEPTH = 8


class Node(NamedTuple):
    """A layer as it is used: its class and config, and the numbers of the nodes whose outputs come in.

    key: where the `.keras` format keeps its weights: class names and counts, of the models that it is in and its own.
    """

    kind: str
    config: dict[str, Any]
    inputs: tuple[int, ...]
    key: str

    @property
    def name(self) -> str:
        """What Keras calls the layer."""
        return str(self.config.get("name"))


@dataclass
class Graph:
    """All layers of a model, inputs before outputs. input, output: their numbers."""

    nodes: list[Node] = field(default_factory=list)
    input: int = -1
    output: int = -1


def read_graph(model_config: Any, where: str) -> Graph:
    """The graph of a model's config. Raises InputError, with `where` before it, if it is no graph of one input and one
    output whose layers are each used once."""
    graph = Graph()
    reader = _Reader(graph, where)
    outputs = reader.model(_expect(model_config, where), (), "", 0)
    if graph.input < 0:
        raise reader.refused("a model without an input layer", "one whose input shape is known")
    graph.output = outputs
    return graph


def snake_case(name: str) -> str:
    """`conv2d`, `depthwise_conv2d`, `p_re_lu`: as Keras derives names from classes (keras/src/utils/naming.py)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _expect(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str):
        raise InputError(problem(where, shown(value), "the config of a Keras model", "Save the model again by Keras."))
    return value


class _Reader:
    def __init__(self, graph: Graph, where: str):
        self.graph, self.where = graph, where

    def refused(
        self, got: str, rule: str, remedy: str = "Build such a model in engine.models, and train it."
    ) -> InputError:
        return InputError(problem(self.where, got[:300], rule, remedy))

    def model(self, given: dict[str, Any], inputs: tuple[int, ...], key: str, depth: int) -> int:
        """Adds a model's layers; the number of its output. inputs: what comes into it; none of the outermost."""
        if given["class_name"] not in MODELS:
            rule = f"a model of the kinds {', '.join(MODELS)}"
            raise self.refused(f"a model of the class {given['class_name']!r}, whose layers are in its code", rule)
        if depth > MOST_DEPTH:
            raise self.refused(f"models more than {MOST_DEPTH} deep in each other", "fewer")
        stored = given.get("config")
        config = {"layers": stored} if isinstance(stored, list) else stored if isinstance(stored, dict) else {}
        layers = config.get("layers")  # a list alone, before Keras 2.2
        if not isinstance(layers, list) or not layers:
            raise self.refused("a model without layers", "a model of layers")
        entries = [_expect(entry, self.where) for entry in layers]
        keys = list(_keys(entries, key))
        if given["class_name"] == "Sequential":
            return self.sequence(entries, keys, inputs, config.get("build_input_shape"), depth)
        return self.functional(config, entries, keys, inputs, depth)

    def sequence(
        self, entries: list[dict], keys: list[str], inputs: tuple[int, ...], build_shape: Any, depth: int
    ) -> int:
        at = inputs[0] if inputs else None
        for entry, key in zip(entries, keys, strict=True):
            config = _config(entry)
            if entry["class_name"] == "InputLayer":
                at = self.input(config, key) if at is None else at
                continue
            if at is None:
                shape = config.get("batch_input_shape") or config.get("batch_shape") or build_shape
                inner = entry["class_name"] in MODELS
                at = None if inner and not shape else self.input({"batch_shape": shape, "name": "input"}, "input")
            at = self.layer(entry, key, () if at is None else (at,), depth)
        if at is None:
            raise self.refused("a model without layers", "a model of layers")
        return at

    def functional(
        self, config: dict[str, Any], entries: list[dict], keys: list[str], inputs: tuple[int, ...], depth: int
    ) -> int:
        by_name = {_name(entry): (entry, key) for entry, key in zip(entries, keys, strict=True)}
        ins, outs = (_ends(config.get(name)) for name in ("input_layers", "output_layers"))
        if len(ins) != 1 or len(outs) != 1:
            raise self.refused(f"{len(ins)} inputs and {len(outs)} outputs", "one of each")
        done: dict[str, int] = {}
        for name in _in_order(by_name, outs[0], self):
            entry, key = by_name[name]
            calls = entry.get("inbound_nodes") or []
            if entry["class_name"] == "InputLayer":
                done[name] = inputs[0] if inputs else self.input(_config(entry), key)
                continue
            if len(calls) > 1:
                raise self.refused(f"layer {name!r}, which is used {len(calls)} times", "layers that are used once")
            sources = tuple(done[source] for source in _sources(calls[0]))
            done[name] = self.layer(self.with_constants(entry, calls[0], len(sources)), key, sources, depth)
        return done[outs[0]]

    def with_constants(self, entry: dict[str, Any], call: Any, num_sources: int) -> dict[str, Any]:
        """The entry of a layer that is called with numbers beside its input: `x / 255` becomes a Rescaling."""
        given = _constants(call)
        if not given:
            return entry
        read = ARITHMETIC.get(entry["class_name"])
        number = given[0][1] if len(given) == 1 and num_sources == 1 else None
        if read is None or not isinstance(number, (int, float)) or not (given[0][0] or entry["class_name"] in JOINS):
            got = f"layer {_name(entry)!r} ({entry['class_name']}), called with {shown([value for _, value in given])}"
            raise self.refused(got, "layers that are called with their inputs alone")
        return {"class_name": "Rescaling", "config": {"name": _name(entry), **read(number)}}

    def input(self, config: dict[str, Any], key: str) -> int:
        if self.graph.input >= 0:
            raise self.refused("more than one input", "one")
        self.graph.input = self.add(Node("InputLayer", config, (), key))
        return self.graph.input

    def layer(self, entry: dict[str, Any], key: str, inputs: tuple[int, ...], depth: int) -> int:
        module = entry.get("module")
        if not (module is None or module == "keras" or str(module).startswith("keras.")):
            got = f"layer {_name(entry)!r} of the class {module}.{entry['class_name']}, which runs code of its own"
            raise self.refused(got, "layers of Keras", "Replace it by layers of Keras, or write a layer of your own.")
        if entry["class_name"] in MODELS:
            if len(inputs) > 1:
                raise self.refused(f"model {_name(entry)!r} with {len(inputs)} inputs", "models of one input")
            return self.model(entry, inputs, key, depth + 1)
        return self.add(Node(entry["class_name"], _config(entry), inputs, key))

    def add(self, node: Node) -> int:
        if len(self.graph.nodes) >= MOST_NODES:
            raise self.refused(f"more than {MOST_NODES:,} layers", "fewer")
        self.graph.nodes.append(node)
        return len(self.graph.nodes) - 1


def _config(entry: dict[str, Any]) -> dict[str, Any]:
    config = entry.get("config")
    return config if isinstance(config, dict) else {}


def _name(entry: dict[str, Any]) -> str:
    return str(entry.get("name") or _config(entry).get("name"))


def _keys(entries: list[dict[str, Any]], key: str) -> Iterator[str]:
    """Where a `.keras` file keeps the weights of each layer: `conv2d`, `conv2d_1`, below those of the model."""
    counts: dict[str, int] = {}
    for entry in entries:
        name = snake_case(entry["class_name"])
        number = counts[name] = counts.get(name, -1) + 1
        own = f"{name}_{number}" if number else name
        yield f"{key}/{own}" if key else own


def _ends(given: Any) -> list[str]:
    """Names of layers from `[["a", 0, 0]]` (Keras 2) or `["a", 0, 0]` (Keras 3)."""
    if not isinstance(given, list) or not given:
        return []
    each = [given] if isinstance(given[0], str) else given
    return [str(one[0]) for one in each if isinstance(one, list) and one]


def _sources(call: Any) -> list[str]:
    """Names of the layers whose outputs a call takes, in order."""
    if isinstance(call, dict):
        return list(_tensors([call.get("args"), call.get("kwargs")]))
    return [str(one[0]) for one in call if isinstance(one, list) and one] if isinstance(call, list) else []


def _constants(call: Any) -> list[tuple[bool, Any]]:
    """(whether it comes after the input, value) of all that a call takes besides tensors, switches and nothing."""
    if isinstance(call, dict):
        args, kwargs = (call.get(name) or given for name, given in (("args", []), ("kwargs", {})))
        whole = [*enumerate(args if isinstance(args, list) else [args]), *((0, one) for one in _values(kwargs))]
    else:
        whole = [(0, value) for one in call if isinstance(one, list) for more in one[3:4] for value in _values(more)]
    return [(at > 0, one) for at, one in whole if not (one is None or isinstance(one, bool) or any(_tensors(one)))]


def _values(kwargs: Any) -> list[Any]:
    return list(kwargs.values()) if isinstance(kwargs, dict) else [kwargs]


def _tensors(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            history = (value.get("config") or {}).get("keras_history")
            yield str(history[0]) if isinstance(history, list) and history else ""
        else:
            for inner in value.values():
                yield from _tensors(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _tensors(inner)


def _in_order(by_name: dict[str, Any], output: str, reader: _Reader) -> list[str]:
    """The names that the output depends on, each after those that it depends on."""
    order: list[str] = []
    state: dict[str, bool] = {}  # False: being looked at; True: done
    stack = [(output, False)]
    while stack:
        name, is_done = stack.pop()
        if is_done:
            state[name] = True
            order.append(name)
            continue
        if name in state:
            if not state[name]:
                raise reader.refused(f"layer {name!r} that depends on itself", "a graph without circles")
            continue
        if name not in by_name:
            raise reader.refused(f"an input {name!r} that is no layer of the model", "the name of a layer")
        state[name] = False
        entry, _ = by_name[name]
        calls = entry.get("inbound_nodes")
        sources = _sources(calls[0]) if isinstance(calls, list) and calls else []
        if entry["class_name"] != "InputLayer" and not sources:
            raise reader.refused(f"layer {name!r} without an input", "a layer with one")
        stack.append((name, True))
        stack += [(source, False) for source in sources if not state.get(source)]
    return order

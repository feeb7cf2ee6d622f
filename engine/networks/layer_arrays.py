"""The arrays of a model by layer and name, as numpy sees them; and a model or one layer applied to an array."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from engine.errors import InputError, problem, shape_text, unknown
from engine.models.layer import Layer
from engine.models.shapes import Shape
from engine.models.specs import Model, Sequential
from engine.networks.build import SequentialModule
from engine.networks.layer_names import Layers, layers_of
from engine.records.custom import Custom

Tree = Any
Weights = Mapping[str, Mapping[str, Any]]


def read_arrays(layers: Layers, *trees: Tree) -> dict[str, dict[str, np.ndarray]]:
    """Copies of all arrays of a model, of parameters and of statistics: {"conv_1": {"kernel": …, "bias": …}, …}."""
    found = dict[str, dict[str, np.ndarray]]()
    for layer, name, leaf in (each for tree in trees for each in _named(layers, tree)):
        found.setdefault(layer, {})[name] = np.array(leaf)
    return {name: found[name] for name in sorted(found, key=_order(layers))}


def write_arrays(layers: Layers, weights: Weights, *trees: Tree) -> list[Tree]:
    """The trees with other arrays in some places; raises InputError for layers, names and shapes that are not there."""
    known = dict[str, dict[str, Any]]()
    for layer, name, leaf in (each for tree in trees for each in _named(layers, tree)):
        known.setdefault(layer, {})[name] = leaf
    for layer, arrays in _mapping("weights", weights).items():
        if layer not in known:
            raise InputError(unknown("weights", layer, known))
        _mapping(f"weights of {layer}", arrays)
        for name, array in arrays.items():
            if name not in known[layer]:
                raise InputError(unknown(f"weights of {layer}", name, known[layer]))
            _check_array(f"{layer} {name}", array, known[layer][name].shape)

    def replaced(path: Any, leaf: Any) -> Any:
        layer, *rest = layers.parts(path)
        array = weights.get(layer, {}).get(".".join(map(str, rest)))
        return leaf if array is None else jnp.asarray(np.asarray(array), leaf.dtype)

    return [
        nnx.from_flat_state([(path, replaced(path, leaf)) for path, leaf in nnx.to_flat_state(tree)]) for tree in trees
    ]


def apply(model: Model | Layer, inputs: Any, weights: Mapping[str, Any] | None = None, seed: int = 0) -> np.ndarray:
    """float32[b …]: what a model, or a single layer, makes of an array [b …], as in evaluation.

    weights: of a layer by name, {"kernel": …, "bias": …}; of a model by layer, as `classifier.get_weights()` gives
      them. The others are as at the start of a run, drawn by `seed`.
    Raises InputError for inputs and weights that do not fit.
    """
    spec = Sequential((model,)) if isinstance(model, Layer) else model
    if not isinstance(spec, Sequential):
        got = f"{spec.path}, a class of its author's own" if isinstance(spec, Custom) else type(model).__name__
        raise InputError(problem("model", got, "a model of layers, or a layer like Conv(32)", "Pass one of these."))
    array = np.asarray(inputs)
    if array.ndim < 2 or array.dtype.kind not in "biuf":
        got = f"{array.dtype.name} of {shape_text(array.shape) or 'no axes'}"
        raise InputError(
            problem("inputs", got, "numbers [b …], as many examples as you like", "Add an axis: array[None].")
        )
    module = SequentialModule(spec, array.shape[1:], nnx.Rngs(seed))
    layers = layers_of(spec, module)
    given = {layers.names[0]: weights} if isinstance(model, Layer) and weights and layers.names else weights or {}
    if given:
        graph, arrays, rest = nnx.split(module, (nnx.Param, nnx.BatchStat), ...)
        module = nnx.merge(graph, write_arrays(layers, given, nnx.as_pure(arrays))[0], rest)
    module.eval()
    return np.asarray(module(jnp.asarray(array, jnp.float32)))  # type: ignore[operator]


def _named(layers: Layers, tree: Tree) -> list[tuple[str, str, Any]]:
    """(layer, name within it, array) of all arrays of a tree."""
    parts = [(layers.parts(path), leaf) for path, leaf in nnx.to_flat_state(tree)]
    return [(layer, ".".join(map(str, rest)), leaf) for (layer, *rest), leaf in parts]


def _order(layers: Layers) -> Any:
    places = {name: number for number, name in enumerate(layers.names)}
    return lambda name: places.get(name, len(places))


def _mapping(name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        rule = 'arrays by name, like {"conv_1": {"kernel": array}}'
        raise InputError(problem(name, type(given).__name__, rule, "Change those of classifier.get_weights()."))
    return given


def _check_array(name: str, array: Any, shape: Shape) -> None:
    given = np.asarray(array)
    if given.shape != tuple(shape):
        remedy = "Give an array of that shape."
        raise InputError(problem(name, f"an array {given.shape}", f"{tuple(shape)}", remedy))
    if given.dtype.kind not in "biuf":
        raise InputError(problem(name, given.dtype.name, "real numbers", "Convert them."))
    if not np.isfinite(given).all() or (np.abs(given) > np.finfo(np.float32).max).any():
        raise InputError(problem(name, "numbers that are not finite as float32", "finite numbers", "Correct them."))

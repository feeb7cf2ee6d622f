"""What a layer inside a model gives: a Sequential run up to there, or a submodule of a class in a forward pass."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine.checkpoints.record import Record
from engine.config import Lowering
from engine.errors import InputError, problem, unknown
from engine.models.specs import Model
from engine.networks.build import build
from engine.networks.network import Network, NetworkPart, Tree, Whitened, network_of
from engine.records.custom import Gives

LayerPath = tuple[str | int, ...]


class Tapped(nnx.Module):
    """A module that gives what one of its submodules gives; what comes after that is left out by the compiler."""

    def __init__(self, module: nnx.Module, layer: str, path: LayerPath):
        self.module, self.layer, self.path = module, layer, path

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b …] of the layer, its activation included; raises InputError if it does not give one array once."""
        given = call_tapped(self.module, self.path, x, lambda outputs: outputs)[1]
        if len(given) != 1 or not isinstance(given[0], jax.Array) or given[0].shape[:1] != x.shape[:1]:
            what = f"which gives {_kind(given[0])}" if len(given) == 1 else f"called {len(given)} times"
            rule = "a layer that is called once and gives one array [b …]"
            raise InputError(problem("layer", f"{self.layer!r}, {what}", rule, "Name another, like the one around it."))
        return given[0]


class Shifted(nnx.Module):
    """A module with an array added to what one of its submodules gives, whose gradient is thus that of the layer."""

    def __init__(self, module: nnx.Module, path: LayerPath):
        self.module, self.path = module, path
        self.shift = nnx.Variable(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b k]."""
        shift = self.shift[...]
        return call_tapped(self.module, self.path, x, lambda outputs: outputs + shift.astype(outputs.dtype))[0]


def call_tapped(module: Any, path: LayerPath, x: jax.Array, change: Callable[[Any], Any]) -> tuple[Any, list[Any]]:
    """(what a module gives, what its submodule at a path gave in each call), that changed before others receive it."""
    tapped, given = module, []
    for part in path:
        tapped = tapped[part] if isinstance(part, int) else getattr(tapped, part)
    plain = type(tapped)

    class Recording(plain):
        def __call__(self, *arguments: Any, **named: Any) -> Any:
            given.append(change(super().__call__(*arguments, **named)))
            return given[-1]

    # The class of this one instance, and not a method of the class, which other threads use at the same time.
    object.__setattr__(tapped, "__class__", Recording)
    try:
        return module(x), given
    finally:
        object.__setattr__(tapped, "__class__", plain)


def make_layer_function(record: Record, layer: str, lowering: Lowering) -> Callable[[Tree, Tree, jax.Array], jax.Array]:
    """(params, model state, inputs [b …] as the model is shown them) → float32[b …], what the layer gives.

    Raises InputError for a name that the model does not have, listing those it has.
    """
    spec, model, precision = record.input_spec, record.config.model, record.config.train.precision
    of_inputs = spec.network_shape, record.num_outputs, lowering
    if model.is_layered:
        part = NetworkPart(end=number_of(model, layer) + 1)
        network, _ = network_of(model, *of_inputs, spec.whiten, precision, part)
        return lambda params, model_state, inputs: network.apply(params, model_state, inputs, None, None)[0]

    apply = wrapped_network(record, lowering, lambda module: Tapped(module, layer, path_of(module, layer)))

    def features(params: Tree, model_state: Tree, inputs: jax.Array) -> jax.Array:
        try:
            # Copied, which the compiler does not do: a value that belongs to an inner transformation shows itself here.
            return jnp.copy(apply(params, model_state, inputs))
        except jax.errors.UnexpectedTracerError:
            rule = "a layer outside of vmap, scan and the like"
            raise InputError(problem("layer", repr(layer), rule, "Name the one around it.")) from None

    return features


def wrapped_network(
    record: Record, lowering: Lowering, wrap: Callable[[Any], nnx.Module], gives: Gives = "logits"
) -> Callable[..., jax.Array]:
    """(params, model state, inputs [b …], more state by name) → float32[b …]: what a module around the model gives.

    wrap: makes it of the model's module, which it keeps as `module`. gives: what its outputs are.
    """
    spec, model, train = record.input_spec, record.config.model, record.config.train

    def make() -> nnx.Module:
        return wrap(build(model, spec.network_shape, record.num_outputs, nnx.Rngs(0), lowering))

    inner = Network(nnx.eval_shape(make), train.precision, gives=gives)
    network = Whitened(inner) if spec.whiten else inner

    def apply(params: Tree, model_state: Tree, inputs: jax.Array, **more: jax.Array) -> jax.Array:
        own = _inside(model_state[1] if spec.whiten else model_state, **more)
        state = (model_state[0], own) if spec.whiten else own
        return network.apply(_inside(params), state, inputs, None, None)[0]

    return apply


def number_of(model: Model, layer: str) -> int:
    """Which of its layers one is, counted from 0, by its name or that of its activation; InputError for others."""
    rows = (each for each in model.named if not each.depth)
    numbers = {name: each.position[0] for each in rows for name in (each.name, *each.also)}
    _check_known(layer, numbers)
    return numbers[layer]


def path_of(module: nnx.Module, layer: str) -> LayerPath:
    """Where a submodule lies in a module of the user's own, by its dotted name; raises InputError for others."""
    paths = layer_paths(module)
    _check_known(layer, paths)
    return paths[layer]


def layer_paths(module: nnx.Module) -> dict[str, LayerPath]:
    """Where each callable submodule of a module lies in it, by a dotted name."""
    found = {path: node for path, node in nnx.iter_graph(module) if path and isinstance(node, nnx.Module)}
    calls = sorted((tuple[Any, ...](path) for path, node in found.items() if callable(node)), key=str)
    return {".".join(map(str, path)): path for path in calls}


def _check_known(layer: str, names: Collection[str]) -> None:
    if layer not in names:
        raise InputError(unknown("layer", layer, names))


def _inside(tree: Tree, **more: jax.Array) -> Tree:
    """A module's arrays in the place where Tapped and the like have them, and more beside them."""
    return nnx.State(({"module": tree.raw_mapping} if jax.tree.leaves(tree) else {}) | more)


def _kind(value: object) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, jax.Array) else type(value).__name__

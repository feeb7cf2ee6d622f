"""What a layer inside a model gives: a Sequential run up to there, or a submodule of a class in a forward pass."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine.checkpoints.record import Record
from engine.config import Lowering
from engine.errors import InputError, problem, unknown
from engine.networks.build import build
from engine.networks.network import Network, NetworkPart, Tree, Whitened, network_of

LayerPath = tuple[str | int, ...]


class Tapped(nnx.Module):
    """A module that gives what one of its submodules gives; what comes after that is left out by the compiler."""

    def __init__(self, module: nnx.Module, layer: str, path: LayerPath):
        self.module, self.layer, self.path = module, layer, path

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b …] of the layer, its activation included; raises InputError if it does not give one array once."""
        tapped, given = self.module, []
        for part in self.path:
            tapped = tapped[part] if isinstance(part, int) else getattr(tapped, part)  # type: ignore[index]
        plain = type(tapped)

        class Recording(plain):  # type: ignore[misc]
            def __call__(self, *arguments: Any, **named: Any) -> Any:
                given.append(super().__call__(*arguments, **named))
                return given[-1]

        # The class of this one instance, and not a method of the class, which other threads use at the same time.
        object.__setattr__(tapped, "__class__", Recording)
        try:
            self.module(x)  # type: ignore[operator]
        finally:
            object.__setattr__(tapped, "__class__", plain)
        if len(given) != 1 or not isinstance(given[0], jax.Array) or given[0].shape[:1] != x.shape[:1]:
            what = f"which gives {_kind(given[0])}" if len(given) == 1 else f"called {len(given)} times"
            rule = "a layer that is called once and gives one array [b …]"
            raise InputError(problem("layer", f"{self.layer!r}, {what}", rule, "Name another, like the one around it."))
        return given[0]


def make_layer_function(record: Record, layer: str, lowering: Lowering) -> Callable[[Tree, Tree, jax.Array], jax.Array]:
    """(params, model state, inputs [b …] as the model is shown them) → float32[b …], what the layer gives.

    Raises InputError for a name that the model does not have, listing those it has.
    """
    spec, model, precision = record.input_spec, record.config.model, record.config.train.precision
    of_inputs = spec.network_shape, record.num_outputs, lowering
    if model.is_layered:
        rows = (each for each in model.named if not each.depth)
        numbers = {name: each.position[0] for each in rows for name in (each.name, *each.also)}
        _check_known(layer, numbers)
        part = NetworkPart(end=numbers[layer] + 1)
        network, _ = network_of(model, *of_inputs, spec.whiten, precision, part)
        return lambda params, model_state, inputs: network.apply(params, model_state, inputs, None, None)[0]

    def make() -> nnx.Module:
        return build(model, spec.network_shape, record.num_outputs, nnx.Rngs(0), lowering)

    paths = layer_paths(nnx.eval_shape(make))
    _check_known(layer, paths)
    inner = Network(nnx.eval_shape(lambda: Tapped(make(), layer, paths[layer])), precision)
    network = Whitened(inner) if spec.whiten else inner

    def features(params: Tree, model_state: Tree, inputs: jax.Array) -> jax.Array:
        state = (model_state[0], _inside(model_state[1])) if spec.whiten else _inside(model_state)
        try:
            # Copied, which the compiler does not do: a value that belongs to an inner transformation shows itself here.
            return jnp.copy(network.apply(_inside(params), state, inputs, None, None)[0])
        except jax.errors.UnexpectedTracerError:
            rule = "a layer outside of vmap, scan and the like"
            raise InputError(problem("layer", repr(layer), rule, "Name the one around it.")) from None

    return features


def layer_paths(module: nnx.Module) -> dict[str, LayerPath]:
    """Where each callable submodule of a module lies in it, by a dotted name."""
    found = {path: node for path, node in nnx.iter_graph(module) if path and isinstance(node, nnx.Module)}
    calls = sorted((tuple[Any, ...](path) for path, node in found.items() if callable(node)), key=str)
    return {".".join(map(str, path)): path for path in calls}


def _check_known(layer: str, names: Collection[str]) -> None:
    if layer not in names:
        raise InputError(unknown("layer", layer, names))


def _inside(tree: Tree) -> Tree:
    """A module's arrays in the place where Tapped has them."""
    return nnx.State({"module": tree.raw_mapping} if jax.tree.leaves(tree) else {})


def _kind(value: object) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, jax.Array) else type(value).__name__

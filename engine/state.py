"""TrainState: the one pytree a run carries; and Network: the static rest of an NNX module, split off once."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from engine.config import Lowering, Precision
from engine.keys import stream_key
from engine.models.build import build, takes_mask
from engine.models.ensemble import Ensemble
from engine.models.specs import Model
from engine.precision import products_in, rounded

Tree = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Arrays only: steps done, trained parameters, other model state (batch statistics), optimizer state.

    Keys of random streams are no part of it: they are functions of (seed, stream, step).
    """

    step: jax.Array
    params: Tree
    model_state: Tree
    opt_state: Tree


class Network:
    """An NNX module as a pure function of its arrays, computed in a precision; what comes out is float32."""

    def __init__(self, module: nnx.Module, precision: Precision = "float32"):
        self._precision: Precision = precision
        self._graph, _, self._streams, _ = _split(module)
        self._tags = sorted({leaf.tag for leaf in _rng_keys(module)})
        self._takes_mask = takes_mask(module)

    def apply(
        self,
        params: Tree,
        model_state: Tree,
        inputs: jax.Array,
        mask: jax.Array | None,
        key: jax.Array | None,
    ) -> tuple[jax.Array, Tree]:
        """(outputs [b k], new model state) for inputs [b …]; training mode with a key for dropout, else evaluation."""
        params, inputs = rounded((params, inputs), self._precision)
        module = nnx.merge(self._graph, params, self._streams, model_state, copy=True)
        if key is None:
            module.eval()
        else:
            module.train()
            keys: dict[str, Any] = {tag: jax.random.fold_in(key, i) for i, tag in enumerate(self._tags)}
            nnx.reseed(module, **keys)
        call: Callable[..., jax.Array] = module  # type: ignore[assignment]
        with products_in(self._precision):
            outputs = call(inputs, mask=mask) if self._takes_mask and mask is not None else call(inputs)
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), _split(module)[3], model_state)
        return outputs.astype(jnp.float32), after


class Whitened:
    """A network that is shown `(inputs − mean) @ matrix`; its state is ((mean, matrix), that of the inner network)."""

    def __init__(self, network: Network):
        self.network = network

    def apply(
        self, params: Tree, model_state: Tree, inputs: jax.Array, mask: jax.Array | None, key: jax.Array | None
    ) -> tuple[jax.Array, Tree]:
        """As Network.apply."""
        (mean, matrix), inner_state = model_state
        flat = inputs.reshape(len(inputs), -1) - mean[None]  # [b h w c] → [b d]
        white = jnp.matmul(flat, matrix, precision="highest").reshape(inputs.shape)  # [b d] → [b h w c]
        outputs, inner_state = self.network.apply(params, inner_state, white, mask, key)
        return outputs, ((mean, matrix), inner_state)


AnyNetwork = Network | Whitened


def network_of(
    spec: Model,
    input_shape: tuple[int, ...],
    num_outputs: int,
    lowering: Lowering,
    whiten: bool = False,
    precision: Precision = "float32",
) -> tuple[AnyNetwork, Callable[[jax.Array], tuple[Tree, Tree]]]:
    """(network, init) of a spec; the traceable `init(seed)` gives fresh (params, model_state) as plain arrays.

    whiten: the network's state starts with a whitening of the inputs, which `init` leaves at 0, to be fitted.
    """

    def module_of(seed: jax.Array | int) -> nnx.Module:
        return build(spec, input_shape, num_outputs, nnx.Rngs(stream_key(seed, "init")), lowering)

    def init(seed: jax.Array) -> tuple[Tree, Tree]:
        _, params, _, model_state = _split(Ensemble(module_of, seed).members if seed.ndim else module_of(seed))
        members, size = seed.shape, prod(input_shape)
        empty = jnp.zeros((*members, size)), jnp.zeros((*members, size, size))
        return params, (empty, model_state) if whiten else model_state

    network = Network(nnx.eval_shape(lambda: module_of(0)), precision)
    return (Whitened(network) if whiten else network), init


def init_state(params: Tree, model_state: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params))


def num_params(params: Tree) -> int:
    """How many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _split(module: nnx.Module) -> tuple[Any, Tree, Tree, Tree]:
    graph, params, streams, model_state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graph, nnx.as_pure(params), nnx.as_pure(streams), nnx.as_pure(model_state)


def _rng_keys(module: nnx.Module) -> list[Any]:
    return [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.RngKey)]

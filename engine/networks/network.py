"""A model as pure functions of its arrays: the static rest of an NNX module, split off once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine.config import Lowering, Precision
from engine.config.contract import InputSpec
from engine.devices.precision import products_in, rounded
from engine.keys import stream_key
from engine.models.specs import Model
from engine.models.weights import shapes_only
from engine.networks.build import SequentialModule, build, takes_mask
from engine.networks.folding import fold, has_folded, run_in_parts
from engine.networks.layer_names import Layers, joined, layers_of
from engine.networks.stacked import SameKey, Stacked
from engine.records.custom import Gives, find_custom

Tree = Any


@dataclass(frozen=True)
class NetworkPart:
    """Which part of a network trains, and which is run.

    frozen: layers by name; their parameters are no parameters but state. None: the network has no such state.
    first, end: of a Sequential, the layers run, from that number (of 0) on and before that one.
    """

    frozen: frozenset[str] | None = None
    first: int = 0
    end: int | None = None


WHOLE = NetworkPart()


class Network:
    """An NNX module as a pure function of its arrays, computed in a precision; what comes out is float32.

    is_frozen: whether the module at a path runs as in evaluation even in training.
    num_still: of a Sequential so many first layers are frozen; nothing needs their gradients.
    """

    def __init__(
        self,
        module: nnx.Module,
        precision: Precision = "float32",
        is_frozen: Callable[[Any], bool] = lambda path: False,
        gives: Gives = "logits",
        num_still: int = 0,
    ):
        self._gives: Gives = gives
        self._num_still = num_still if precision == "float32" else 0
        self._folds = precision == "float32" and isinstance(module, SequentialModule)
        self._precision: Precision = precision
        self._is_frozen = is_frozen
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
            as_evaluated = {"deterministic": True, "use_running_average": True, "raise_if_not_found": False}
            module.set_attributes(lambda path, node: self._is_frozen(path), **as_evaluated)
        is_still = self._num_still > 0 and isinstance(module, SequentialModule)
        outputs = self._run(fold(module, self._num_still) if is_still else module, inputs, mask)
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), _split(module)[3], model_state)
        return outputs, after

    def _run(self, module: Any, inputs: jax.Array, mask: jax.Array | None) -> jax.Array:
        with products_in(self._precision):
            outputs = module(inputs, mask=mask) if self._takes_mask and mask is not None else module(inputs)
        return logits_of(outputs.astype(jnp.float32), self._gives)

    def make_prediction(self) -> "Prediction":
        """(weights, predict): `predict(weights(params, model_state), inputs)` is what `apply` gives in evaluation.

        The weights have batch norms folded into convolutions where that is faster; it is worth to make them once.
        """
        if not self._folds:
            return predictions_of(self)

        def folded(params: Tree, model_state: Tree) -> Tree:
            module = nnx.merge(self._graph, params, self._streams, model_state, copy=True)
            module.eval()
            *rest, arrays = nnx.split(fold(module), nnx.RngState, ...)
            rests.append(rest)  # its structure, and streams that are not drawn from
            return nnx.as_pure(arrays)

        def predict(weights: Tree, inputs: jax.Array) -> jax.Array:
            module = nnx.merge(*rests[-1], weights)
            run = partial(self._run, module, mask=None)
            return run_in_parts(run, inputs) if has_folded(module) else run(inputs)

        rests = list[Any]()
        return jax.jit(folded), predict


class Whitened:
    """A network that is shown `(inputs − mean) @ matrix`; its state is ((mean, matrix), that of the inner network).

    is_done: the inputs it is given are whitened already.
    """

    def __init__(self, network: Network, is_done: bool = False):
        self.network, self._is_done = network, is_done

    def apply(
        self, params: Tree, model_state: Tree, inputs: jax.Array, mask: jax.Array | None, key: jax.Array | None
    ) -> tuple[jax.Array, Tree]:
        """As Network.apply."""
        (mean, matrix), inner_state = model_state
        if not self._is_done:
            flat = inputs.reshape(inputs.shape[0], -1) - mean[None]  # [b h w c] → [b d]
            inputs = jnp.matmul(flat, matrix, precision="highest").reshape(inputs.shape)  # [b d] → [b h w c]
        outputs, inner_state = self.network.apply(params, inner_state, inputs, mask, key)
        return outputs, ((mean, matrix), inner_state)

    def make_prediction(self) -> "Prediction":
        """As Network.make_prediction; nothing is folded."""
        return predictions_of(self)


class PartlyFrozen:
    """A network some of whose parameters are state; its state is (these, that of the inner network)."""

    def __init__(self, network: Network | Whitened):
        self.network = network

    def apply(
        self, params: Tree, model_state: Tree, inputs: jax.Array, mask: jax.Array | None, key: jax.Array | None
    ) -> tuple[jax.Array, Tree]:
        """As Network.apply."""
        frozen, inner_state = model_state
        outputs, inner_state = self.network.apply(joined(params, frozen), inner_state, inputs, mask, key)
        return outputs, (frozen, inner_state)

    def make_prediction(self) -> "Prediction":
        """As Network.make_prediction; nothing is folded."""
        return predictions_of(self)


AnyNetwork = Network | Whitened | PartlyFrozen


Prediction = tuple[Callable[[Tree, Tree], Tree], Callable[[Tree, jax.Array], jax.Array]]


def predictions_of(network: AnyNetwork) -> Prediction:
    """As Network.make_prediction, without a change of weights."""

    def predict(weights: Tree, inputs: jax.Array) -> jax.Array:
        params, model_state = weights
        return network.apply(params, model_state, inputs, None, None)[0]

    return lambda params, model_state: (params, model_state), predict


def network_of(
    spec: Model,
    input_shape: tuple[int, ...],
    num_outputs: int,
    lowering: Lowering,
    whiten: bool = False,
    precision: Precision = "float32",
    part: NetworkPart = WHOLE,
) -> tuple[AnyNetwork, Callable[[jax.Array], tuple[Tree, Tree]]]:
    """(network, init) of a spec; the traceable `init(seed)` gives fresh (params, model_state) as plain arrays.

    whiten: the network's state starts with a whitening of the inputs, which `init` leaves at 0, to be fitted.
    part: what of the network trains and is run; `init` gives the arrays of all of it, none as frozen.
    """

    def module_of(seed: jax.Array | int) -> nnx.Module:
        return build(spec, input_shape, num_outputs, nnx.Rngs(stream_key(seed, "init")), lowering)

    def init(seed: jax.Array) -> tuple[Tree, Tree]:
        _, params, _, model_state = _split(Stacked(module_of, seed).members if seed.ndim else module_of(seed))
        members, size = seed.shape, prod(input_shape)
        empty = jnp.zeros((*members, size)), jnp.zeros((*members, size, size))
        return params, (empty, model_state) if whiten else model_state

    module = abstract_module(spec, input_shape, num_outputs, lowering)
    layers, frozen = layers_of(spec, module), part.frozen or frozenset()
    if part.first or part.end is not None:
        module.first, module.end = part.first, part.end  # type: ignore[attr-defined]
    num_still = max(0, layers.num_still(frozen) - part.first)
    network: AnyNetwork = Network(module, precision, lambda path: layers.of(path) in frozen, spec.gives, num_still)
    network = Whitened(network, part.first > 0) if whiten else network
    return (network if part.frozen is None else PartlyFrozen(network)), init


def logits_of(outputs: jax.Array, gives: Gives) -> jax.Array:
    """float32[b k]: the logits of outputs that are probabilities, up to what softmax leaves out; logits unchanged."""
    if gives == "softmax":
        return jnp.log(jnp.maximum(outputs, jnp.finfo(jnp.float32).tiny))
    if gives == "sigmoid":
        inside = jnp.clip(outputs, jnp.finfo(jnp.float32).tiny, 1 - jnp.finfo(jnp.float32).epsneg)
        return jnp.log(inside) - jnp.log1p(-inside)
    return outputs


def abstract_arrays(
    spec: Model, input_shape: tuple[int, ...], num_outputs: int, lowering: Lowering = "xla", whiten: bool = False
) -> tuple[Tree, Tree]:
    """The shapes of what `init` of `network_of` gives, of a module that is made once."""
    _, params, _, model_state = _split(abstract_module(spec, input_shape, num_outputs, lowering))
    size = prod(input_shape)
    whitening = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((size,), (size, size)))
    return params, (whitening, model_state) if whiten else model_state


def layers_in(spec: Model, input_shape: tuple[int, ...], num_outputs: int) -> Layers:
    """The layers of a spec by name."""
    return layers_of(spec, None if spec.is_layered else abstract_module(spec, input_shape, num_outputs))


def abstract_module(
    spec: Model, input_shape: tuple[int, ...], num_outputs: int, lowering: Lowering = "xla"
) -> nnx.Module:
    """The module of a spec, with shapes in place of arrays, that is the caller's to change."""
    if any(find_custom(spec)):  # in a notebook the code behind a path may be another the next time
        return _abstract_module(spec, input_shape, num_outputs, lowering)
    return nnx.clone(_abstract_module_once(spec, tuple(input_shape), num_outputs, lowering))


def _abstract_module(spec: Model, input_shape: tuple[int, ...], num_outputs: int, lowering: Lowering) -> nnx.Module:
    with shapes_only():
        return nnx.eval_shape(lambda: build(spec, input_shape, num_outputs, SameKey(0), lowering))


# Flax takes long to make layers, and a run asks for the same ones several times before its first step.
_abstract_module_once = lru_cache(maxsize=32)(_abstract_module)


def num_params(params: Tree) -> int:
    """How many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _split(module: nnx.Module) -> tuple[Any, Tree, Tree, Tree]:
    graph, params, streams, model_state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graph, nnx.as_pure(params), nnx.as_pure(streams), nnx.as_pure(model_state)


def _rng_keys(module: nnx.Module) -> list[Any]:
    return [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.RngKey)]


PER_EXAMPLE_EPSILON = 1e-6  # that of Keras's samplewise_std_normalization


def normalize(inputs: jax.Array, spec: InputSpec) -> jax.Array:
    """float32 `(scale × inputs − mean) / std`, standardized for each example too if the contract says so."""
    inputs = crop_middle(inputs, spec)
    values = inputs.astype(jnp.float32) * spec.scale if spec.scale != 1 else inputs.astype(jnp.float32)
    by_channel = (1,) * (inputs.ndim - 1) + (-1,)
    if spec.mean is not None:
        values = values - jnp.asarray(spec.mean, jnp.float32).reshape(by_channel)
    if spec.std is not None:
        values = values / jnp.asarray(spec.std, jnp.float32).reshape(by_channel)
    of_example = tuple(range(1, inputs.ndim))
    if spec.per_example or spec.center_example:
        values = values - jnp.mean(values, of_example, keepdims=True)
    if spec.per_example:
        values = values / (jnp.std(values, of_example, keepdims=True) + PER_EXAMPLE_EPSILON)
    return values


def crop_middle(inputs: jax.Array, spec: InputSpec) -> jax.Array:
    """The middle of the inputs [b h w c], where the contract has a crop and augmentation has not cut it out already."""
    if spec.center_crop is None or inputs.shape[1:3] == spec.center_crop:
        return inputs
    (height, width), (_, h, w, _) = spec.center_crop, inputs.shape
    top, left = (h - height) // 2, (w - width) // 2  # as Keras's CenterCrop
    return inputs[:, top : top + height, left : left + width]

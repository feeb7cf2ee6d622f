"""A model of Keras and its twin of ours with the same weights, moved over by name, and how far apart they are."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from engine.importers.importing import targets_of, tree_of
from engine.importers.keras_names import find_origin, plain_names
from engine.importers.matching import fill
from engine.models.layers import Dropout
from engine.models.specs import Sequential
from engine.networks.network import AnyNetwork, network_of

Arrays = dict[str, np.ndarray]
AWAY = 0.25
"""How far running averages are drawn from a batch's, as a share: with 1, values in EfficientNet grow to thousands."""


def make_keras(make: Callable[..., Any], size: int, **settings: Any) -> Any:
    """A model of keras.applications with all kernels 0, which takes a tenth of the time that drawing them does."""
    import keras

    initializer: Any = keras.initializers.VarianceScaling
    drawn, initializer.__call__ = initializer.__call__, lambda self, shape, dtype=None: np.zeros(shape, np.float32)
    keras.utils.clear_session()
    try:
        return make(weights=None, input_shape=(size, size, 3), **settings)
    finally:
        initializer.__call__ = drawn


def draw_variables(model: Any, normalization: Mapping[str, Any]) -> Arrays:
    """Values of all variables, a function of their names and shapes; those of a layer that normalizes are given."""
    return {
        name: np.asarray(normalization[name.split("/")[1]], np.float32).reshape(variable.shape)
        if name.startswith("normalization/")
        else _drawn(name, tuple(variable.shape))
        for name, variable in _variables(model).items()
    }


def calibrated(model: Any, values: Arrays, inputs: np.ndarray) -> Arrays:
    """With running averages near the statistics of some inputs, but different for each channel.

    Else the activations of a deep model grow or die out, and what comes out depends on few of its layers.
    """
    stored = {name for name in values if name.endswith(("/moving_mean", "/moving_variance"))}
    assign(model, {name: np.zeros_like(value) if name in stored else value for name, value in values.items()})
    with _without_dropout(model):  # also of whole paths, as in EfficientNet
        state = run_keras(model, inputs, training=True)[1]
    after = dict(zip((v.path for v in model.non_trainable_variables), state, strict=True))
    changed = dict(values)
    for layer in {name.rpartition("/")[0] for name in stored}:
        mean, variance = f"{layer}/moving_mean", f"{layer}/moving_variance"
        new = 1 - model.get_layer(layer).momentum
        average, spread = np.asarray(after[mean]) / new, np.asarray(after[variance]) / new
        changed[mean] = (average + AWAY * values[mean] * np.sqrt(spread)).astype(np.float32)
        # Not far below average²: what rounding changes there would grow with each layer, in Keras as here.
        changed[variance] = ((spread + average**2 / 4) * values[variance] ** AWAY + 1e-3).astype(np.float32)
    return changed


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    rates = {layer: layer.rate for layer in model.layers if hasattr(layer, "rate")}
    for layer in rates:
        layer.rate = 0.0
    yield
    for layer, rate in rates.items():
        layer.rate = rate


def assign(model: Any, values: Mapping[str, np.ndarray]) -> None:
    """Gives a model of Keras its values."""
    for name, variable in _variables(model).items():
        variable.assign(values[name])
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # a layer that normalizes computes with copies of its variables
            layer.finalize_state()


def run_keras(model: Any, inputs: np.ndarray, training: bool = False) -> tuple[np.ndarray, list[Any]]:
    """(outputs, variables that are not trained, after it)."""
    run = jax.jit(lambda trained, state, inputs: model.stateless_call(trained, state, inputs, training=training))
    with jax.numpy_rank_promotion("allow"):
        outputs, state = run(*keras_trees(model), inputs)
    return np.asarray(outputs), state


def keras_trees(model: Any) -> tuple[list[Any], list[Any]]:
    """(trained variables, others), as arrays."""
    return [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]


@dataclass(frozen=True)
class Twin:
    """Our network and its arrays, (params, model state). left_over: variables of Keras that have no place in it."""

    network: AnyNetwork
    trees: tuple[Any, Any]
    left_over: tuple[str, ...]

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs in evaluation."""
        run = jax.jit(lambda trees, inputs: self.network.apply(*trees, inputs, None, None)[0])
        return np.asarray(run(self.trees, inputs))


def make_twin(spec: Sequential, size: int, values: Arrays) -> Twin:
    """The network of a spec, for images of `size`, filled by name with the values of a model of Keras.

    Its arrays are float64 where JAX computes in that.
    """
    shape, num_outputs = (size, size, 3), spec.output_shape((size, size, 3))[-1]
    plain = plain_names(values)
    given = {plain[name]: value for name, value in values.items()}
    filled = fill(targets_of(spec, shape, num_outputs), given, find_origin, "Keras")
    kind = jax.dtypes.canonicalize_dtype(np.float64)
    params, state = (tree_of(filled.arrays, number) for number in (0, 1))
    trees = jax.tree.map(lambda array: jnp.asarray(array, kind), (params, state))
    return Twin(network_of(spec, shape, num_outputs, "xla")[0], trees, filled.left_over)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest, as a share of their largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def without_dropout(spec: Sequential) -> Sequential:
    """The same with rates of 0, for comparing steps: no two libraries draw the same."""
    layers = (replace(layer, rate=0.0) if isinstance(layer, Dropout) else layer for layer in spec.layers)
    return Sequential(tuple(layers))


def _variables(model: Any) -> dict[str, Any]:
    """`layer/variable` → variable, without the generators of dropout."""
    return {"/".join(v.path.split("/")[-2:]): v for v in model.variables if "seed_generator" not in v.path}


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels that keep the size of what goes through relu; variances and scales around 1, all else around 0."""
    draw, kind = np.random.default_rng(zlib.crc32(name.encode())), name.rpartition("/")[2]
    if kind in ("gamma", "moving_variance") or kind.startswith("variable"):
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    if kind.endswith("kernel"):
        is_by_channel = kind == "depthwise_kernel" or shape[-1] == 1
        return draw.normal(0, sqrt(2 / prod(shape[: -2 if is_by_channel else -1])), shape).astype(np.float32)
    return draw.normal(0, 0.2, shape).astype(np.float32)


def compare_steps(model: Any, spec: Sequential, values: Arrays, draws: Sequence[np.ndarray]) -> dict[str, float]:
    """Differences of a training step, each as a share of its array's largest number.

    fine_tuning: of gradients by running averages, as models are fine-tuned in Keras. from_scratch, statistics: of
    gradients by the batch's own statistics, and of the averages after it. Of several draws of inputs the least: where
    an activation rounds to the other side of the point at which relu bends, single gradients differ by percents.
    Gradients below 1e-5 of the largest are left out: those of biases before a batch norm are rounding alone.
    """
    assign(model, values)
    spec, size = without_dropout(spec), draws[0].shape[1]
    twin = make_twin(spec, size, values)
    labels = np.arange(len(draws[0])) % model.output_shape[-1]
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    for training in found:
        their_step, our_step = _their_step(model, labels, training), _our_step(twin, labels, training)
        for inputs in draws:
            expected = make_twin(spec, size, their_step(inputs)).trees
            found[training].append([_largest(*pair) for pair in zip(our_step(inputs), expected, strict=True)])
    from_scratch, statistics = min(found[True])
    return {"fine_tuning": min(found[False])[0], "from_scratch": from_scratch, "statistics": statistics}


def _their_step(model: Any, labels: np.ndarray, training: bool) -> Callable[[np.ndarray], Arrays]:
    """Gradients of trained variables, and the others after a step, by name."""
    import keras

    variables = (*model.trainable_variables, *model.non_trainable_variables)
    names = {variable.path: name for name, variable in _variables(model).items()}

    def loss(trained: list, state: list, inputs: Any) -> tuple[jax.Array, list]:
        outputs, state = model.stateless_call(trained, state, inputs, training=training)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, outputs), state

    step = jax.jit(jax.grad(loss, has_aux=True))

    def run(inputs: np.ndarray) -> Arrays:
        with jax.numpy_rank_promotion("allow"):
            gradients, state = step(*keras_trees(model), inputs)
        of = zip(variables, (*gradients, *state), strict=True)
        return {names[variable.path]: np.asarray(value) for variable, value in of if variable.path in names}

    return run


def _our_step(twin: Twin, labels: np.ndarray, training: bool) -> Callable[[np.ndarray], tuple[Any, Any]]:
    """(gradients, model state after a step)."""

    def loss(params: Any, model_state: Any, inputs: Any) -> tuple[jax.Array, Any]:
        key = jax.random.key(0) if training else None
        outputs, state = twin.network.apply(params, model_state, inputs, None, key)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean(), state

    step = jax.jit(jax.grad(loss, has_aux=True))
    return lambda inputs: step(*twin.trees, inputs)


def _largest(ours: Any, theirs: Any) -> float:
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True)]
    most = max(np.abs(b).max() for _, b in pairs)
    return max(difference(a, b) for a, b in pairs if np.abs(b).max() > 1e-5 * most)

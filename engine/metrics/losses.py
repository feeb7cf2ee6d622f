"""Losses of each example: outputs [b k] and targets → float32[b]. Sums and means are taken elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from engine.config.scoring import OutputActivation
from engine.models.specs import Model
from engine.models.weights import L1L2, regularizer_of
from engine.records.custom import Custom

Smoothing = float | jax.Array  # traced where the members of an ensemble have their own
LossFunction = Callable[[jax.Array, jax.Array, Smoothing], jax.Array]


def softmax_cross_entropy(outputs: jax.Array, labels: jax.Array, label_smoothing: Smoothing = 0.0) -> jax.Array:
    """Of logits [b k] on integer labels [b], or shares [b k] in sum 1; smoothing mixes in the uniform distribution."""
    assert outputs.ndim == 2
    if labels.ndim == 2:
        return optax.softmax_cross_entropy(outputs, optax.smooth_labels(labels, label_smoothing))
    if isinstance(label_smoothing, float) and not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, outputs.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(outputs, targets)


def binary_cross_entropy(outputs: jax.Array, labels: jax.Array, label_smoothing: Smoothing = 0.0) -> jax.Array:
    """Of one logit [b 1] on labels 0 or 1 [b], or the mean over several [b k]; smoothing moves targets to one half."""
    targets = labels * (1 - label_smoothing) + label_smoothing / 2
    if labels.ndim == 2:
        assert outputs.shape == labels.shape
        return jnp.mean(optax.sigmoid_binary_cross_entropy(outputs, targets), axis=-1)
    assert outputs.shape == (len(labels), 1)
    return optax.sigmoid_binary_cross_entropy(outputs[:, 0], targets)


def focal(outputs: jax.Array, labels: jax.Array, label_smoothing: Smoothing = 0.0, power: float = 2.0) -> jax.Array:
    """Σ over classes of -t (1 - p)^power log p, of logits [b k] on integer labels [b]; t is 1 for the label.

    Lin et al. 2017, arXiv:1708.02002, without their α, which class weights are.
    """
    logs = jax.nn.log_softmax(outputs)
    targets = labels if labels.ndim == 2 else jax.nn.one_hot(labels, outputs.shape[-1])
    targets = optax.smooth_labels(targets, label_smoothing)
    return -jnp.sum(targets * _unsure(logs, power) * logs, axis=-1)


def binary_focal(
    outputs: jax.Array, labels: jax.Array, label_smoothing: Smoothing = 0.0, power: float = 2.0
) -> jax.Array:
    """`focal` of one logit [b 1] on labels 0 or 1 [b], or the mean over several; 1 - p: the distance."""
    targets, logits = labels * (1 - label_smoothing) + label_smoothing / 2, outputs
    if labels.ndim == 1:
        assert outputs.shape == (len(labels), 1)
        logits = outputs[:, 0]
    missed = targets * jax.nn.sigmoid(-logits) + (1 - targets) * jax.nn.sigmoid(logits)
    losses = _power(missed, power) * optax.sigmoid_binary_cross_entropy(logits, targets)
    return jnp.mean(losses, axis=-1) if labels.ndim == 2 else losses


def _unsure(logs: jax.Array, power: float) -> jax.Array:
    """(1 - p)^power of log-probabilities."""
    return _power(-jnp.expm1(logs), power)


def _power(base: jax.Array, power: float) -> jax.Array:
    """base^power, whose gradient is finite where the base is 0."""
    return jnp.maximum(base, jnp.finfo(base.dtype).tiny) ** power


def mean_squared_error(outputs: jax.Array, targets: jax.Array, label_smoothing: Smoothing = 0.0) -> jax.Array:
    """Mean over the outputs [b d] of the squared distance to the targets [b d]."""
    assert outputs.shape == targets.shape
    return jnp.mean(jnp.square(outputs - targets), axis=-1)


def mean_absolute_error(outputs: jax.Array, targets: jax.Array, label_smoothing: Smoothing = 0.0) -> jax.Array:
    """Mean over the outputs [b d] of the distance to the targets [b d]."""
    assert outputs.shape == targets.shape
    return jnp.mean(jnp.abs(outputs - targets), axis=-1)


FOCAL = {"focal": focal, "binary_focal": binary_focal}
LOSSES: dict[str, LossFunction] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    **FOCAL,
    "mean_squared_error": mean_squared_error,
    "mean_absolute_error": mean_absolute_error,
}
"""(outputs, targets, label smoothing) → [b]. What each expects: engine.config.scoring.LOSSES."""


def make_loss(given: str | Custom, focal_power: float = 2.0) -> LossFunction:
    """The function of a loss; one of the user's own, (outputs, targets) → [b], is imported."""
    if not isinstance(given, Custom):
        return partial(FOCAL[given], power=focal_power) if given in FOCAL else LOSSES[given]
    function, arguments = given.guard("train.loss", given.load("train.loss")), given.arguments
    return lambda outputs, targets, label_smoothing: function(outputs, targets, **arguments)


def kernel_penalty(model: Model) -> Callable[[Any], jax.Array] | None:
    """(parameters, as a tree by layer) → what kernel regularizers add to the loss; None where a model has none.

    Frozen layers, whose penalty is constant, are not among the parameters and add nothing.
    """
    given = ((each.position, regularizer_of(each.layer.kernel_regularizer)) for each in model.named)
    regularizers = {position: regularizer for position, regularizer in given if regularizer}
    if not regularizers:
        return None

    def regularizer_at(numbers: tuple[int, ...]) -> L1L2 | None:
        """That of the layer at a position, or whose module has its own lists below."""
        wholes = (numbers[:end] for end in range(len(numbers), 0, -1))
        return next((regularizers[whole] for whole in wholes if whole in regularizers), None)

    def total(params: Any) -> jax.Array:
        flat: list[tuple[Any, jax.Array]] = nnx.to_flat_state(params)  # type: ignore[assignment]
        placed = [(tuple(part for part in path if isinstance(part, int)), path[-1], leaf) for path, leaf in flat]
        pairs = [(regularizer_at(at), leaf) for at, name, leaf in placed if name == "kernel"]
        return sum((penalty(given, leaf) for given, leaf in pairs if given), start=jnp.zeros(()))

    return total


def probabilities(outputs: jax.Array, activation: OutputActivation) -> jax.Array:
    """Class probabilities [b k], or with "linear" the outputs of a regression."""
    if activation == "softmax":
        return jax.nn.softmax(outputs)
    if activation == "sigmoids":
        return jax.nn.sigmoid(outputs)
    if activation == "sigmoid":
        positive = jax.nn.sigmoid(outputs)
        return jnp.concatenate([1 - positive, positive], axis=-1)  # [b 1] → [b 2]
    return outputs


def penalty(regularizer: L1L2, kernel: jax.Array) -> jax.Array:
    """What a regularizer adds to the loss for a kernel."""
    costs = ((regularizer.l1, jnp.abs), (regularizer.l2, jnp.square))
    return sum((amount * jnp.sum(cost(kernel)) for amount, cost in costs if amount), start=jnp.zeros(()))

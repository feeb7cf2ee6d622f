"""A Classifier as one traceable function, from a batch as stored to probabilities: the function that is exported.

Axes: b batch, k classes, m members.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from engine.config import Precision
from engine.config.scoring import loss_facts
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.single import SingleClassifier
from engine.metrics.combination import LEAST_PROBABILITY, TIE_BREAK, Combination
from engine.metrics.losses import probabilities
from engine.networks.network import network_of, normalize

Graph = Callable[[jax.Array], jax.Array]


def graph_of(classifier: Classifier, precision: Precision | None = None) -> Graph:
    """(inputs [b …] of the input contract's dtype) → float32[b k], as `Classifier.outputs`; the weights are constants.

    For an ensemble: the members with a weight, combined. precision: of products; None: that of the training.
    """
    if isinstance(classifier, SingleClassifier):
        return _graph_of_one(classifier, precision)
    assert isinstance(classifier, EnsembleClassifier)
    graphs = [
        _in_order(_graph_of_one(member, precision), order)
        for (member, weight), order in zip(_weighed(classifier), classifier.orders, strict=True)
        if weight > 0
    ]
    weights = [weight for _, weight in _weighed(classifier) if weight > 0]

    def forward(inputs: jax.Array) -> jax.Array:
        outputs = [graph(inputs) for graph in graphs]
        if not classifier.class_names:
            return _weighted_sum(weights, outputs)
        return combined(classifier.combination, weights, outputs)

    return forward


def combined(combination: Combination, weights: Sequence[float], outputs: Sequence[jax.Array]) -> jax.Array:
    """float32[b k]: a traceable `Combination.combine` of the probabilities [b k] of the members with a weight."""
    if combination.method == "logits":
        joint = jax.nn.softmax(_weighted_sum(weights, [_logarithms(each) for each in outputs]))
    elif combination.method == "vote":
        share = min(TIE_BREAK, 1 / (len(weights) + 1))
        votes = [jax.nn.one_hot(jnp.argmax(_logarithms(each), -1), each.shape[-1]) for each in outputs]
        joint = (1 - share) * _weighted_sum(weights, votes) + share * _mean(weights, outputs)
    else:
        joint = _mean(weights, outputs)
    return joint if combination.temperature == 1 else jax.nn.softmax(_logarithms(joint) / combination.temperature)


def _graph_of_one(classifier: SingleClassifier, precision: Precision | None) -> Graph:
    spec, record = classifier.input_spec, classifier.record
    train, of_inputs = record.config.train, (spec.network_shape, record.num_outputs)
    activation = loss_facts(train.loss, bool(record.class_names)).activation
    # XLA's own operations, whatever this machine uses: other machines may lack our kernels.
    network, _ = network_of(record.config.model, *of_inputs, "xla", spec.whiten, precision or train.precision)
    params, model_state = jax.tree.map(np.asarray, (classifier.params, classifier.model_state))

    def forward(inputs: jax.Array) -> jax.Array:
        outputs, _ = network.apply(params, model_state, normalize(inputs, spec), None, None)
        return probabilities(outputs, activation).astype(jnp.float32)

    return forward


def _in_order(graph: Graph, order: np.ndarray | None) -> Graph:
    """The graph with its outputs [b k] in another order int[k]."""
    return graph if order is None else lambda inputs: graph(inputs)[:, order]


def _weighed(classifier: EnsembleClassifier) -> list[tuple[SingleClassifier, float]]:
    return list(zip(classifier.members, classifier.combination.weights, strict=True))


def _weighted_sum(weights: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    total = weights[0] * arrays[0]
    for weight, array in zip(weights[1:], arrays[1:], strict=True):
        total = total + weight * array
    return total


def _mean(weights: Sequence[float], outputs: Sequence[jax.Array]) -> jax.Array:
    total = _weighted_sum(weights, outputs)
    return total / jnp.sum(total, axis=-1, keepdims=True)


def _logarithms(array: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(array, LEAST_PROBABILITY))

"""A Classifier as one traceable function, from a batch as stored to probabilities: the function that is exported.

Axes: b batch, k classes, m members.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from engine.config import Precision
from engine.config.scoring import loss_facts
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.single import SingleClassifier
from engine.metrics.combination import sum_weighted, take_logarithms
from engine.metrics.losses import probabilities
from engine.metrics.several import as_pairs
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
    weights = tuple(weight for _, weight in _weighed(classifier) if weight > 0)
    combination = replace(classifier.combination, weights=weights)

    def forward(inputs: jax.Array) -> jax.Array:
        outputs = [graph(inputs) for graph in graphs]
        if not classifier.class_names:
            return sum_weighted(outputs, weights)
        if classifier.record.task == "labels":
            pairs = combination.combine([take_logarithms(as_pairs(each, jnp), jnp) for each in outputs], jnp)
            return pairs[:, 1].reshape(outputs[0].shape)
        return combination.combine([take_logarithms(each, jnp) for each in outputs], jnp)

    return forward


def _graph_of_one(classifier: SingleClassifier, precision: Precision | None) -> Graph:
    spec, record = classifier.input_spec, classifier.record
    train, of_inputs = record.config.train, (spec.network_shape, record.num_outputs)
    activation = loss_facts(train.loss, record.task).activation
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

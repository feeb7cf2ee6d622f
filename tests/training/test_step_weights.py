"""A step on weighted examples against its closed form, and evaluation with weights against scikit-learn."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics
from scipy.special import log_softmax, softmax

from engine.augment.config import AugmentConfig
from engine.config import TrainConfig
from engine.config.contract import InputSpec
from engine.metrics.sums import Metrics, make_scoring
from engine.models import Dense, Flatten, Sequential
from engine.networks.network import network_of
from engine.training.state import TrainState, init_state
from engine.training.step import Batch, Objective, train_step

N, COUNTED, K = 12, 10, 3
CLASS_WEIGHTS = (0.5, 2.0, 3.0)
DRAW = np.random.default_rng(0)
INPUTS, LABELS = DRAW.normal(size=(N, 4)).astype(np.float32), DRAW.integers(0, K, N).astype(np.int32)
WEIGHTS = DRAW.random(N).astype(np.float32)
METRICS = ("balanced_accuracy", "nll", "brier")


@pytest.fixture(scope="module")
def objective_and_state() -> tuple[Objective, TrainState]:
    """A linear model by gradient descent of rate 1, so that a step takes off the gradient."""
    network, init = network_of(Sequential((Flatten(), Dense())), (4,), K, "xla")
    scoring = make_scoring(TrainConfig(metrics=METRICS), K, task="classes")
    objective = Objective(network, scoring, 0.0, optax.sgd(1.0), InputSpec((4,), "float32", scale=1.0))
    return objective, jax.jit(lambda seed: init_state(*init(seed), objective.optimizer))(jnp.uint32(0))


def kernel_of(state: TrainState) -> np.ndarray:
    (found,) = (leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim == 2)
    return np.asarray(found, np.float64)


def stepped(objective: Objective, state: TrainState, **of_batch: Any) -> tuple[np.ndarray, Metrics]:
    """(the gradient of the kernel, the metrics) of one step on all but the last two examples."""
    batch = Batch(jnp.asarray(INPUTS), jnp.asarray(LABELS), jnp.arange(N) < COUNTED, **of_batch)
    after, metrics = jax.jit(lambda state: train_step(objective, state, batch, jax.random.key(0)))(state)
    return kernel_of(state) - kernel_of(after), metrics


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_gradient_is_that_of_the_sum_of_weighted_losses_by_the_number_of_examples(
    objective_and_state: tuple, class_weights: tuple | None, weights: np.ndarray | None
):
    objective, state = objective_and_state
    given = {} if weights is None else {"weights": jnp.asarray(weights)}
    gradient, found = stepped(replace(objective, class_weights=class_weights), state, **given)
    each = np.ones(N) if weights is None else weights.astype(np.float64)
    of_loss = each * (1.0 if class_weights is None else np.array(class_weights)[LABELS])
    x, logits = INPUTS[:COUNTED].astype(np.float64), (INPUTS @ kernel_of(state))[:COUNTED]
    missed = softmax(logits, axis=1) - np.eye(K)[LABELS[:COUNTED]]
    np.testing.assert_allclose(gradient, x.T @ (of_loss[:COUNTED, None] * missed) / COUNTED, rtol=1e-4, atol=1e-6)
    losses = of_loss[:COUNTED] * -log_softmax(logits, axis=1)[np.arange(COUNTED), LABELS[:COUNTED]]
    metrics = objective.scoring.means(found)
    assert metrics["n"] == COUNTED
    assert metrics["loss"] == pytest.approx(losses.sum() / each[:COUNTED].sum(), rel=1e-5)


def test_metrics_of_weighted_examples_are_those_of_scikit_learn(objective_and_state: tuple):
    objective, state = objective_and_state
    _, sums = stepped(objective, state, weights=jnp.asarray(WEIGHTS))
    found, z, y = objective.scoring.means(sums), (INPUTS @ kernel_of(state))[:COUNTED], LABELS[:COUNTED]
    by_numpy = objective.scoring.score(softmax(z, axis=1), y, WEIGHTS[:COUNTED])
    given: dict[str, Any] = {"sample_weight": WEIGHTS[:COUNTED]}
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(y, z.argmax(1), **given),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(y, z.argmax(1), **given),
        "loss": sklearn.metrics.log_loss(y, softmax(z, axis=1), labels=range(K), **given),
        "brier": sklearn.metrics.brier_score_loss(y, softmax(z, axis=1), labels=range(K), scale_by_half=False, **given),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5)
        assert by_numpy[name] == pytest.approx(value, rel=1e-6)
    assert found["nll"] == pytest.approx(found["loss"], rel=1e-5)


def test_example_of_weight_0_changes_nothing(objective_and_state: tuple):
    objective, state = objective_and_state
    weights = WEIGHTS.copy()
    weights[:5] = 0
    with_them, sums = stepped(objective, state, weights=jnp.asarray(weights))
    x, logits = INPUTS[5:COUNTED].astype(np.float64), (INPUTS @ kernel_of(state))[5:COUNTED]
    missed = softmax(logits, axis=1) - np.eye(K)[LABELS[5:COUNTED]]
    np.testing.assert_allclose(with_them, x.T @ (weights[5:COUNTED, None] * missed) / COUNTED, rtol=1e-4, atol=1e-6)
    assert np.isfinite(list(objective.scoring.means(sums).values())).all()


def test_mixed_examples_take_the_weights_of_both(objective_and_state: tuple):
    objective, state = objective_and_state
    objective = replace(objective, class_weights=CLASS_WEIGHTS, augment=AugmentConfig(mixup=1.0))
    share = jnp.full(N, 0.25)
    mixed, _ = stepped(objective, state, own_share=share, weights=jnp.asarray(WEIGHTS))
    others = LABELS.reshape(-1, 2)[:, ::-1].reshape(-1)
    theirs = WEIGHTS.reshape(-1, 2)[:, ::-1].reshape(-1)
    of_class, chance = np.array(CLASS_WEIGHTS), softmax(INPUTS @ kernel_of(state), axis=1)
    own, other = (
        (factor * of_class[y])[:, None] * (chance - np.eye(K)[y])
        for factor, y in ((0.25 * WEIGHTS, LABELS), (0.75 * theirs, others))
    )
    expected = INPUTS[:COUNTED].T @ (own + other)[:COUNTED] / COUNTED
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-6)

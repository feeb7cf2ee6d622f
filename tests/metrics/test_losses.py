"""Losses against float64 in numpy and scipy; metrics against counting by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.config import TrainConfig
from engine.config.scoring import LOSSES as FACTS
from engine.metrics.losses import (
    LOSSES,
    binary_cross_entropy,
    binary_focal,
    focal,
    make_loss,
    mean_absolute_error,
    mean_squared_error,
    probabilities,
    softmax_cross_entropy,
)
from engine.metrics.sums import Metrics, Scoring, make_scoring
from tests.further import choose_examples

SETTINGS = settings(max_examples=choose_examples(8, 25), derandomize=True, deadline=None, database=None)
B, K = 6, 7
LOGITS = arrays(np.float32, (B, K), elements=st.floats(-60, 60, width=32))
LABELS = arrays(np.int32, B, elements=st.integers(0, K - 1))
SMOOTHING = st.sampled_from((0.0, 0.1, 0.5))


def float64_softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    """-Σ target · log softmax, the target being (1 - s) on the label and s / k on every class."""
    logs = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    targets = (1 - smoothing) * np.eye(logits.shape[-1])[labels] + smoothing / logits.shape[-1]
    return -np.sum(targets * logs, axis=-1)


@SETTINGS
@given(LOGITS, LABELS, SMOOTHING)
def test_softmax_cross_entropy_equals_float64(logits: np.ndarray, labels: np.ndarray, smoothing: float):
    got = softmax_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    assert got.shape == (B,)
    np.testing.assert_allclose(got, float64_softmax_cross_entropy(logits, labels, smoothing), rtol=1e-5, atol=3e-5)


@SETTINGS
@given(LOGITS, arrays(np.int32, B, elements=st.integers(0, 1)), SMOOTHING)
def test_binary_cross_entropy_equals_float64(logits: np.ndarray, labels: np.ndarray, smoothing: float):
    got = binary_cross_entropy(jnp.asarray(logits[:, :1]), jnp.asarray(labels), smoothing)
    targets, z = labels * (1 - smoothing) + smoothing / 2, logits[:, 0].astype(np.float64)
    expected = -targets * scipy.special.log_expit(z) - (1 - targets) * scipy.special.log_expit(-z)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@SETTINGS
@given(LOGITS, LABELS, SMOOTHING)
def test_focal_losses_of_power_0_are_cross_entropies(logits: np.ndarray, labels: np.ndarray, smoothing: float):
    of_many = focal(jnp.asarray(logits), jnp.asarray(labels), smoothing, power=0.0)
    np.testing.assert_allclose(of_many, softmax_cross_entropy(logits, labels, smoothing), rtol=1e-5, atol=3e-5)
    binary, labels = jnp.asarray(logits[:, :1]), labels % 2
    of_two = binary_focal(binary, labels, smoothing, power=0.0)
    np.testing.assert_allclose(of_two, binary_cross_entropy(binary, labels, smoothing), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
def test_focal_losses_equal_those_of_keras(keras: Any, power: float):
    draw = np.random.default_rng(0)
    logits, labels = 3 * draw.normal(size=(B, K)).astype(np.float32), draw.integers(0, K, B).astype(np.int32)
    theirs = keras.losses.CategoricalFocalCrossentropy(1.0, power, from_logits=True, reduction=None)
    ours = make_loss("focal", power)(jnp.asarray(logits), labels, 0.0)
    np.testing.assert_allclose(ours, theirs(np.eye(K, dtype=np.float32)[labels], logits), rtol=2e-5, atol=1e-6)
    theirs = keras.losses.BinaryFocalCrossentropy(gamma=power, from_logits=True, reduction=None)
    ours = make_loss("binary_focal", power)(jnp.asarray(logits[:, :1]), labels % 2, 0.0)
    np.testing.assert_allclose(ours, theirs((labels[:, None] % 2).astype(np.float32), logits[:, :1]), rtol=2e-5)


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_focal_losses_have_a_finite_gradient_where_the_label_is_certain(power: float):
    for loss, logits in (("focal", [[0.0, 200.0]]), ("binary_focal", [[200.0]])):
        gradient = jax.grad(lambda x, loss=loss: make_loss(loss, power)(x, np.array([1]), 0.0).sum())(jnp.array(logits))
        assert np.isfinite(gradient).all()


@SETTINGS
@given(LOGITS, arrays(np.float32, (B, K), elements=st.floats(-60, 60, width=32)))
def test_mean_squared_error_equals_float64(outputs: np.ndarray, targets: np.ndarray):
    got = mean_squared_error(jnp.asarray(outputs), jnp.asarray(targets))
    expected = np.mean((outputs.astype(np.float64) - targets) ** 2, axis=-1)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    got = mean_absolute_error(jnp.asarray(outputs), jnp.asarray(targets))
    expected = np.mean(np.abs(outputs.astype(np.float64) - targets), axis=-1)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_softmax_cross_entropy_equals_optax_when_smoothed():
    logits, labels = jax.random.normal(jax.random.key(0), (B, K)), jnp.arange(B)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, K), 0.2)
    expected = optax.softmax_cross_entropy(logits, targets)
    np.testing.assert_allclose(softmax_cross_entropy(logits, labels, 0.2), expected, rtol=1e-6)


def test_binary_cross_entropy_and_its_gradient_are_finite_when_logits_are_extreme():
    logits, labels = jnp.array([[1e4], [1e4], [-1e4], [-1e4], [0.0]]), jnp.array([1, 0, 1, 0, 1])
    losses = binary_cross_entropy(logits, labels)
    np.testing.assert_allclose(losses, [0, 1e4, 1e4, 0, np.log(2)], rtol=1e-6)
    gradient = jax.grad(lambda z: binary_cross_entropy(z, labels).sum())(logits)
    np.testing.assert_allclose(gradient[:, 0], [0, 1, -1, 0, -0.5], atol=1e-6)


def test_label_smoothing_punishes_certainty():
    certain, labels = jnp.array([[20.0, 0, 0]]), jnp.array([0])
    assert softmax_cross_entropy(certain, labels, 0.0)[0] < 1e-6
    assert softmax_cross_entropy(certain, labels, 0.1)[0] > 1


@pytest.mark.parametrize("name", ["binary_cross_entropy", "mean_squared_error"])
def test_losses_refuse_outputs_that_would_broadcast_against_targets(name: str):
    with pytest.raises(AssertionError):
        LOSSES[name](jnp.zeros((4, 3)), jnp.zeros(4), 0.0)


def test_every_loss_name_of_the_config_has_a_function():
    assert tuple(LOSSES) == tuple(FACTS)


def test_probabilities_say_what_each_loss_means():
    logits = np.array([[0.5, -1, 3], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(
        probabilities(jnp.asarray(logits), "softmax"), scipy.special.softmax(logits, axis=-1), rtol=1e-6
    )
    positive = scipy.special.expit(logits[:, :1])
    expected = np.concatenate([1 - positive, positive], axis=1)
    binary = probabilities(jnp.asarray(logits[:, :1]), "sigmoid")
    np.testing.assert_allclose(binary, expected, rtol=1e-6)
    np.testing.assert_array_equal(probabilities(jnp.asarray(logits), "linear"), logits)


# Outputs of four values only: most rows have ties, which go to the earlier class.
N = 24
TIED = arrays(np.float32, (N, K), elements=st.sampled_from((0.0, 1.0, 2.0, 3.0)))
MANY_LABELS = arrays(np.int32, N, elements=st.integers(0, K - 1))
MASKS = arrays(np.bool_, N)
SOFTMAX = make_scoring(TrainConfig(), K, task="classes")


def measured(
    outputs: np.ndarray, labels: np.ndarray, losses: np.ndarray, mask: np.ndarray, scoring: Scoring = SOFTMAX
) -> Metrics:
    return jax.jit(scoring.measure)(outputs, labels, losses, mask)


@SETTINGS
@given(TIED, MANY_LABELS, MASKS)
def test_accuracy_and_top5_equal_a_stable_sort_when_outputs_tie(
    outputs: np.ndarray, labels: np.ndarray, mask: np.ndarray
):
    got = measured(outputs, labels, np.ones(N, np.float32), mask)
    ranked = np.argsort(-outputs, axis=-1, kind="stable")  # of equal outputs the earlier index first
    assert int(got.sums["accuracy"]) == np.sum((np.argmax(outputs, axis=-1) == labels) & mask)
    assert int(got.sums["top5"]) == np.sum((ranked[:, :5] == labels[:, None]).any(axis=-1) & mask)
    assert (int(got.count), float(got.sums["loss"])) == (mask.sum(), mask.sum())


@SETTINGS
@given(TIED, MANY_LABELS, MASKS, st.sampled_from((4, 8, 12)))
def test_merged_batches_equal_the_whole(outputs: np.ndarray, labels: np.ndarray, mask: np.ndarray, batch_size: int):
    losses = np.arange(N, dtype=np.float32)  # whole numbers: their sums are exact
    whole = measured(outputs, labels, losses, mask)
    parts = (slice(start, start + batch_size) for start in range(0, N, batch_size))
    merged = sum((measured(outputs[p], labels[p], losses[p], mask[p]) for p in parts), SOFTMAX.zeros())
    assert SOFTMAX.means(merged) == pytest.approx(SOFTMAX.means(whole), rel=0, abs=0, nan_ok=True)
    jax.tree.map(np.testing.assert_array_equal, merged, whole)


def test_masked_examples_count_nothing_when_their_losses_are_not_finite():
    outputs, labels = np.zeros((3, K), np.float32), np.zeros(3, np.int32)
    losses, mask = np.array([1, np.nan, np.inf], np.float32), np.array([True, False, False])
    found = SOFTMAX.means(measured(outputs, labels, losses, mask))
    assert found == {"n": 1, "loss": 1.0, "accuracy": 1.0, "top5": 1.0}


def test_binary_accuracy_agrees_with_the_larger_probability():
    scoring = make_scoring(TrainConfig(loss="binary_cross_entropy"), 1, task="classes")
    logits = np.array([[2.0], [-1], [0], [0], [3], [-2]], np.float32)  # a tie goes to the earlier class, 0
    labels, mask = np.array([1, 0, 0, 1, 0, 1]), np.ones(6, bool)
    got = measured(logits, labels, np.zeros(6, np.float32), mask, scoring)
    predicted = np.argmax(probabilities(jnp.asarray(logits), "sigmoid"), axis=-1)
    assert int(got.sums["accuracy"]) == np.sum(predicted == labels) == 3


def test_nothing_is_counted_correct_when_the_outputs_are_not_numbers():
    outputs, labels = np.full((4, K), np.nan, np.float32), np.arange(4, dtype=np.int32)
    got = measured(outputs, labels, np.zeros(4, np.float32), np.ones(4, bool))
    assert (int(got.sums["accuracy"]), int(got.sums["top5"]), int(got.count)) == (0, 0, 4)


@pytest.mark.parametrize(
    ("loss", "num_outputs", "names"),
    [
        ("softmax_cross_entropy", 6, ["n", "loss", "accuracy", "top5"]),
        ("softmax_cross_entropy", 5, ["n", "loss", "accuracy"]),
        ("binary_cross_entropy", 1, ["n", "loss", "accuracy"]),
        ("mean_squared_error", 7, ["n", "loss"]),
        ("mean_absolute_error", 7, ["n", "loss"]),
    ],
)
def test_means_hold_what_the_loss_gives_meaning_to(loss: str, num_outputs: int, names: list[str]):
    task = "numbers" if FACTS[loss].activation == "linear" else "classes"
    scoring = make_scoring(TrainConfig(loss=loss), num_outputs, task)
    found = scoring.means(scoring.zeros())
    assert list(found) == names
    assert found.pop("n") == 0
    assert all(np.isnan(value) for value in found.values())


def test_counts_are_exact_when_float32_could_not_hold_them():
    def counted(number: int) -> Metrics:
        return jax.tree.map(lambda leaf: np.full(leaf.shape, number, leaf.dtype), SOFTMAX.zeros())

    merged = counted(2**24) + counted(1)
    assert [int(each) for each in (merged.count, merged.sums["accuracy"], merged.sums["top5"])] == [2**24 + 1] * 3


def test_sums_in_a_record_of_before_are_read():
    found = SOFTMAX.zeros().read({"loss_sum": 4.0, "correct": 2, "top5": 6, "count": 8})
    assert SOFTMAX.means(found) == {"n": 8, "loss": 0.5, "accuracy": 0.25, "top5": 0.75}
    stored = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), vars(found))
    jax.tree.map(np.testing.assert_array_equal, SOFTMAX.zeros().read(stored), found)

"""Scores, reliability and uncertainty against scikit-learn and scipy."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from engine.metrics.calibration import (
    CALIBRATION_BINS,
    Reliability,
    entropy,
    reliability,
    scores,
    uncertainty,
)

SETTINGS = settings(max_examples=60, derandomize=True, deadline=None, database=None)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n k], from certain to undecided, and labels."""
    n, k = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    logits = draw(arrays(np.float64, (n, k), elements=st.floats(-15, 15)))
    return softmax(logits, axis=-1), draw(arrays(np.int32, n, elements=st.integers(0, k - 1)))


@st.composite
def ensembles(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [m n k] and weights [m], some of which are 0."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 10), st.integers(2, 6)))
    logits = draw(arrays(np.float32, shape, elements=st.floats(-40, 40, width=32)))
    raw = draw(st.lists(st.sampled_from((0.0, 1.0, 3.0)), min_size=shape[0], max_size=shape[0]).filter(any))
    return log_softmax(logits, axis=-1), np.array(raw) / sum(raw)


@SETTINGS
@given(cases())
def test_scores_equal_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]):
    probabilities, labels = case
    classes, found = np.arange(probabilities.shape[1]), scores(probabilities, labels)
    assert list(found) == ["n", "accuracy", "nll", "brier", "ece"]
    assert found["n"] == len(labels)
    assert found["accuracy"] == accuracy_score(labels, probabilities.argmax(axis=-1))
    assert found["nll"] == pytest.approx(log_loss(labels, probabilities, labels=classes), rel=1e-9)
    expected = brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    assert found["brier"] == pytest.approx(expected, rel=1e-9, abs=1e-15)


@SETTINGS
@given(cases(), st.sampled_from((1, 10, CALIBRATION_BINS)))
def test_reliability_equals_the_calibration_curve_of_scikit_learn(case: tuple[np.ndarray, np.ndarray], num_bins: int):
    probabilities, labels = case
    table, confidence = reliability(probabilities, labels, num_bins), probabilities.max(axis=-1)
    is_right = probabilities.argmax(axis=-1) == labels
    right, sure = calibration_curve(is_right, confidence, pos_label=True, n_bins=num_bins)
    is_used = table.counts > 0
    np.testing.assert_allclose(table.accuracy[is_used], right, rtol=1e-12)
    np.testing.assert_allclose(table.confidence[is_used], sure, rtol=1e-12)
    assert np.isnan(table.accuracy[~is_used]).all()
    assert table.n == len(labels)
    counts = scipy.stats.binned_statistic(confidence, confidence, "count", table.edges).statistic
    on_edge = np.isin(confidence, table.edges)  # of which scipy's bins hold the lower
    assert on_edge.any() or (counts == table.counts).all()
    expected = np.abs(right - sure) @ (table.counts[is_used] / len(labels))
    assert table.expected_calibration_error == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_bins_hold_their_upper_edge_and_what_rounding_puts_above_one():
    confidences = np.array([0.5, 0.6, 0.6 + 1e-9, 1.0, 1.0 + 1e-6])
    table = reliability(np.stack([confidences, 1 - confidences], axis=-1), np.array([0, 0, 1, 0, 0]), 10)
    assert table.counts.tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 2]


def test_calibration_error_is_that_of_counting_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.65, 0.35]])
    found = scores(probabilities, np.array([0, 1, 1, 0]))
    # Bins of 1/15: two at 0.9 of which one is right, one each at 0.7 and 0.65 that are right.
    assert found["ece"] == pytest.approx((2 * 0.4 + 0.3 + 0.35) / 4)
    assert found["brier"] == pytest.approx(2 * (0.01 + 0.81 + 0.09 + 0.35**2) / 4)
    assert found["accuracy"] == 0.75


@SETTINGS
@given(cases(), cases())
def test_tables_of_two_models_add_up_to_that_of_both(one: tuple, other: tuple):
    tables = [reliability(*case) for case in (one, other)]
    together = tables[0] + tables[1]
    k = max(case[0].shape[1] for case in (one, other))
    probabilities = np.concatenate([np.pad(p, ((0, 0), (0, k - p.shape[1]))) for p, _ in (one, other)])
    whole = reliability(probabilities, np.concatenate([one[1], other[1]]))
    np.testing.assert_array_equal(together.counts, whole.counts)
    np.testing.assert_allclose(together.accuracy, whole.accuracy)
    np.testing.assert_allclose(together.confidence, whole.confidence)


def test_calibrated_probabilities_have_nearly_no_calibration_error():
    draw = np.random.default_rng(0)
    probabilities = softmax(3 * draw.normal(size=(40_000, 4)), axis=-1)
    labels = (probabilities.cumsum(axis=-1) < draw.random((len(probabilities), 1))).sum(axis=-1)
    assert scores(probabilities, labels)["ece"] < 0.01
    assert scores(probabilities, np.roll(labels, 1))["ece"] > 0.3


@SETTINGS
@given(ensembles())
def test_uncertainty_equals_scipy(case: tuple[np.ndarray, np.ndarray]):
    logs, weights = case
    found, used = uncertainty(logs, weights), weights > 0
    probabilities = softmax(logs.astype(np.float64), axis=-1)
    mixture = np.average(probabilities, axis=0, weights=weights)
    np.testing.assert_allclose(found.predictive_entropy, scipy.stats.entropy(mixture, axis=-1), atol=1e-6)
    own = np.average(scipy.stats.entropy(probabilities, axis=-1), axis=0, weights=weights)
    np.testing.assert_allclose(found.mutual_information, scipy.stats.entropy(mixture, axis=-1) - own, atol=1e-6)
    assert (found.mutual_information >= 0).all()
    assert (found.predictive_entropy <= np.log(logs.shape[-1]) + 1e-9).all()
    alike = uncertainty(logs[used], weights[used])
    for name in ("disagreement", "predictive_entropy", "mutual_information"):
        np.testing.assert_array_equal(getattr(found, name), getattr(alike, name))


@SETTINGS
@given(ensembles())
def test_disagreement_is_the_share_of_votes_that_the_mode_does_not_get(case: tuple[np.ndarray, np.ndarray]):
    logs, m = case[0], len(case[0])
    mode = scipy.stats.mode(logs.argmax(axis=-1), axis=0)
    np.testing.assert_allclose(uncertainty(logs, np.full(m, 1 / m)).disagreement, 1 - mode.count / m, atol=1e-12)


def test_mutual_information_of_two_members_is_the_squared_jensen_shannon_distance():
    logs = log_softmax(np.random.default_rng(0).normal(size=(2, 50, 7)), axis=-1)
    expected = jensenshannon(*np.exp(logs), axis=-1) ** 2
    np.testing.assert_allclose(uncertainty(logs, np.full(2, 0.5)).mutual_information, expected, rtol=1e-9)


def test_members_of_one_mind_know_nothing_of_each_other():
    logs = np.tile(log_softmax(np.random.default_rng(0).normal(size=(20, 5)), axis=-1), (3, 1, 1)).astype(np.float32)
    found = uncertainty(logs, np.full(3, 1 / 3))
    np.testing.assert_allclose(found.mutual_information, 0, atol=1e-6)
    np.testing.assert_allclose(found.disagreement, 0, atol=1e-12)
    np.testing.assert_allclose(found.predictive_entropy, scipy.stats.entropy(np.exp(logs[0]), axis=-1), rtol=1e-5)


def test_members_without_weight_are_not_looked_at():
    logs = log_softmax(np.random.default_rng(0).normal(size=(3, 20, 5)), axis=-1)
    with_dead = logs.copy()
    with_dead[1] = np.nan
    found, expected = (uncertainty(each, np.array([0.5, 0, 0.5])) for each in (with_dead, logs))
    np.testing.assert_array_equal(found.mutual_information, expected.mutual_information)


def test_probability_zero_costs_a_finite_loss_and_no_entropy():
    probabilities = np.array([[1.0, 0, 0], [0, 1, 0]])
    found = scores(probabilities, np.array([1, 1]))
    assert found["nll"] == pytest.approx(87.3365 / 2, rel=1e-5)
    np.testing.assert_array_equal(entropy(probabilities), [0, 0])
    assert found["brier"] == 1


def test_nothing_is_right_where_probabilities_are_not_numbers():
    probabilities = np.array([[np.nan, np.nan], [0.2, 0.8]], np.float32)
    found = scores(probabilities, np.array([0, 1]))
    assert found["accuracy"] == 0.5
    assert all(np.isnan(found[name]) for name in ("nll", "brier", "ece"))


def test_scores_are_nan_when_there_are_no_examples():
    found = scores(np.zeros((0, 3)), np.zeros(0, int))
    assert found.pop("n") == 0
    assert all(np.isnan(value) for value in found.values())
    assert isinstance(reliability(np.zeros((0, 3)), np.zeros(0, int)), Reliability)

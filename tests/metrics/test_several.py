"""Metrics of several labels a picture against scikit-learn, in compiled batches and in NumPy."""

from typing import Any

import jax
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from engine.config import TrainConfig
from engine.config.scoring import METRICS as FACTS
from engine.errors import InputError
from engine.metrics.combination import Combination
from engine.metrics.several import as_pairs, log_odds, make_label_metrics
from engine.metrics.sums import make_scoring

N, K = 40, 3
NAMES = ("ant", "bee", "cow")
OF_LABELS = tuple(name for name, facts in FACTS.items() if "labels" in facts.tasks)
THRESHOLDS = {"bee": 0.3, "cow": 0.8}


def test_every_name_of_the_config_is_a_metric_of_several_labels():
    assert set(make_label_metrics([0.5])) == set(OF_LABELS)


def expected_scores(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None) -> dict[str, float]:
    chances = scipy.special.expit(logits.astype(np.float64))
    guesses, given = chances > np.array([0.5, 0.3, 0.8]), {"sample_weight": weights}
    columns = [(labels[:, k], chances[:, k]) for k in range(K)]
    f1: dict[str, Any] = {"zero_division": 0, **given}
    return {
        "loss": np.mean([sklearn.metrics.log_loss(y, p, labels=[0, 1], **given) for y, p in columns]),
        "nll": np.mean([sklearn.metrics.log_loss(y, p, labels=[0, 1], **given) for y, p in columns]),
        "brier": np.mean(
            [sklearn.metrics.brier_score_loss(y, p, labels=[0, 1], pos_label=1, **given) for y, p in columns]
        ),
        "accuracy": np.average((guesses == labels).mean(1), weights=weights),
        "exact_match": sklearn.metrics.accuracy_score(labels, guesses, **given),
        "f1_macro": sklearn.metrics.f1_score(labels, guesses, average="macro", **f1),
        "f1_micro": sklearn.metrics.f1_score(labels, guesses, average="micro", **f1),
    }


@pytest.mark.parametrize("is_weighted", [False, True])
def test_metrics_equal_those_of_scikit_learn_in_batches_and_in_numpy(is_weighted: bool):
    draw = np.random.default_rng(0)
    logits, labels = 2 * draw.normal(size=(N, K)).astype(np.float32), draw.integers(0, 2, (N, K)).astype(np.uint8)
    labels[:, 2] = 0  # which no example has
    weights = draw.random(N).astype(np.float32) if is_weighted else None
    train = TrainConfig(loss="binary_cross_entropy", metrics=OF_LABELS, thresholds=THRESHOLDS)  # type: ignore[arg-type]
    scoring = make_scoring(train, K, "labels", NAMES)
    totals, measure = scoring.zeros(is_weighted), jax.jit(scoring.measure)
    for start in range(0, N, 16):  # the last batch is padded, as in evaluation
        given = [np.resize(each[start : start + 16], (16, K)) for each in (logits, labels)]
        own = [] if weights is None else [np.resize(weights[start : start + 16], 16)]
        losses = scoring.loss(*given, 0.0) * (own[0] if own else 1)  # type: ignore[operator]
        totals = totals + measure(*given, losses, np.arange(start, start + 16) < N, *own)
    found, expected = scoring.means(totals), expected_scores(labels, logits, weights)
    by_numpy = scoring.score(scipy.special.expit(logits.astype(np.float64)), labels, weights)
    assert found.pop("n") == by_numpy.pop("n") == N
    assert set(found) == set(expected) == set(by_numpy)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name
        assert by_numpy[name] == pytest.approx(value, rel=1e-5), name


def test_metric_of_another_task_and_unknown_label_are_refused():
    with pytest.raises(InputError, match=r"train\.metrics: got top5; expected a metric of several labels"):
        make_scoring(TrainConfig(loss="binary_cross_entropy", metrics=("top5",)), K, "labels", NAMES)
    with pytest.raises(InputError, match=r"train\.metrics: got exact_match; expected a metric of classes"):
        make_scoring(TrainConfig(metrics=("exact_match",)), K, "classes", NAMES)
    train = TrainConfig(loss="binary_cross_entropy", thresholds=(("bea", 0.5),))
    with pytest.raises(InputError, match=r"train\.thresholds: got 'bea'; expected one of ant.*'bee'"):
        make_scoring(train, K, "labels", NAMES)
    with pytest.raises(InputError, match=r"train\.thresholds: .* between 0 and 1"):
        TrainConfig(thresholds=(("bee", 1.5),))


def test_labels_as_pairs_are_combined_one_by_one():
    chances = np.random.default_rng(0).random((2, 5, K))
    pairs = as_pairs(chances)
    assert pairs.shape == (2, 15, 2)
    mean = Combination("mean", (0.5, 0.5)).combine(np.log(pairs))[:, 1].reshape(5, K)
    np.testing.assert_allclose(mean, chances.mean(0))
    np.testing.assert_allclose(log_odds(chances), scipy.special.logit(chances))
    assert np.isfinite(log_odds(np.array([[0.0, 1.0]]))).all()

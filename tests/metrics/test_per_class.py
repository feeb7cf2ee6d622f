"""Scores class by class against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from engine.metrics.per_class import count_confusion, find_best_thresholds, score_classes

N, K = 60, 4
NAMES = tuple("abcd")


@pytest.mark.parametrize("is_weighted", [False, True])
def test_scores_of_classes_equal_those_of_scikit_learn(is_weighted: bool):
    draw = np.random.default_rng(0)
    labels, chances = draw.integers(0, 3, N), draw.dirichlet(np.ones(K), N)  # the last class has no example
    weights = draw.random(N) if is_weighted else None
    parts = (slice(0, 25), slice(25, N))
    counts = [count_confusion(chances[p], labels[p], None if weights is None else weights[p]) for p in parts]
    found = score_classes(NAMES, counts[0] + counts[1])
    given = {"labels": range(K), "sample_weight": weights}
    np.testing.assert_allclose(found.confusion, sklearn.metrics.confusion_matrix(labels, chances.argmax(1), **given))
    expected = sklearn.metrics.precision_recall_fscore_support(labels, chances.argmax(1), zero_division=0, **given)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    name, other, count = found.most_confused[0]
    assert count == found.confusion[NAMES.index(name), NAMES.index(other)]
    assert count == (found.confusion * (1 - np.eye(K))).max()


@pytest.mark.parametrize("is_weighted", [False, True])
def test_scores_of_several_labels_equal_those_of_scikit_learn(is_weighted: bool):
    draw = np.random.default_rng(1)
    labels, chances, thresholds = (
        draw.integers(0, 2, (N, K)).astype(np.uint8),
        draw.random((N, K)),
        [0.2, 0.5, 0.7, 0.9],
    )
    labels[:, 3] = 0
    weights = draw.random(N) if is_weighted else None
    found = score_classes(NAMES, count_confusion(chances, labels, weights, thresholds))
    guesses, given = chances > np.array(thresholds), {"sample_weight": weights}
    expected = sklearn.metrics.multilabel_confusion_matrix(labels, guesses, **given)
    np.testing.assert_allclose(found.confusion, expected)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, guesses, zero_division=0, **given)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert found.most_confused == []


def test_best_thresholds_have_the_highest_f1_of_all():
    draw = np.random.default_rng(2)
    labels = draw.integers(0, 2, (N, K)).astype(np.uint8)
    chances = np.round(np.clip(0.5 * labels + 0.7 * draw.random((N, K)), 0, 1), 1)  # many are equal
    labels[:, 3] = 0
    found = find_best_thresholds(chances, labels)
    for k in range(3):
        precision, recall, _ = sklearn.metrics.precision_recall_curve(labels[:, k], chances[:, k])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        assert sklearn.metrics.f1_score(labels[:, k], chances[:, k] > found[k]) == pytest.approx(best)
    assert found[3] == 0.5

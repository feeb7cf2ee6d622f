"""Pairs equal the table that scikit-learn makes, and take no memory for pairs that never occur."""

import numpy as np
import sklearn.metrics

from engine.metrics.pairs import as_pairs, count_pairs
from engine.metrics.per_class import score_classes
from engine.report.confusion import choose_classes

K = 7


def drawn(num_classes: int, count: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    labels, guesses = draw.integers(0, num_classes, (2, count)).astype(np.int32)
    return labels, guesses, draw.integers(0, 3, count).astype(np.float32)


def test_pairs_are_the_cells_of_the_table():
    labels, guesses, weights = drawn(K)
    for given in (None, weights):
        pairs = count_pairs(labels, guesses, given, K)
        expected = sklearn.metrics.confusion_matrix(labels, guesses, labels=range(K), sample_weight=given)
        np.testing.assert_array_equal(pairs.table, expected)
        np.testing.assert_array_equal(pairs.row(3), expected[3])
        np.testing.assert_array_equal(pairs.among(np.array([5, 1])), expected[np.ix_([5, 1], [5, 1])])
        np.testing.assert_array_equal(pairs.right, np.diagonal(expected))
        np.testing.assert_array_equal(pairs.of_class, expected.sum(1))
        np.testing.assert_array_equal(pairs.as_class, expected.sum(0))
        np.testing.assert_array_equal(as_pairs(expected).table, expected)
        assert pairs.counts.all()


def test_most_classes_that_are_never_taken_for_each_other_take_no_memory():
    num_classes = 10**6  # whose table would take 8 TB
    labels, guesses, _ = drawn(num_classes)
    pairs = count_pairs(labels, guesses, None, num_classes)
    assert len(pairs.counts) <= len(labels)
    scores = score_classes(range(num_classes), pairs)  # type: ignore[arg-type]  # names are not looked at
    assert sum(count for *_, count in scores.most_confused) == (labels != guesses).sum()
    assert set(choose_classes(pairs, 500)) >= set(labels[labels != guesses].tolist())

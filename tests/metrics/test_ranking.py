"""Area below the ROC curve and average precision: as scikit-learn's, with ties and weights, and at the edges."""

import numpy as np
import pytest

from engine.metrics.ranking import average_precision, roc_auc

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the dev extra")


@pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("num_scores", [3, 10_000], ids=["many ties", "few ties"])
def test_scores_of_a_ranking_are_those_of_scikit_learn(num_scores: int, is_weighted: bool):
    draw = np.random.default_rng(num_scores)
    for n in draw.integers(4, 300, 20):
        scores = draw.integers(0, num_scores, n).astype(np.float32)
        is_positive = np.append(draw.random(n - 2) < 0.3, [True, False])
        weights = draw.random(n) + 0.01 if is_weighted else None
        expected = metrics.roc_auc_score(is_positive, scores, sample_weight=weights)
        assert roc_auc(scores, is_positive, weights) == pytest.approx(expected, abs=1e-12)
        expected = metrics.average_precision_score(is_positive, scores, sample_weight=weights)
        assert average_precision(scores, is_positive, weights) == pytest.approx(expected, abs=1e-12)


def test_ranking_without_one_of_the_kinds_has_no_score():
    scores = np.array([0.1, 0.7])
    assert np.isnan(roc_auc(scores, np.ones(2, bool)))
    assert np.isnan(roc_auc(scores, np.zeros(2, bool)))
    assert average_precision(scores, np.ones(2, bool)) == 1
    assert np.isnan(average_precision(scores, np.zeros(2, bool)))
    assert np.isnan(roc_auc(scores, np.array([True, False]), np.array([1.0, 0.0])))
    assert np.isnan(average_precision(np.zeros(0), np.zeros(0, bool)))

"""How good predictions are class by class, or label by label: precision, recall, F1, and what is taken for what."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.metrics.pairs import Pairs, as_pairs, count_pairs


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Precision, recall and F1 of each of k classes, float64[k]: 0 where nothing was predicted, or nothing is there.

    support: how many examples are of each class, or the sum of their weights, float64[k].
    counted: how often each class was taken for each; of several labels a picture float64[k 2 2], for each label: rows
      without and with it, columns predicted without and with it.
    best_thresholds: of several labels a picture, for each the threshold of the highest F1 on these examples; else None.
    """

    class_names: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    counted: Pairs | np.ndarray
    best_thresholds: np.ndarray | None = None

    @property
    def confusion(self) -> np.ndarray:
        """float64[k k], of examples of the class of a row, how many were predicted as that of a column; of several
        labels a picture `counted`. Made when requested: k² numbers."""
        return self.counted.table if isinstance(self.counted, Pairs) else self.counted

    @property
    def most_confused(self) -> list[tuple[str, str, float]]:
        """(class, what it was taken for, how often), the most frequent first; empty of several labels a picture."""
        if not isinstance(self.counted, Pairs):
            return []
        pairs, names = self.counted, self.class_names
        wrong = np.flatnonzero(pairs.rows != pairs.columns)
        order = wrong[np.argsort(-pairs.counts[wrong], kind="stable")]
        found = zip(pairs.rows[order], pairs.columns[order], pairs.counts[order], strict=True)
        return [(names[i], names[j], float(count)) for i, j, count in found]


def count_confusion(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, thresholds: Sequence[float] = ()
) -> np.ndarray:
    """The `confusion` of probabilities [n k] on classes int[n], or on 0 and 1 [n k] by thresholds; tables add up."""
    num, counted = probabilities.shape[1], np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    if labels.ndim == 1:
        return count_pairs(labels, probabilities.argmax(1), weights, num).table
    cells = 2 * (labels > 0) + (probabilities > np.asarray(thresholds)[None])  # [n k]
    tables = [np.bincount(cells[:, k], counted, 4) for k in range(num)]
    return np.stack(tables).reshape(num, 2, 2)


def score_classes(
    class_names: Sequence[str], counted: Pairs | np.ndarray, best_thresholds: np.ndarray | None = None
) -> ClassScores:
    """The scores that Pairs or a confusion table [k k], or of several labels a picture [k 2 2], hold."""
    if isinstance(counted, np.ndarray) and counted.ndim == 3:
        right, predicted, support = counted[:, 1, 1], counted[:, :, 1].sum(1), counted[:, 1].sum(1)
    else:
        counted = as_pairs(counted)
        right, predicted, support = counted.right, counted.as_class, counted.of_class
    scores = (_divide(right, predicted), _divide(right, support), _divide(2 * right, predicted + support))
    return ClassScores(tuple(class_names), *scores, support, counted, best_thresholds)


def find_best_thresholds(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """float64[k]: for each label the threshold of the highest F1, of probabilities [n k] on 0 and 1 [n k].

    Half way between the two probabilities that it separates; of equally good ones the highest; 0.5 of a label that no
    example has.
    """
    counted = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    return np.array([_best_threshold(p, own > 0, counted) for p, own in zip(probabilities.T, labels.T, strict=True)])


def _best_threshold(chances: np.ndarray, has_label: np.ndarray, counted: np.ndarray) -> float:
    if not counted[has_label].sum():
        return 0.5
    order = np.argsort(-chances, kind="stable")
    chances, right = chances[order].astype(np.float64), np.cumsum(np.where(has_label, counted, 0)[order])
    f1 = _divide(2 * right, np.cumsum(counted[order]) + right[-1])
    is_last = np.append(chances[1:] < chances[:-1], True)  # equal ones are predicted together
    best = int(np.argmax(np.where(is_last, f1, -1)))
    below = chances[best + 1] if best + 1 < len(chances) else 0.0
    # float32 probabilities near 1 may have no number of their kind between them.
    return float(np.clip((chances[best] + below) / 2, 1e-6, 1 - 1e-6))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=below > 0)

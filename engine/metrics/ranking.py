"""How well scores put the examples of a class before all others: area below the ROC curve, average precision."""

import numpy as np


def roc_auc(scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """0 to 1: the chance that a positive example has a higher score than a negative one; equal scores count half.

    scores: [n]. is_positive: bool[n]. weights: [n], how much each example counts; None: all the same.
    NaN where all examples that count are of one kind. Hanley and McNeil 1982 (doi:10.1148/radiology.143.1.7063747).
    """
    right, wrong = _count_above(scores, is_positive, weights)
    if not len(right) or not right[-1] or not wrong[-1]:
        return float("nan")
    share_right, share_wrong = (np.append(0, sums) / sums[-1] for sums in (right, wrong))
    return float(np.trapezoid(share_right, share_wrong))


def average_precision(scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """0 to 1: the precision at each distinct score, weighted by the recall that it adds; arguments as of `roc_auc`.

    Not interpolated, as in scikit-learn. NaN where no positive example counts.
    """
    right, wrong = _count_above(scores, is_positive, weights)
    if not len(right) or not right[-1]:
        return float("nan")
    seen = right + wrong
    precision = np.divide(right, seen, out=np.zeros(len(seen)), where=seen > 0)
    return float((np.diff(right, prepend=0) * precision).sum() / right[-1])


def _count_above(
    scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(positives, negatives) with at least each distinct score, the highest first."""
    counted = np.ones(len(scores)) if weights is None else weights.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]  # equal ones are taken together
    counted, has = counted[order], np.asarray(is_positive, bool)[order]
    return np.cumsum(counted * has)[is_last], np.cumsum(counted * ~has)[is_last]

"""Metrics of several labels a picture: outputs are a logit for each label, float[b k], targets 0 or 1 [b k].

Whether a label is predicted is decided by a threshold of its own. In the namespace of the arrays, as in `table`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.metrics.table import LEAST_PROBABILITY, Metric, count_where, mean


def make_label_metrics(thresholds: Sequence[float]) -> dict[str, Metric]:
    """Metric by name, for thresholds [k] of the probabilities above which a label is predicted.

    accuracy: the share of labels that are right, over examples and labels; exact_match: the share of examples of which
    all are. f1_macro: the mean over labels of 2 TP / (2 TP + FP + FN), 0 where there is nothing; f1_micro: the same of
    the sums over labels. nll and brier: of each label as two classes, the mean over labels.
    """
    chances = np.asarray(thresholds, np.float64)
    cuts = np.log(chances) - np.log1p(-chances)

    def predict(outputs: Any) -> Any:
        return outputs > outputs.__array_namespace__().asarray(cuts, dtype=outputs.dtype)[None]

    def are_right(outputs: Any, targets: Any) -> Any:
        return predict(outputs) == (targets > 0)

    def counts(outputs: Any, targets: Any, mask: Any) -> dict[str, Any]:
        guesses, labels = predict(outputs), targets > 0
        found = {"both": guesses & labels, "predicted": guesses, "labelled": labels}
        return {name: count_where(holds, mask) for name, holds in found.items()}

    return {
        "accuracy": mean(lambda outputs, targets: _mean_over_labels(are_right(outputs, targets), outputs)),
        "exact_match": mean(lambda outputs, targets: are_right(outputs, targets).all(-1)),
        "f1_macro": Metric(counts, lambda sums, count: float(_f1(sums).mean())),
        "f1_micro": Metric(counts, lambda sums, count: float(_f1({name: np.sum(s) for name, s in sums.items()}))),
        "nll": mean(_negative_log_likelihood),
        "brier": mean(lambda outputs, targets: ((_sigmoid(outputs) - targets) ** 2).mean(-1)),
    }


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """float64 logits of probabilities; those nearer to 0 or 1 than LEAST_PROBABILITY count as that."""
    chances = probabilities.astype(np.float64)
    return np.log(np.maximum(chances, LEAST_PROBABILITY)) - np.log(np.maximum(1 - chances, LEAST_PROBABILITY))


def as_pairs(probabilities: Any, xp: Any = np) -> Any:
    """[… n·k 2] of probabilities [… n k]: each label as two classes, without it and with it."""
    pairs = xp.stack([1 - probabilities, probabilities], -1)
    return pairs.reshape(*probabilities.shape[:-2], -1, 2)  # [… n k 2] → [… n·k 2]


def _f1(sums: dict[str, Any]) -> Any:
    found = sums["predicted"] + sums["labelled"]
    return np.divide(2 * sums["both"], found, out=np.zeros(np.shape(found)), where=found > 0)


def _mean_over_labels(holds: Any, like: Any) -> Any:
    return holds.astype(like.dtype).mean(-1)


def _sigmoid(logits: Any) -> Any:
    xp = logits.__array_namespace__()
    return xp.exp(-xp.logaddexp(xp.zeros_like(logits), -logits))


def _negative_log_likelihood(logits: Any, targets: Any) -> Any:
    xp = logits.__array_namespace__()
    return (xp.logaddexp(xp.zeros_like(logits), logits) - targets * logits).mean(-1)

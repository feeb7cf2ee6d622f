"""Metrics: sums over the examples of a batch that add up to those of a dataset, and a number computed from them.

Outputs are logits or log-probabilities float[b k] with targets int[b] where there are classes, as many as outputs, and
the outputs of a regression float[b d] with targets float[b d] elsewhere. Arrays are of JAX within compiled programs and
of NumPy, in float64, for the combined predictions of an ensemble: functions take the namespace of what they are given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import InputError, defined_at, problem

CALIBRATION_BINS = 15
# The smallest normal float32, about 1.2e-38: probabilities below it have its logarithm, -87.3, and not -inf.
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Metric:
    """A number over examples that is computed from sums.

    sums: (outputs, targets, mask bool[b] of the examples that count) → an array or a tree of arrays, which add up.
      Where examples have weights, mask is float[b]: these, and 0 for those that do not count.
    compute: (the sums over all batches, how many examples were seen or the sum of their weights) → the metric.
    """

    sums: Callable[[Any, Any, Any], Any]
    compute: Callable[[Any, float], float]


def mean(values: Callable[[Any, Any], Any]) -> Metric:
    """The mean over examples of (outputs, targets) → [b]; truth values are counted, exactly below 2³¹."""

    def sums(outputs: Any, targets: Any, mask: Any) -> Any:
        found = values(outputs, targets)
        shape = getattr(found, "shape", None)
        if shape != mask.shape:  # which would be broadcast over the batch
            got = "no array" if shape is None else f"an array {[*shape]} for {len(mask)} examples"
            remedy = "Leave the mean to the engine."
            raise InputError(
                problem(
                    "train.metrics",
                    f"a function{defined_at(getattr(values, 'func', values))}, which gives {got}",
                    "one value an example, [b]",
                    remedy,
                )
            )
        xp = found.__array_namespace__()
        if mask.dtype != bool:
            return xp.sum(xp.where(mask > 0, found * mask, 0))
        if found.dtype == bool:
            return xp.sum(found & mask, dtype=xp.int32)
        return xp.sum(xp.where(mask, found, 0))

    return Metric(sums, lambda total, count: float(total) / float(count))


def count_where(holds: Any, mask: Any) -> Any:
    """[k]: how many examples count, or the sum of their weights, where bool[b k] holds; int32 without weights."""
    xp = holds.__array_namespace__()
    if mask.dtype == bool:
        return xp.sum(holds & mask[:, None], axis=0, dtype=xp.int32)
    return xp.sum(xp.where(holds, mask[:, None], 0), axis=0)


def label_rank(outputs: Any, labels: Any) -> Any:
    """int[b]: how many classes come before the label; of equal outputs the earlier class does, and NaN comes last."""
    xp = outputs.__array_namespace__()
    own = xp.take_along_axis(outputs, labels[:, None], axis=-1)
    is_before = xp.arange(outputs.shape[-1])[None] < labels[:, None]  # [b k]
    return xp.sum(~(outputs < own) & ((outputs != own) | is_before), axis=-1)


def probabilities_of(logits: Any) -> Any:
    """The softmax [b k] of logits [b k]."""
    xp = logits.__array_namespace__()
    shares = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return shares / xp.sum(shares, axis=-1, keepdims=True)


def reliability_sums(probabilities: Any, labels: Any, mask: Any, num_bins: int = CALIBRATION_BINS) -> dict[str, Any]:
    """Examples, their confidence and their right answers in each of `num_bins` bins of confidence of equal width.

    A bin holds what is above its lower edge, up to and with its upper one.
    """
    xp = probabilities.__array_namespace__()
    confidence, edges = xp.max(probabilities, axis=-1), xp.linspace(0, 1, num_bins + 1)
    # Rounding can leave a confidence slightly above 1.
    bins = xp.clip(xp.searchsorted(edges, confidence) - 1, 0, num_bins - 1)
    is_in = bins[:, None] == xp.arange(num_bins)[None]  # [b bins]
    is_right = label_rank(probabilities, labels) < 1
    return {
        "counts": count_where(is_in, mask),
        "confidence_sums": xp.sum(xp.where(is_in & (mask[:, None] > 0), (confidence * mask)[:, None], 0), axis=0),
        "num_right": count_where(is_in & is_right[:, None], mask),
    }


def _negative_log_likelihood(logits: Any, labels: Any) -> Any:
    """-log of the label's probability, in nats; of shares [b k] for labels, the mean by these."""
    xp = logits.__array_namespace__()
    if labels.ndim == 2:
        largest = xp.max(logits, axis=-1, keepdims=True)
        return xp.log(xp.sum(xp.exp(logits - largest), axis=-1)) - xp.sum(labels * (logits - largest), axis=-1)
    largest = xp.max(logits, axis=-1, keepdims=True)
    own = xp.take_along_axis(logits, labels[:, None], axis=-1)
    return (xp.log(xp.sum(xp.exp(logits - largest), axis=-1, keepdims=True)) - (own - largest))[:, 0]


def _brier_score(logits: Any, labels: Any) -> Any:
    """The sum over classes of squared differences to the label's 1 and the others' 0: 0 to 2 (Brier 1950).

    With two classes it is twice the one that looks at a single class.
    """
    xp = logits.__array_namespace__()
    is_label = xp.arange(logits.shape[-1])[None] == labels[:, None]
    return xp.sum(xp.square(probabilities_of(logits) - is_label), axis=-1)


def _class_counts(outputs: Any, labels: Any, mask: Any) -> dict[str, Any]:
    xp = outputs.__array_namespace__()
    is_label = xp.arange(outputs.shape[-1])[None] == labels[:, None]  # [b k]
    is_right = label_rank(outputs, labels) < 1
    return {"right": count_where(is_label & is_right[:, None], mask), "seen": count_where(is_label, mask)}


def _f1_counts(outputs: Any, labels: Any, mask: Any) -> dict[str, Any]:
    xp = outputs.__array_namespace__()
    ranks, classes = label_rank(outputs, labels), xp.arange(outputs.shape[-1])[None]
    is_label, is_guess = classes == labels[:, None], classes == xp.argmax(outputs, axis=-1)[:, None]  # [b k]
    found = {"both": is_label & (ranks < 1)[:, None], "predicted": is_guess, "labelled": is_label}
    return {name: count_where(holds, mask) for name, holds in found.items()}


def _mean_f1(sums: dict[str, Any], count: float) -> float:
    """The mean of F1 over the classes that were seen or predicted."""
    found = sums["predicted"] + sums["labelled"]
    return float((2 * sums["both"][found > 0] / found[found > 0]).mean())


def _mean_recall(sums: dict[str, Any], count: float) -> float:
    """The mean over the classes that were seen of the share of their examples that are right."""
    is_seen = sums["seen"] > 0
    return float((sums["right"][is_seen] / sums["seen"][is_seen]).mean())


def _calibration_error(sums: dict[str, Any], count: float) -> float:
    """The distance of confidence and accuracy, averaged over examples: 0 to 1 (Guo et al. 2017, arXiv:1706.04599)."""
    return float(abs(sums["num_right"] - sums["confidence_sums"]).sum() / count)


METRICS: dict[str, Metric] = {
    "accuracy": mean(lambda outputs, labels: label_rank(outputs, labels) < 1),
    "top5": mean(lambda outputs, labels: label_rank(outputs, labels) < 5),
    "balanced_accuracy": Metric(_class_counts, _mean_recall),
    "f1_macro": Metric(_f1_counts, _mean_f1),
    "nll": mean(_negative_log_likelihood),
    "brier": mean(_brier_score),
    "ece": Metric(
        lambda logits, labels, mask: reliability_sums(probabilities_of(logits), labels, mask), _calibration_error
    ),
    "mean_squared_error": mean(lambda outputs, targets: ((outputs - targets) ** 2).mean(axis=-1)),
    "mean_absolute_error": mean(lambda outputs, targets: abs(outputs - targets).mean(axis=-1)),
}


def safe_logarithms(probabilities: np.ndarray) -> np.ndarray:
    """float64 natural logarithms of probabilities; one below LEAST_PROBABILITY counts as that."""
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY, dtype=np.float64))


def score_outputs(
    metrics: dict[str, Metric], outputs: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, Any]:
    """n and the metrics of outputs [n k] on targets, by weights [n] if any, in float64; NaN where nothing counts."""
    n, outputs = len(outputs), outputs.astype(np.float64)
    mask = np.ones(n, bool) if weights is None else weights.astype(np.float64)
    if not mask.any():
        return {"n": n, **dict.fromkeys(metrics, float("nan"))}
    total = n if weights is None else float(mask.sum())
    return {"n": n, **{name: each.compute(each.sums(outputs, targets, mask), total) for name, each in metrics.items()}}

"""How good class probabilities are, and how sure the members of an ensemble are of them. Logarithms are natural."""

from dataclasses import dataclass

import numpy as np

from engine.metrics.combination import mean_probabilities, vote_shares
from engine.metrics.table import (
    CALIBRATION_BINS,
    LEAST_PROBABILITY,
    METRICS,
    reliability_sums,
    safe_logarithms,
    score_outputs,
)


@dataclass(frozen=True, eq=False)
class Reliability:
    """What a reliability diagram shows: the likeliest class of each example, in bins of equal width by its probability.

    Sums and counts over the examples of each of b bins; tables of several models add up. A bin holds what is above its
    lower edge, up to and with its upper one.
    """

    counts: np.ndarray
    confidence_sums: np.ndarray
    num_right: np.ndarray

    def __add__(self, other: "Reliability") -> "Reliability":
        sums = (self.confidence_sums + other.confidence_sums, self.num_right + other.num_right)
        return Reliability(self.counts + other.counts, *sums)

    @property
    def edges(self) -> np.ndarray:
        """float64[b + 1], 0 to 1."""
        return np.linspace(0, 1, len(self.counts) + 1)

    @property
    def confidence(self) -> np.ndarray:
        """float64[b]: the mean probability of the likeliest class; NaN in empty bins."""
        return _quotients(self.confidence_sums, self.counts)

    @property
    def accuracy(self) -> np.ndarray:
        """float64[b]: the share of examples whose label is the likeliest class; NaN in empty bins."""
        return _quotients(self.num_right, self.counts)

    @property
    def n(self) -> int:
        """How many examples there are."""
        return int(self.counts.sum())

    @property
    def expected_calibration_error(self) -> float:
        """0 to 1: the distance of confidence and accuracy, averaged over examples; NaN if there are none.

        Naeini et al. 2015 (AAAI); Guo et al. 2017 (arXiv:1706.04599), equation 3.
        """
        return float(np.abs(self.num_right - self.confidence_sums).sum() / self.n) if self.n else float("nan")


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How sure an ensemble is of each example, float64[n] each.

    disagreement: the share of members that do not vote for the class with the most votes: Freeman's variation ratio
      (1965), 0 to 1 - 1/k.
    predictive_entropy: in nats, of the mean of the members' probabilities, 0 to log k.
    mutual_information: in nats, of the prediction and the member: predictive_entropy less the mean of the members' own
      entropies. What BALD selects by (Houlsby et al. 2011, arXiv:1112.5745).
    """

    disagreement: np.ndarray
    predictive_entropy: np.ndarray
    mutual_information: np.ndarray


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """n, accuracy, nll, brier and ece of probabilities [n k] on labels int[n]; NaN where there are no examples."""
    metrics = {name: METRICS[name] for name in ("accuracy", "nll", "brier", "ece")}
    return score_outputs(metrics, safe_logarithms(probabilities), labels)


def reliability(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = CALIBRATION_BINS) -> Reliability:
    """Confidence and accuracy of probabilities [n k] on labels int[n] in bins of equal width."""
    is_counted = np.ones(len(labels), bool)
    return Reliability(**reliability_sums(probabilities.astype(np.float64), labels, is_counted, num_bins))


def uncertainty(log_probabilities: np.ndarray, weights: np.ndarray) -> Uncertainty:
    """How sure the members with log-probabilities [m n k] are, counted by their weights [m]; those of 0 not at all."""
    own = np.zeros(log_probabilities.shape[1])
    for i in np.flatnonzero(weights):
        own += weights[i] * entropy(np.exp(log_probabilities[i], dtype=np.float64))
    predictive = entropy(mean_probabilities(log_probabilities, weights))
    disagreement = 1 - vote_shares(log_probabilities, weights).max(axis=-1)
    # Neither is ever negative but by rounding.
    return Uncertainty(np.maximum(disagreement, 0), predictive, np.maximum(predictive - own, 0))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """[n]: -Σ p log p in nats over the classes of probabilities [n k]; a class of probability 0 adds nothing."""
    logs = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    return np.maximum(-np.einsum("nk,nk->n", probabilities, logs), 0)


def _quotients(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

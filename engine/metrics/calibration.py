"""How good class probabilities are, and how sure the members of an ensemble are of them. Logarithms are natural."""

from dataclasses import dataclass

import numpy as np

from engine.metrics.combination import LEAST_PROBABILITY, mean_probabilities, vote_shares

CALIBRATION_BINS = 15


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
    return {
        "n": len(labels),
        "accuracy": accuracy(probabilities, labels),
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier_score(probabilities, labels),
        "ece": reliability(probabilities, labels).expected_calibration_error,
    }


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose label is the likeliest class, of equally likely ones the first; NaN is not right."""
    return _mean(_is_right(probabilities, labels))


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log of the label's probability, in nats; one below LEAST_PROBABILITY counts as that, 87.3 nats."""
    own = probabilities[np.arange(len(labels)), labels]
    return _mean(-np.log(np.maximum(own, LEAST_PROBABILITY, dtype=np.float64)))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over examples of the sum over classes of squared differences to the label's 1 and the others' 0: 0 to 2.

    Brier's own definition (1950). With two classes it is twice the one that looks at a single class.
    """
    differences = np.array(probabilities, np.float64)
    differences[np.arange(len(labels)), labels] -= 1
    return _mean(np.einsum("nk,nk->n", differences, differences))


def reliability(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = CALIBRATION_BINS) -> Reliability:
    """Confidence and accuracy of probabilities [n k] on labels int[n] in bins of equal width."""
    confidence, edges = probabilities.max(axis=-1).astype(np.float64), np.linspace(0, 1, num_bins + 1)
    # Rounding can leave a confidence slightly above 1.
    bins = np.clip(np.searchsorted(edges, confidence) - 1, 0, num_bins - 1)
    sums = (np.bincount(bins, values, num_bins) for values in (confidence, _is_right(probabilities, labels)))
    return Reliability(np.bincount(bins, minlength=num_bins), *sums)


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


def _is_right(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    guesses = probabilities.argmax(axis=-1)  # of a row with NaN the place of the first
    return (guesses == labels) & ~np.isnan(probabilities[np.arange(len(labels)), guesses])


def _quotients(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")

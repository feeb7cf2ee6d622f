"""How the members of an ensemble become one prediction: the ways to combine them, and what is fitted to do so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.config import CombinationKind
from engine.errors import InputError, problem, unknown
from engine.metrics.table import LEAST_PROBABILITY
from engine.records import check, check_all

TIE_BREAK = 1e-3
MOST_TEMPERATURE = 20.0  # and the inverse is the least
GREEDY_ROUNDS = 100
MOST_ITERATIONS = 2_000
TOLERANCE_NATS = 1e-5  # the standard error of a loss over 10,000 examples is near 5e-3


@dataclass(frozen=True)
class Combination:
    """Makes the log-probabilities [m n k] of m members into probabilities [n k]. Turns to JSON and back.

    method: `mean` is the mean of probabilities, as are `weighted` and `greedy`, whose weights were fitted. `logits` is
      the mean of logits. `vote` is the share of members whose likeliest class it is; the mean of probabilities, which
      is TIE_BREAK of the result, decides ties.
    weights: one a member, 0 or more, in sum 1. The outputs of a member whose weight is 0 are not looked at.
    temperature: what the logarithms of the combined probabilities are divided by, before they are normalized again.
    """

    method: CombinationKind
    weights: tuple[float, ...]
    temperature: float = 1.0

    def __post_init__(self):
        check_all(self, "combination", self._range_problems)

    def _range_problems(self) -> list[str]:
        is_share = min(self.weights, default=-1) >= 0 and abs(sum(self.weights) - 1) < 1e-6
        rule = "one number of 0 or more a member, 1 in sum"
        problems = check("combination.weights", self.weights, is_share, rule, "Divide them by their sum.")
        holds = self.temperature > 0
        return problems + check("combination.temperature", self.temperature, holds, "a positive number", "Give 1.")

    def combine(self, log_probabilities: Any, xp: Any = np) -> Any:
        """[n k], rows that sum to 1, of log-probabilities [m n k]: float64, or by xp=jax.numpy float32, traceable.

        Takes the memory of a few arrays [n k]. Arrays of members whose weight is 0 are not looked at. Logarithms of 0
        (-inf) are allowed. Where a temperature is applied, probabilities below LEAST_PROBABILITY count as that.
        """
        assert len(log_probabilities) == len(self.weights)
        combined = METHODS[self.method](log_probabilities, self.weights, xp)
        return combined if self.temperature == 1 else _softmax(take_logarithms(combined, xp) / self.temperature, xp)


def fit(
    method: CombinationKind,
    log_probabilities: np.ndarray | None,
    labels: np.ndarray | None,
    fit_temperature: bool,
    alive: np.ndarray,
    counted: np.ndarray | None = None,
) -> Combination:
    """The combination of the members that are alive, bool[m]; the others get weight 0 and may have any outputs.

    log_probabilities [m n k] and labels int[n], or shares of classes [n k], are the validation data, None or of no
    examples where there is none; then `weighted`, `greedy` and a temperature cannot be fitted. A temperature is fitted
    to what is combined, not to each member: of the orders to do it in the better one (Rahaman and Thiery 2021,
    arXiv:2007.08792).
    counted: [n], 0 or more, how much each example counts; None: all the same.
    Raises InputError for that, for an unknown method, and if no member is alive.
    """
    if method not in METHODS:
        raise InputError(unknown("ensemble.combine", method, METHODS))
    if not alive.any():
        got, rule = f"no member of {len(alive)} with a finite loss", "at least one to combine"
        raise InputError(problem("train.members", got, rule, "Lower optim.learning_rate."))
    weights = alive / alive.sum()
    if log_probabilities is None or labels is None or not len(labels):
        _check_needs_no_data(method, fit_temperature)
        return Combination(method, tuple(weights.tolist()))
    if method in FITTED_WEIGHTS:
        examples, classes, shares = _marked(labels, counted)
        likelihoods = label_likelihoods(log_probabilities, classes, np.flatnonzero(alive), examples)
        weights[alive] = FITTED_WEIGHTS[method](likelihoods, shares)
    combination = Combination(method, tuple(weights.tolist()))
    if not fit_temperature:
        return combination
    return replace(combination, temperature=fit_scaling(combination.combine(log_probabilities), labels, counted))


def mean_probabilities(log_probabilities: Any, weights: Sequence[float] | np.ndarray, xp: Any = np) -> Any:
    """[n k]: the weighted mean over members of the probabilities whose logarithms are given [m n k]."""
    total = sum_weighted(log_probabilities, weights, lambda logs: xp.exp(_widened(logs, xp)))
    return total / total.sum(axis=-1, keepdims=True)  # float32 logarithms are normalized to about 1e-6


def vote_shares(log_probabilities: Any, weights: Sequence[float] | np.ndarray, xp: Any = np) -> Any:
    """[n k]: the weighted share of members whose likeliest class it is, of equally likely ones the first."""

    def votes(logs: Any) -> Any:
        return _widened(logs.argmax(axis=-1)[:, None] == xp.arange(logs.shape[-1])[None], xp)

    return sum_weighted(log_probabilities, weights, votes)


def _mean_logits(log_probabilities: Any, weights: Sequence[float] | np.ndarray, xp: Any) -> Any:
    """The normalized geometric mean of probabilities.

    It equals the softmax of the mean of the logits, from which logarithms of probabilities differ by one number for
    each member and example, and softmax does not see those. A class that any member rules out (-inf) is ruled out.
    """
    # A number in place of -inf: where every class is ruled out by some member, -inf everywhere would give NaN.
    least = float(np.finfo(np.float32).min)
    return _softmax(sum_weighted(log_probabilities, weights, lambda logs: xp.maximum(_widened(logs, xp), least)), xp)


def _majority_vote(log_probabilities: Any, weights: Sequence[float] | np.ndarray, xp: Any) -> Any:
    """Shares of votes, of which TIE_BREAK is the mean of probabilities: it decides ties, and can overturn no vote."""
    share = min(TIE_BREAK, 1 / (np.count_nonzero(weights) + 1))
    means = mean_probabilities(log_probabilities, weights, xp)
    return vote_shares(log_probabilities, weights, xp) * (1 - share) + share * means


def sum_weighted(
    arrays: Any, weights: Sequence[float] | np.ndarray, function: Callable[[Any], Any] = lambda array: array
) -> Any:
    """[n k]: the weighted sum of a function of each member's array; one by one, which needs no second array [m n k]."""
    return sum(weight * function(arrays[i]) for i, weight in enumerate(weights) if weight)


def _widened(array: Any, xp: Any) -> Any:
    """In the widest floats of an array namespace: float64 of NumPy, float32 of JAX."""
    return array.astype(xp.result_type(float))


def label_likelihoods(
    log_probabilities: np.ndarray, labels: np.ndarray, members: np.ndarray, examples: np.ndarray | None = None
) -> np.ndarray:
    """float64[m n]: the probability that each of `members` int[m] gives the label, as a share of the largest.

    Weights that minimize the negative log-likelihood of a mean of probabilities depend on nothing else: what an example
    is divided by adds a constant to it.
    """
    examples = np.arange(len(labels)) if examples is None else examples  # those that the labels are of
    logs = log_probabilities[members[:, None], examples, labels]
    logs = np.maximum(logs, np.finfo(np.float32).min, dtype=np.float64)
    return np.maximum(np.exp(logs - logs.max(axis=0)), np.finfo(np.float64).tiny)


def mixture_weights(likelihoods: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """float64[m] on the simplex: weights of a mean of probabilities that minimize its negative log-likelihood.

    counted: as of `fit`.

    The problem is convex. Solved by expectation maximization for the weights of a mixture (Dempster, Laird and Rubin
    1977, section 4.3), which for fixed components is Cover's algorithm for the log-optimal portfolio (IEEE Transactions
    on Information Theory 30, 1984). It stops as that does: the loss is at most max(gains) - 1 nats above the least.
    """
    weights, shares = np.full(len(likelihoods), 1 / len(likelihoods)), _shares(likelihoods.shape[1], counted)
    for _ in range(MOST_ITERATIONS):
        gains = likelihoods @ (shares / (weights @ likelihoods))
        if gains.max() - 1 < TOLERANCE_NATS:
            break
        weights *= gains
    return weights / weights.sum()


def greedy_weights(likelihoods: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """float64[m] on the simplex: how often each member is chosen by ensemble selection with replacement.

    GREEDY_ROUNDS times the member is added, again if it is there already, with which the negative log-likelihood of the
    mean is least; of all rounds the best one counts (Caruana et al. 2004, ICML). To stop at the first round without a
    gain would end with the best member alone where another one helps, but not half of it.
    """
    counts, total = np.zeros(len(likelihoods)), np.zeros(likelihoods.shape[1])
    best, least, shares = counts, np.inf, _shares(likelihoods.shape[1], counted)
    for size in range(1, GREEDY_ROUNDS + 1):
        losses = np.log(size) - np.log(total + likelihoods) @ shares
        chosen = int(losses.argmin())
        counts[chosen] += 1
        total += likelihoods[chosen]
        if losses[chosen] < least:
            best, least = counts / size, losses[chosen]
    return best


def fit_scaling(probabilities: np.ndarray, labels: np.ndarray, counted: np.ndarray | None = None) -> float:
    """The temperature, 1 / MOST_TEMPERATURE to MOST_TEMPERATURE, of the least negative log-likelihood of labels int[n].

    Divides the logarithms of probabilities [n k] (Guo et al. 2017, arXiv:1706.04599, section 4.2; softmax makes logits
    and logarithms of probabilities the same); those below LEAST_PROBABILITY count as that. The loss is convex in the
    inverse of the temperature, so that there is one minimum.
    """
    from scipy.optimize import minimize_scalar  # takes 0.1 s to import, which a prediction need not wait for

    logs = take_logarithms(probabilities)
    logs -= logs.max(axis=-1, keepdims=True)
    examples, classes, shares = _marked(labels, counted)
    own = logs[examples, classes] @ shares
    of_examples = np.bincount(examples, shares, len(labels))

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return np.log(np.exp(logs * inverse).sum(axis=-1)) @ of_examples - own * inverse

    bound = np.log(MOST_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _shares(num: int, counted: np.ndarray | None) -> np.ndarray:
    """float64[n] in sum 1: how much each of n examples counts."""
    return np.full(num, 1 / num) if counted is None else counted / counted.sum(dtype=np.float64)


def _marked(labels: np.ndarray, counted: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(example, class, how much it counts) of each label, arrays of one length: of shares [n k] all that are not 0."""
    if labels.ndim == 1:
        return np.arange(len(labels)), labels, _shares(len(labels), counted)
    amounts = labels if counted is None else labels * counted[:, None]
    examples, classes = np.nonzero(amounts)
    return examples, classes, _shares(len(examples), amounts[examples, classes])


def _check_needs_no_data(method: CombinationKind, fit_temperature: bool) -> None:
    got, rule = "no validation data", "some to fit it on"
    if method in FITTED_WEIGHTS:
        remedy = "Set data.validation_fraction, or choose mean, logits or vote."
        raise InputError(problem("ensemble.combine", f"{method!r} and {got}", rule, remedy))
    if fit_temperature:
        remedy = "Set data.validation_fraction, or leave the temperature out."
        raise InputError(problem("ensemble.temperature", f"True and {got}", rule, remedy))


def take_logarithms(probabilities: Any, xp: Any = np) -> Any:
    """Natural logarithms [… k], of probabilities below LEAST_PROBABILITY that of it."""
    return xp.log(xp.maximum(_widened(probabilities, xp), LEAST_PROBABILITY))


def _softmax(logs: Any, xp: Any) -> Any:
    shares = xp.exp(logs - logs.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


METHODS: dict[CombinationKind, Callable[[Any, Any, Any], Any]] = {
    "mean": mean_probabilities,
    "logits": _mean_logits,
    "vote": _majority_vote,
    "weighted": mean_probabilities,
    "greedy": mean_probabilities,
}
FITTED_WEIGHTS: dict[CombinationKind, Callable[[np.ndarray, np.ndarray | None], np.ndarray]] = {
    "weighted": mixture_weights,
    "greedy": greedy_weights,
}

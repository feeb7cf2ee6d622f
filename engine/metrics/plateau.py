"""The plateau schedule: what an epoch's learning rate is multiplied by, a function of the history of the run alone."""

from collections.abc import Sequence

import numpy as np

from engine.config import RunConfig
from engine.metrics.stopping import LEAST, Row, member_history, score, validation_history


def rate_factors(config: RunConfig, history: Sequence[Row], since: int = 0) -> np.ndarray | None:
    """float32 (), or [m] of an ensemble, whose members each have their own: share of the learning rate after these
    epochs, at least `optim.final_fraction`. None with any other schedule.

    As Keras's ReduceLROnPlateau with patience `optim.step_epochs`, judged by `train.best_by`. since: the step at which
    the run was resumed with this schedule or another rate, before which no epoch counts: a new rate is the rate.
    """
    if config.optim.schedule != "plateau":
        return None
    history = [row for row in history if row["step"] > since] if since else history
    train = config.train
    numbers = range(train.first_member, train.first_member + train.members)
    courses = (
        [member_history(train, history, n) for n in numbers] if train.members > 1 else [validation_history(history)]
    )
    factors = np.array([_factor(config, metrics) for metrics in courses], np.float32)
    return factors if train.members > 1 else factors[0]


def _factor(config: RunConfig, metrics: Sequence[Row]) -> float:
    """The product of the drops so far."""
    optim, best, waited, factor = config.optim, LEAST, 0, 1.0
    for each in metrics:
        found = score(config.train, each)
        best, waited = (found, 0) if found > best else (best, waited + 1)
        if waited >= optim.step_epochs:
            factor, waited = max(factor * optim.step_factor, optim.final_fraction), 0
    return factor


def describe_drop(config: RunConfig, history: Sequence[Row], since: int = 0) -> str | None:
    """A line where the last epoch lowers the learning rate of those that follow; else None."""
    before, after = (rate_factors(config, rows, since) for rows in (history[:-1], history))
    if before is None or after is None or (before == after).all():
        return None
    scale = config.scaled_optim.learning_rate / config.optim.learning_rate
    own = np.asarray(config.ensemble.learning_rates or config.optim.learning_rate) * scale
    rates = [f"{rate:g}" for rate in np.unique(own * after)[::-1]]
    count = config.optim.step_epochs
    why = f"after {count} epoch{'s' * (count > 1)} without a better one (optim.schedule plateau)"
    return f"learning rate {' to '.join((rates[0], rates[-1])[: len(rates)])} from here on, {why}"

"""The learning-rate range test of Smith (2017, arXiv 1506.01186): a short run whose rate rises from step to step."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from engine.config import EnsembleConfig, RunConfig
from engine.data.decoded.dataset import Splits
from engine.devices.precision import computes
from engine.errors import InputError, Say, problem
from engine.host.clock import Clock
from engine.metrics.sums import WEIGHT, Metrics
from engine.records import check, check_whole
from engine.records.custom import custom
from engine.runs.inputs import match_to_data
from engine.runs.session import Session

LOWEST, HIGHEST, NUM_RATES = 1e-6, 10.0, 100
DIVERGED = 4.0  # times the lowest loss so far, at which fastai and Lightning stop too
SMOOTHED_RATES = 3.0  # the standard deviation of the smoothing
NOISES = 2.0  # Standard deviations of single losses: of 100 without a trend, the smoothed ones differ by 1.5 at most.


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossTrace(Metrics):
    """In the place of a run's totals: count, the steps so far; sums["loss"], float32[n], the mean loss of each."""

    def __add__(self, other: Metrics) -> "LossTrace":
        weight = other.sums.get(WEIGHT, other.count)
        losses = self.sums["loss"].at[self.count].set(other.sums["loss"] / weight)
        return LossTrace(self.count + 1, {"loss": losses})


@dataclass(frozen=True, eq=False)
class RateSearch:
    """Rates [n], ascending; the loss of one batch at each, before its update; smoothed [≤ n], until it diverges.

    suggestion: where the smoothed loss falls fastest with the logarithm of the rate; None where it does not fall.
    lowest: the rate at which it is lowest, from which on training gets worse. has_diverged: whether it did in the end.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    lowest: float
    has_diverged: bool

    def draw(self, path: str | PathLike[str]) -> Path:
        """Draws losses and suggestion to a PNG."""
        from engine.report.rates import draw_rates

        draw_rates(self.rates, self.losses, self.smoothed, self.suggestion, Path(path))
        return Path(path)


def rise(steps: int, ratio: float, num_rates: int) -> Callable[[Any], Any]:
    """The schedule of the test: factors from 1 to `ratio` in equal proportions."""
    return lambda step: ratio ** (step / (num_rates - 1))


@computes
def search_rates(
    config: RunConfig,
    splits: Splits,
    say: Say,
    low: float = LOWEST,
    high: float = HIGHEST,
    num_rates: int = NUM_RATES,
) -> RateSearch:
    """Trains one step at each rate from `low` to `high`, from the start of the run that `config` describes.

    Nothing is written. Of an ensemble its first member. Raises InputError as a run would, and for a range that is none.
    """
    if problems := _range_problems(low, high, num_rates):
        raise InputError(*problems)
    config, splits, notes = match_to_data(config, splits, None)
    for note in notes:
        say(note)
    say(f"testing {num_rates} learning rates from {low:g} to {high:g}, a step each …")
    session = Session(_as_test(config, len(splits.train), low, high, num_rates), Splits(splits.train), Clock(), Path())
    session.report_to(say)
    try:
        losses = _train(session, num_rates)
    finally:
        session.close()
    return judge_losses(np.geomspace(low, high, num_rates)[: len(losses)], losses)


def judge_losses(rates: np.ndarray, losses: np.ndarray) -> RateSearch:
    """What the losses [n] at ascending rates [n] advise."""
    end = _find_divergence(losses)
    has_diverged, end = end is not None, len(losses) if end is None else end
    if not end:
        raise InputError(problem("low", f"{rates[0]:g}", "a rate at which the loss is finite", "Give a lower one."))
    smoothed = _smooth(losses[:end])
    lowest = int(smoothed.argmin())
    steepest = _find_fall(losses[: lowest + 1], smoothed[: lowest + 1])
    suggestion = None if steepest is None else float(rates[steepest])
    return RateSearch(rates, losses, smoothed, suggestion, float(rates[lowest]), has_diverged)


def _find_fall(losses: np.ndarray, smoothed: np.ndarray) -> int | None:
    """Where the smoothed losses, which end at their lowest, fall fastest; None if they fall no more than by chance.

    Only behind the last place where they are still near the top, so that no wave before the fall is taken for it.
    """
    drop = smoothed.max() - smoothed[-1]
    if drop <= NOISES * np.std(losses - smoothed):
        return None
    start = np.flatnonzero(smoothed >= smoothed.max() - 0.1 * drop)[-1]
    return int(start + np.gradient(smoothed)[start:].argmin())


def _range_problems(low: float, high: float, num_rates: int) -> list[str]:
    problems = check("low", low, 0 < low < float("inf"), "a positive number", "Give 1e-6 or so.")
    problems += check("high", high, low < high < float("inf"), f"a number above {low:g} (low)", "Give 10 or so.")
    return problems + check_whole("num_rates", num_rates, 10, "Give 100 or so.")


def _as_test(config: RunConfig, num_examples: int, low: float, high: float, num_rates: int) -> RunConfig:
    """The config of the run that is the test."""
    if config.optim.scale_rate_with is not None:
        rule, remedy = "none, as rates are tried as they are", "Leave it out: what is found is for this batch size."
        raise InputError(problem("optim.scale_rate_with", config.optim.scale_rate_with, rule, remedy))
    schedule = custom(rise, ratio=high / low, num_rates=num_rates)
    optim = replace(config.optim, learning_rate=low, schedule=schedule, warmup_epochs=0.0, average_decay=None)
    epochs = -(-num_rates * config.train.batch_size // num_examples)
    train = replace(config.train, epochs=epochs, members=1, folds=None, fold=None, average_every=1)
    train = replace(train, patience=None, min_delta=0.0, start_epoch=0)
    return replace(config, train=train, optim=optim, ensemble=EnsembleConfig())


def _train(session: Session, num_rates: int) -> np.ndarray:
    """float32[≤ n]: the losses of the steps; fewer where they diverge. In calls of one program, as a run's."""
    trace: Metrics = LossTrace(np.int32(0), {"loss": np.full(num_rates, np.nan, np.float32)})
    state, num_examples, step = session.state, len(session.splits.train), 0
    program, feed, pacer = session.equipment.program, session.equipment.feed, session.pacer
    losses = np.zeros(0, np.float32)
    while step < num_rates:
        epoch, position = divmod(step, session.steps_per_epoch)
        order = program.order(epoch, num_examples)
        window = feed.window(epoch, position, order)
        count = pacer.steps(min(window.end - position, num_rates - step))
        with session.clock.measure("train"):
            state, trace, _ = program.train(state, window, num_examples, order, position, count, trace, np.array(True))
        step += count
        losses = np.asarray(trace.sums["loss"])[:step]
        if _find_divergence(losses) is not None:
            break
    return losses


def _find_divergence(losses: np.ndarray) -> int | None:
    """The first loss that is not finite, or at which the median of the last five is far above the lowest one before."""
    finite = np.isfinite(losses)
    end = len(losses) if finite.all() else int(finite.argmin())
    medians = [np.median(losses[max(place - 4, 0) : place + 1]) for place in range(end)]
    best = np.minimum.accumulate(medians) if medians else np.zeros(0)
    high = np.flatnonzero(medians > best + (DIVERGED - 1) * np.abs(best))
    return int(high[0]) if len(high) else None if finite.all() else end


def _smooth(losses: np.ndarray) -> np.ndarray:
    """[n] → [n]: means weighted by a bell curve around each, which do not lag as running ones do.

    Losses of more than twice the first ones count as that, so that the last ones, which are huge, do not outweigh all.
    """
    places, first = np.arange(len(losses)), float(np.median(losses[:5]))
    weights = np.exp(-0.5 * ((places[:, None] - places) / SMOOTHED_RATES) ** 2)
    return weights @ np.minimum(losses, first + abs(first)).astype(np.float64) / weights.sum(axis=1)

"""Early stopping: whether a run has stopped getting better is read from its history, so a resumed run knows it too."""

import sys
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from engine.config import TrainConfig
from engine.config.scoring import METRICS

Row = Mapping[str, Any]
LEAST = -sys.float_info.max  # a record's score is a finite number


def score(config: TrainConfig, validation: Mapping[str, Any]) -> float:
    """How good a step is by its validation metrics, higher is better: `best_by` where there is any, or the loss.

    Negative where the lowest value is the best. A value that is no number, as a metric of the user's own may be, is the
    worst there is: LEAST.
    """
    name = config.best_by if config.best_by in validation else "loss"
    best_is = config.best_is or (METRICS[name].best_is if name in METRICS else "lowest")
    found = float(validation[name])
    return LEAST if isnan(found) else min(max(found if best_is == "highest" else -found, LEAST), -LEAST)


def rank(config: TrainConfig, validation: Mapping[str, Any]) -> tuple[float, float]:
    """What is highest at the best step: its score, and of equal scores the lower loss. Patience goes by the score."""
    return score(config, validation), -validation["loss"]


def has_stopped_early(config: TrainConfig, history: Sequence[Row]) -> bool:
    """Whether `patience` epochs in a row have brought no better score than the best before them.

    Of an ensemble: whether none of its members goes on.
    """
    if config.members == 1:
        return _has_lost_patience(config, validation_history(history))
    if config.patience is None or not history:
        return False
    numbers = range(config.first_member, config.first_member + config.members)
    return not any(member_goes_on(config, history, number) for number in numbers)


def validation_history(history: Sequence[Row]) -> list[dict[str, Any]]:
    """The validation metrics of each epoch that has any."""
    prefix = "validation_"
    return [
        {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        for row in history
        if f"{prefix}loss" in row
    ]


def member_history(config: TrainConfig, history: Sequence[Row], number: int) -> list[dict[str, Any]]:
    """The validation metrics of one member of an ensemble, of each epoch that it took part in."""
    # Asked for by name: a row has the columns of all members, and going through them for each would take m² of time.
    columns = {name: f"{_prefix(number)}{name}" for name in (*config.shown_metrics, config.best_by)}
    return [
        {name: row[column] for name, column in columns.items() if column in row}
        for row in history
        if columns["loss"] in row
    ]


def member_goes_on(config: TrainConfig, history: Sequence[Row], number: int) -> bool:
    """Whether a member of an ensemble has not stopped early.

    One that has missed an epoch is out for good, even where the run is resumed with more patience.
    """
    if history and "validation_loss" in history[-1] and f"{_prefix(number)}loss" not in history[-1]:
        return False
    return config.patience is None or not _has_lost_patience(config, member_history(config, history, number))


def member_best_step(config: TrainConfig, history: Sequence[Row], number: int) -> int | None:
    """The step at which a member ranked highest, the later of equals; None where it was never judged."""
    steps = [row["step"] for row in history if f"{_prefix(number)}loss" in row]
    ranks = (rank(config, metrics) for metrics in member_history(config, history, number))
    return max(zip(ranks, steps, strict=True), default=(None, None))[1]


def _has_lost_patience(config: TrainConfig, metrics: Sequence[Row]) -> bool:
    """Counts as Keras's EarlyStopping: an epoch better by no more than `min_delta` does not become the best."""
    if config.patience is None:
        return False
    best, num_without = LEAST, 0
    for each in metrics[config.start_epoch :]:
        found = score(config, each)
        is_better = found - config.min_delta > best
        best, num_without = (found, 0) if is_better else (best, num_without + 1)
    return num_without >= config.patience


def _prefix(number: int) -> str:
    return f"member_{number}_validation_"

"""Early stopping: whether a run has stopped getting better is read from its history, so a resumed run knows it too."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.config import TrainConfig

Row = Mapping[str, Any]


def score(config: TrainConfig, validation: Mapping[str, Any]) -> float:
    """How good a step is by its validation metrics, higher is better: accuracy where there is any, or −loss."""
    is_by_accuracy = config.best_by == "accuracy" and "accuracy" in validation
    return validation["accuracy"] if is_by_accuracy else -validation["loss"]


def has_stopped_early(config: TrainConfig, history: Sequence[Row]) -> bool:
    """Whether `patience` epochs in a row have brought no better score than the best before them.

    Of an ensemble: whether none of its members goes on.
    """
    if config.members == 1:
        return _has_lost_patience(config, _metrics(history, "validation_"))
    if config.patience is None or not history:
        return False
    numbers = range(config.first_member, config.first_member + config.members)
    is_in_last = [f"{_prefix(number)}loss" in history[-1] for number in numbers]  # else it stopped or failed before
    return not any(member_goes_on(config, history, n) for n, is_in in zip(numbers, is_in_last, strict=True) if is_in)


def member_history(history: Sequence[Row], number: int) -> list[dict[str, Any]]:
    """The validation metrics of one member of an ensemble, of each epoch that it took part in."""
    return _metrics(history, _prefix(number))


def member_goes_on(config: TrainConfig, history: Sequence[Row], number: int) -> bool:
    """Whether a member of an ensemble has not stopped early."""
    return not _has_lost_patience(config, member_history(history, number))


def _has_lost_patience(config: TrainConfig, metrics: Sequence[Row]) -> bool:
    scores = [score(config, each) for each in metrics]
    if config.patience is None or not scores:
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= config.patience


def _prefix(number: int) -> str:
    return f"member_{number}_validation_"


def _metrics(history: Sequence[Row], prefix: str) -> list[dict[str, Any]]:
    return [
        {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        for row in history
        if f"{prefix}loss" in row
    ]

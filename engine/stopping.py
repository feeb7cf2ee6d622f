"""Early stopping: whether a run has stopped getting better is read from its history, so a resumed run knows it too."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.config import TrainConfig


def score(config: TrainConfig, validation: Mapping[str, Any]) -> float:
    """How good a step is by its validation metrics, higher is better: accuracy where there is any, or −loss."""
    is_by_accuracy = config.best_by == "accuracy" and "accuracy" in validation
    return validation["accuracy"] if is_by_accuracy else -validation["loss"]


def has_stopped_early(config: TrainConfig, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `patience` epochs in a row have brought no better score than the best before them."""
    prefix = "validation_"
    scores = [
        score(config, {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)})
        for row in history
        if f"{prefix}loss" in row
    ]
    if config.patience is None or not scores:
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= config.patience

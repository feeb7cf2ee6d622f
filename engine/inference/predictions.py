"""What a model says of one picture, and its scores class by class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.checkpoints.record import Record
from engine.config.train import weight_pairs
from engine.data.decoded.dataset import Dataset
from engine.errors import InputError, problem
from engine.metrics.per_class import ClassScores, count_confusion, find_best_thresholds, score_classes
from engine.metrics.sums import read_thresholds

SCORED_AT_ONCE = 4096  # examples whose outputs are in memory together


@dataclass(frozen=True)
class Prediction:
    """What the model sees in one picture: the likeliest class, and the `top` ones with their probabilities.

    labels: of a model of several labels a picture, those whose probability is above their threshold; None of others.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    labels: tuple[str, ...] | None = None


def make_prediction(
    row: np.ndarray, class_names: Sequence[str], top: int, thresholds: np.ndarray | None = None
) -> Prediction:
    """The Prediction of probabilities [k]; thresholds [k]: of several labels a picture."""
    best = np.argsort(-row, kind="stable")[:top]
    named = tuple((str(class_names[k]), float(row[k])) for k in best)
    marked = None if thresholds is None else tuple(str(class_names[int(k)]) for k in np.flatnonzero(row > thresholds))
    return Prediction(named[0][0], named[0][1], named, marked)


def change_thresholds(record: Record, thresholds: Mapping[str, float]) -> Record:
    """The record of a model of several labels a picture with other thresholds of some labels.

    Raises InputError for a model of another kind, and for labels that it does not have.
    """
    if record.task != "labels":
        rule = "a model of several labels a picture"
        raise InputError(problem("thresholds", "a model of another kind", rule, "Leave them out."))
    train = record.config.train
    train = replace(train, thresholds=weight_pairs(dict(train.thresholds) | dict(thresholds)))
    read_thresholds(train, record.num_outputs, record.class_names)
    return replace(record, config=replace(record.config, train=train))


def compute_class_scores(
    record: Record, ask: Callable[[Any], np.ndarray], thresholds: np.ndarray | None, dataset: Dataset
) -> ClassScores:
    """The scores of a model, whose outputs `ask` gives, on data that fits it, a part after the other.

    thresholds: of several labels a picture. Raises InputError for a regression.
    """
    if record.task == "numbers":
        rule = "a model of classes or labels"
        raise InputError(problem("class_scores", "a regression model", rule, "Use evaluate()."))
    labels, confusion, kept = dataset.labels, 0, list[np.ndarray]()
    if thresholds is None:
        labels = dataset.class_numbers
    for start in range(0, len(dataset), SCORED_AT_ONCE):
        part = slice(start, start + SCORED_AT_ONCE)
        weights = None if dataset.weights is None else dataset.weights[part]
        outputs = ask(dataset.images[part])
        of_labels = () if thresholds is None else thresholds.tolist()
        confusion = confusion + count_confusion(outputs, labels[part], weights, of_labels)
        kept += [] if thresholds is None else [outputs]
    best = find_best_thresholds(np.concatenate(kept), labels, dataset.weights) if kept else None
    return score_classes(record.class_names, np.asarray(confusion), best)

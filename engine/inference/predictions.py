"""What a model says of one picture, and its scores class by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.checkpoints.record import Record
from engine.config.train import weight_pairs
from engine.data.decoded.dataset import Dataset
from engine.errors import InputError, problem
from engine.metrics.pairs import count_pairs
from engine.metrics.per_class import ClassScores, count_confusion, find_best_thresholds, score_classes
from engine.metrics.sums import read_thresholds


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
    if not isinstance(thresholds, Mapping):
        rule = "a threshold by label, like {'cat': 0.3}"
        raise InputError(problem("thresholds", type(thresholds).__name__, rule, "Pass such a dict."))
    train = record.config.train
    train = replace(train, thresholds=weight_pairs(dict(train.thresholds) | dict(thresholds)))
    read_thresholds(train, record.num_outputs, record.class_names)
    return replace(record, config=replace(record.config, train=train))


class ClassCounts:
    """The scores of a model class by class, from what it predicts for one part of the data after the other.

    thresholds: of several labels a picture. Raises InputError for a regression.
    """

    def __init__(self, record: Record, thresholds: np.ndarray | None, dataset: Dataset):
        if record.task == "numbers":
            rule = "a model of classes or labels"
            raise InputError(problem("class_scores", "a regression model", rule, "Use evaluate()."))
        self._names, self._weights = record.class_names, dataset.weights
        self._labels = dataset.class_numbers if thresholds is None else dataset.labels
        self._thresholds = None if thresholds is None else thresholds.tolist()
        self._confusion, self._kept, self._guesses = np.float64(0), list[np.ndarray](), list[np.ndarray]()

    def add(self, first: int, outputs: np.ndarray) -> None:
        """Counts predictions [b k] of the examples from the number `first` on."""
        part = slice(first, first + len(outputs))
        if self._thresholds is None:  # counted together at the end: a table for each batch would be k² numbers
            self._guesses.append(outputs.argmax(1))
            return
        weights = None if self._weights is None else self._weights[part]
        self._confusion = self._confusion + count_confusion(outputs, self._labels[part], weights, self._thresholds)
        self._kept.append(outputs)

    def scores(self) -> ClassScores:
        """Those of all that was added, which is all of the data in its order."""
        if self._thresholds is None:
            guesses = np.concatenate(self._guesses)
            return score_classes(self._names, count_pairs(self._labels, guesses, self._weights, len(self._names)))
        best = find_best_thresholds(np.concatenate(self._kept), self._labels, self._weights)
        return score_classes(self._names, np.asarray(self._confusion), best)

"""Folds: the members of a cross-validation, each validated on the fold that it is not trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.checkpoints.record import Record
from engine.data.decoded.dataset import Dataset
from engine.data.folds import take_fold
from engine.metrics.combination import Combination, fit
from engine.report.tables import DEVIATION
from engine.runs.ensemble_members import Ensemble
from engine.runs.members import OneModel
from engine.runs.setup import Model, Setup


class Folds(Ensemble):
    """An ensemble of which each member has validation data of its own, a fold that the others are trained on."""

    def __init__(self, setup: Setup):
        super().__init__(setup)
        whole, folds = setup.splits.train, setup.splits.folds
        assert folds is not None
        self._data = [take_fold(whole, np.flatnonzero(folds == k), f"{whole.name} (fold {k})") for k in self._numbers]

    def scores(self) -> list[dict[str, Any]]:
        """The metrics of each member, with its best weights, on its fold; of one that failed none."""
        score, outputs = self._setup.scoring.score, self._best_outputs or []
        pairs = zip(outputs, self._data, self.are_alive, strict=False)
        return [score(own, data.labels, data.weights) if is_alive else {} for own, data, is_alive in pairs]

    def _data_of(self, index: int) -> Dataset:
        return self._data[index]

    def _score_best(self, record: Record) -> dict[str, Any]:
        return summarize(self.scores())

    def _compute_outputs(self, record: Record, model: Model, wanted: np.ndarray) -> Sequence[np.ndarray]:
        members = self._make(record, model).members
        return [
            member.fitting_outputs(data.images, 0, 0) if is_wanted else np.zeros((len(data), 1), np.float32)
            for member, data, is_wanted in zip(members, self._data, wanted, strict=True)
        ]

    def _fit_combination(self) -> Combination:
        return fit(self._setup.config.ensemble.combine, None, None, False, self.are_alive)


def summarize(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """n in all, and of each metric the mean over the folds and, as `…_deviation`, their standard deviation.

    The deviation is that of the folds themselves (divided by their number), as of `cross_validate` in scikit-learn.
    """
    found = [each for each in scores if each]
    names = [name for name in found[0] if name != "n"] if found else []
    columns = {name: np.array([each[name] for each in found]) for name in names}
    means = {name: float(column.mean()) for name, column in columns.items()}
    deviations = {name + DEVIATION: float(column.std()) for name, column in columns.items()}
    return {"n": sum(each["n"] for each in found), **means, **deviations}


def make_members(setup: Setup) -> OneModel | Ensemble:
    """What a session needs to know of its members: one model, an ensemble, or one member a fold."""
    if setup.config.train.members == 1:
        return OneModel(setup)
    return Ensemble(setup) if setup.splits.folds is None else Folds(setup)

"""Ensemble: members side by side, each with its own best step, early stopping and failures."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from engine.checkpoints.record import Record
from engine.config.sweep import swept_columns
from engine.data.decoded.dataset import Dataset
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier, combination_of, logarithms, members_of
from engine.inference.single import SingleClassifier
from engine.metrics.combination import Combination, fit
from engine.metrics.several import as_pairs
from engine.metrics.stopping import Row, member_goes_on, member_history, rank
from engine.metrics.sums import Metrics
from engine.runs.setup import Model, Setup
from engine.runs.together import restore_together
from engine.training.program import NEVER

DIVERGED = 4.0  # times the median loss of the members of a sweep, as in lr-find


class Ensemble:
    """The members of a run, their arrays stacked [m …]. One whose loss is not finite is rolled back and left out.

    failed_steps: the step of such a failure for each member, None for the others.
    combination: how the members, each with its best weights, are combined; None before there is one.
    columns: scores of the members in the last epoch.
    """

    def __init__(self, setup: Setup):
        self._setup, train = setup, setup.config.train
        self._numbers = range(train.first_member, train.first_member + train.members)
        self.failed_steps: list[int | None] = [None] * train.members
        self.combination: Combination | None = None
        self.columns: dict[str, Any] = {}
        self._best: Model | None = None
        self._best_outputs: Sequence[np.ndarray] | None = None  # of each member [n k], on its validation data
        self._classifier: EnsembleClassifier | None = None

    @property
    def are_alive(self) -> np.ndarray:
        """bool[m]: members that have not failed."""
        return np.array([step is None for step in self.failed_steps])

    def are_active(self, history: Sequence[Row]) -> Any:
        """bool[m]: members that have neither failed nor stopped early."""
        return self.are_alive & [member_goes_on(self._setup.config.train, history, number) for number in self._numbers]

    def have_stopped(self, history: Sequence[Row]) -> bool:
        """When no member is active."""
        return not self.are_active(history).any()

    def make_totals(self) -> Metrics:
        """Zeros [m]."""
        has_weights, members = self._setup.splits.train.weights is not None, (len(self._numbers),)
        zeros = self._setup.scoring.zeros(has_weights)
        return jax.tree.map(lambda leaf: np.zeros(members + leaf.shape, leaf.dtype), zeros)

    def sum_totals(self, totals: Metrics, history: Sequence[Row]) -> Metrics | None:
        """Over the active members."""
        active = self.are_active(history)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[active].sum(axis=0), totals) if active.any() else None

    def usual_metrics(self, totals: Metrics, history: Sequence[Row]) -> tuple[dict[str, Any], list[int]]:
        """Of a sweep (training metrics of all active members but those that diverge, the numbers of these)."""
        active = self.are_active(history)
        if not swept_columns(self._setup.config) or not active.any():
            return {}, []
        losses = np.asarray(totals.sums["loss"]) / np.maximum(np.asarray(totals.count), 1)
        kept = active & ~find_diverged(losses, active)
        left_out = [self._numbers[index] for index in np.flatnonzero(active & ~kept)]
        means = self._setup.scoring.means(jax.tree.map(lambda leaf: np.asarray(leaf)[kept].sum(axis=0), totals))
        return (means if left_out else {}), left_out

    def check_losses(self, bad_step: np.ndarray) -> None:
        """Marks the members that failed, [m]; raises NotFinite if none is left."""
        failed = np.flatnonzero(bad_step != NEVER)
        for index in failed:
            self.failed_steps[index] = int(bad_step[index])
        if not self.are_alive.any():
            raise self._setup.not_finite("loss of every member", max(filter(None, self.failed_steps)))
        if len(failed) and self.combination is not None:
            self.combination = self._fit_combination()

    def check_weights(self, is_finite: np.ndarray, step: int) -> None:
        """Marks members whose weights are not finite; raises NotFinite if none is left."""
        self.check_losses(np.where(self.are_alive & ~is_finite, step, NEVER))

    def validate(self, record: Record, model: Model, sums: Metrics | None) -> dict[str, Any]:
        """Metrics of all members together, each with its best weights.

        Keeps the weights of members that are now better than ever, and fits their combination.
        """
        self.columns = {}
        if self.are_active(record.history).any():
            self._compare(record, model)
        self.combination = self._fit_combination()
        return self._score_best(record)

    def compute_score(self, validation: dict[str, Any]) -> float | None:
        """None: each member has its own best step."""
        return None

    def complete_row(self, row: dict[str, Any], rate_factors: Any) -> None:
        """Learning rates that may differ are columns of the members."""
        config = self._setup.config
        rates = config.ensemble.learning_rates
        if rates is None and rate_factors is None:
            return
        course = row.pop("learning_rate") / config.optim.learning_rate
        factors = np.ones(len(self._numbers)) if rate_factors is None else rate_factors
        own = rates or (config.optim.learning_rate,) * len(factors)
        for number, rate, factor in zip(self._numbers, own, factors, strict=True):
            row[f"member_{number}_learning_rate"] = rate * course * float(factor)

    def extra_items(self) -> dict[str, Any]:
        """The best weights of each member."""
        return {} if self._best is None else {"best": self._best}

    def resume(self, resumed: Record, record: Record, shapes: Model) -> None:
        """With the failures, combination and best weights that were saved."""
        self.failed_steps, self.combination = list(resumed.failed_steps), resumed.combination
        if "best" in resumed.checksums:
            best: Model = restore_together(self._setup.directory, resumed, best=shapes)["best"]
            self._best, self._best_outputs = best, self._compute_outputs(record, best, self.are_alive)

    def make_classifier(self, record: Record, model: Model) -> Classifier:
        """All members with their present weights."""
        return self._make(record, model)

    def make_best(self, record: Record, model: Model) -> tuple[Classifier, int]:
        """(all members, each with its best weights, the last step)."""
        return self._make(record, self._best or model), record.step

    def _data_of(self, index: int) -> Dataset:
        """What a member is validated on: the same data for all."""
        assert self._setup.splits.validation is not None
        return self._setup.splits.validation

    def _score_best(self, record: Record) -> dict[str, Any]:
        """The metrics of all members together, each with its best weights."""
        assert self._best is not None
        assert self._best_outputs is not None
        return self._make(record, self._best).scores_of(np.stack(self._best_outputs), self._data_of(0))

    def _compare(self, record: Record, model: Model) -> None:
        """Keeps weights and outputs of the members that are at least as good as ever before.

        A member whose outputs are no finite numbers fails here.
        """
        train, is_better = self._setup.config.train, np.zeros(len(self._numbers), bool)
        active = self.are_active(record.history)
        outputs = self._compute_outputs(record, model, active)
        is_bad = active & [not np.isfinite(own).all() for own in outputs]
        self.check_losses(np.where(is_bad, record.step, NEVER))
        for index in np.flatnonzero(active & ~is_bad).tolist():
            number = self._numbers[index]
            held_out = self._data_of(index)
            found = self._setup.scoring.score(outputs[index], held_out.labels, held_out.weights)
            metrics = {name: found[name] for name in train.shown_metrics if name in found}
            own = rank(train, metrics)
            is_better[index] = own >= max(
                (rank(train, row) for row in member_history(train, record.history, number)), default=own
            )
            self.columns.update({f"member_{number}_validation_{name}": value for name, value in metrics.items()})
        if self._best is None or self._best_outputs is None:
            self._best, self._best_outputs = jax.tree.map(np.array, model), outputs
        else:
            self._best = jax.tree.map(lambda new, old: _choose(is_better, np.asarray(new), old), model, self._best)
            chosen = zip(is_better, outputs, self._best_outputs, strict=True)
            self._best_outputs = [new if better else old for better, new, old in chosen]

    def _choose_best(self) -> Combination:
        """All weight on the member that is best on the validation data, of equal ones the first."""
        assert self._best_outputs is not None
        train, measure = self._setup.config.train, self._setup.scoring.score
        outputs = [(i, self._best_outputs[i], self._data_of(i)) for i in np.flatnonzero(self.are_alive).tolist()]
        ranks = {index: rank(train, measure(own, data.labels, data.weights)) for index, own, data in outputs}
        weights = np.arange(len(self._numbers)) == max(ranks, key=lambda index: ranks[index])
        return Combination("mean", tuple(weights.astype(float).tolist()))

    def _fit_combination(self) -> Combination:
        config, data = self._setup.config.ensemble, self._setup.splits.validation
        if self._best_outputs is not None and config.select_best:
            return self._choose_best()
        if self._best_outputs is None or data is None or not self._setup.splits.train.class_names:
            return fit("mean", None, None, False, self.are_alive)
        outputs, counted = np.stack(self._best_outputs), data.weights
        if data.task == "labels":
            labels, counted = data.labels.reshape(-1).astype(np.int32), _repeated(counted, outputs.shape[-1])
            outputs = as_pairs(outputs)
        else:
            labels = data.labels if data.labels.ndim == 2 else data.class_numbers
        return fit(config.combine, logarithms(outputs), labels, config.temperature, self.are_alive, counted)

    def _compute_outputs(self, record: Record, model: Model, wanted: np.ndarray) -> Sequence[np.ndarray]:
        """Of each member float32[n k] on its validation data, 0 for members that are not wanted."""
        assert self._setup.splits.validation is not None
        return list(self._make(record, model).member_outputs(self._setup.splits.validation.images, wanted=wanted))

    def _make(self, record: Record, model: Model) -> EnsembleClassifier:
        record = replace(record, failed_steps=tuple(self.failed_steps), combination=self.combination)
        if self._classifier is None:  # once, because it keeps what is compiled
            like = SingleClassifier(record, self._setup.network, None, None, self._setup.executables)
            self._classifier = EnsembleClassifier(members_of(like, model), combination_of(record), record)
        return self._classifier.with_weights(record, *model)


def find_diverged(losses: np.ndarray, active: np.ndarray) -> np.ndarray:
    """bool[m]: losses [m] far above the median of the active members; those of a user's own may be negative."""
    median = np.median(losses[active])
    return losses > median + (DIVERGED - 1) * np.abs(median)


def _repeated(weights: np.ndarray | None, times: int) -> np.ndarray | None:
    return None if weights is None else np.repeat(weights, times)


def _choose(is_new: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """[m …]: by member."""
    return np.where(is_new.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

"""EnsembleSession: a run of several members side by side, each with its own best step, early stop and mishaps."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from engine.checkpoints.record import Record
from engine.checkpoints.steps import restore_arrays
from engine.config import RunConfig
from engine.data.decoded.dataset import Splits
from engine.errors import InputError, problem
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier, combination_of, logarithms, members_of
from engine.metrics.calibration import scores
from engine.metrics.combination import Combination, fit
from engine.metrics.stopping import member_goes_on, member_history, score
from engine.metrics.sums import Metrics, zero_metrics
from engine.networks.network import Tree
from engine.runs.session import Epoch, NotFinite, Session
from engine.training.program import NEVER
from engine.training.state import TrainState


class EnsembleSession(Session):
    """The members' arrays are stacked [m …]. One whose loss is not finite stays as it was before, and is marked.

    failed_steps: the step of such a mishap for each member, None for the others.
    combination: how the members, each as it was when it was best, are combined; None before there is one.
    """

    def __init__(self, config: RunConfig, splits: Splits, *arguments: Any):
        self.num_members = config.train.members
        self.failed_steps: list[int | None] = [None] * self.num_members
        self.combination: Combination | None = None
        self._best: tuple[Tree, Tree] | None = None
        self._best_outputs: np.ndarray | None = None
        self._asked: EnsembleClassifier | None = None
        self._columns: dict[str, Any] = {}
        _check_can_combine(config, splits)
        super().__init__(config, splits, *arguments)

    @property
    def is_alive(self) -> np.ndarray:
        """bool[m]: members without a mishap."""
        return np.array([step is None for step in self.failed_steps])

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained, or each member has stopped early."""
        return self.epoch >= self.config.train.epochs or (self.position == 0 and not self._is_active().any())

    @property
    def images_per_second(self) -> float:
        """Images that members were trained on, by the last compiled call."""
        return super().images_per_second * int(self._is_active().sum())

    @property
    def images_per_epoch(self) -> int:
        """Images that members are trained on in the epoch that is under way."""
        return super().images_per_epoch * int(self._is_active().sum())

    def training_metrics(self) -> dict[str, Any]:
        """Means over the examples of this epoch that members were trained on so far; empty if none still is."""
        counted = self._is_active()
        if not counted.any():
            return {}
        return self._means(jax.tree.map(lambda leaf: np.asarray(leaf)[counted].sum(), self.totals))

    def finish_epoch(self) -> Epoch:
        """As of a Session; learning rates of their own are columns of the members."""
        epoch = super().finish_epoch()
        row = epoch.row
        if self.config.ensemble.learning_rates is not None:
            course = row.pop("learning_rate") / self.config.optim.learning_rate
            for number, rate in enumerate(self.config.ensemble.learning_rates, self.config.train.first_member):
                row[f"member_{number}_learning_rate"] = rate * course
        return epoch

    def validate(self) -> dict[str, Any]:
        """Metrics on the validation data of all members together, each with its best weights; empty if there is none.

        Takes note of which members are now better than ever, and fits their combination.
        """
        if self.splits.validation is None:
            return {}
        with self.clock.measure("eval"):
            self._columns = {}
            if self._is_active().any():
                self._compare()
            assert self._best_outputs is not None
            self.combination = self._fitted()
            return self._classifier(self._best).scores_of(self._best_outputs, self.splits.validation)

    def best(self) -> tuple[Classifier, int]:
        """(the classifier of all members, each with its best weights, the last step)."""
        return self._classifier(self._best), self.step

    def _compare(self) -> None:
        """Keeps the weights and outputs of the members that are at least as good as ever before.

        A member whose outputs are no finite numbers has its mishap here.
        """
        assert self.splits.validation is not None
        labels, is_better = self.splits.validation.labels, np.zeros(self.num_members, bool)
        active = self._is_active()
        outputs = self._outputs(self.whole_model, active)
        is_bad = active & ~np.isfinite(outputs).all(axis=(1, 2))
        self._note_bad_steps(np.where(is_bad, self.step, NEVER))
        for index in np.flatnonzero(active & ~is_bad):
            number = self.config.train.first_member + int(index)
            metrics = _metrics(outputs[index], labels, bool(self.splits.train.class_names))
            before = [score(self.config.train, row) for row in member_history(self.history, number)]
            is_better[index] = score(self.config.train, metrics) >= max(before, default=-np.inf)
            self._columns.update({f"member_{number}_validation_{name}": value for name, value in metrics.items()})
        current = jax.tree.map(np.asarray, self.whole_model)
        if self._best is None or self._best_outputs is None:
            self._best, self._best_outputs = jax.tree.map(np.array, current), outputs
        else:
            self._best = jax.tree.map(lambda new, old: _chosen(is_better, new, old), current, self._best)
            self._best_outputs = _chosen(is_better, outputs, self._best_outputs)

    def _fitted(self) -> Combination:
        config, data = self.config.ensemble, self.splits.validation
        if self._best_outputs is None or data is None or not self.splits.train.class_names:
            return fit("mean", None, None, False, self.is_alive)
        logs = logarithms(self._best_outputs)
        return fit(config.combine, logs, data.labels, config.temperature, self.is_alive)

    def _outputs(self, stacked: tuple[Tree, Tree], wanted: np.ndarray) -> np.ndarray:
        """float32[m n k] on the validation data, 0 for members that are not wanted."""
        assert self.splits.validation is not None
        return self._classifier(stacked).member_outputs(self.splits.validation.images, wanted=wanted)

    def classifier(self) -> Classifier:
        """All members with their present weights."""
        return self._classifier(None)

    def _classifier(self, stacked: tuple[Tree, Tree] | None) -> EnsembleClassifier:
        record, stacked = self._record({}), stacked or self.whole_model
        if self._asked is None:  # once, because it keeps what is compiled
            like = Classifier(record, self._network, None, None, self._executables)
            self._asked = EnsembleClassifier(members_of(like, stacked), combination_of(record), record)
        return self._asked.with_weights(record, *stacked)

    def _is_active(self) -> np.ndarray:
        first = self.config.train.first_member
        numbers = range(first, first + self.num_members)
        return self.is_alive & [member_goes_on(self.config.train, self.history, number) for number in numbers]

    def _note_bad_steps(self, bad_step: np.ndarray) -> None:
        failed = np.flatnonzero(bad_step != NEVER)
        for index in failed:
            self.failed_steps[index] = int(bad_step[index])
        if not self.is_alive.any():
            raise NotFinite(self._not_finite("loss of every member", max(filter(None, self.failed_steps))))
        if len(failed) and self.combination is not None:
            self.combination = self._fitted()

    def _zero_totals(self) -> Metrics:
        return jax.tree.map(lambda leaf: np.zeros(self.config.train.members, leaf.dtype), zero_metrics())

    def _member_columns(self) -> dict[str, Any]:
        return self._columns

    def _items(self) -> dict[str, Any]:
        items = super()._items()
        return items if self._best is None else {**items, "best": self._best}

    def _check_finite(self, model: Tree) -> None:
        leaves = [leaf for leaf in jax.tree.leaves(model) if leaf.dtype.kind == "f"]
        is_bad = [not all(np.isfinite(leaf[index]).all() for leaf in leaves) for index in range(self.num_members)]
        self._note_bad_steps(np.where(self.is_alive & is_bad, self.step, NEVER))

    def _record(self, validation: dict[str, Any]) -> Record:
        record = super()._record({})
        return replace(record, failed_steps=tuple(self.failed_steps), combination=self.combination)

    def _take_up(self, record: Record, abstract: TrainState) -> None:
        super()._take_up(record, abstract)
        self.failed_steps, self.combination = list(record.failed_steps), record.combination
        if "best" in record.checksums:
            best: tuple[Tree, Tree] = restore_arrays(self.directory, record, best=abstract.model)["best"]
            self._best, self._best_outputs = best, self._outputs(best, self.is_alive)


def _chosen(is_new: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """[m …]: by member."""
    return np.where(is_new.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _metrics(outputs: np.ndarray, labels: np.ndarray, are_classes: bool) -> dict[str, float]:
    """loss and, for classes, accuracy of one member's outputs [n k]."""
    if not are_classes:
        return {"loss": float(np.square(outputs.astype(np.float64) - labels).mean())}
    found = scores(outputs, labels)
    return {"loss": found["nll"], "accuracy": found["accuracy"]}


def _check_can_combine(config: RunConfig, splits: Splits) -> None:
    """Raises InputError for a combination that the data cannot give."""
    method, has_temperature = config.ensemble.combine, config.ensemble.temperature
    if not splits.train.class_names and (method != "mean" or has_temperature):
        got, rule = f"{method}{' and a temperature' * has_temperature}", "the mean alone, of a regression"
        raise InputError(problem("ensemble.combine", got, rule, "Leave it out."))
    if splits.validation is None:
        fit(method, None, None, has_temperature, np.ones(config.train.members, bool))


def make_session(config: RunConfig, *arguments: Any) -> Session:
    """The session of a config: of one model, or of an ensemble."""
    return (EnsembleSession if config.train.members > 1 else Session)(config, *arguments)

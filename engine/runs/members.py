"""How a session treats its single model; `ensemble_members` is the same for the members of an ensemble."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from engine.checkpoints.record import Record
from engine.inference.classifier import Classifier
from engine.inference.single import SingleClassifier
from engine.metrics.combination import Combination
from engine.metrics.stopping import Row, has_stopped_early, score
from engine.metrics.sums import Metrics
from engine.runs.setup import Model, Setup
from engine.runs.together import find_best, restore_together
from engine.training.program import NEVER


class OneModel:
    """A single model: its best step is the one with the best validation score; a loss that is not finite ends the run.

    columns: what the history keeps of single members, as failed_steps and combination only of an ensemble.
    """

    def __init__(self, setup: Setup):
        self._setup, self.columns = setup, dict[str, Any]()
        self.failed_steps: list[int | None] = []
        self.combination: Combination | None = None

    def are_active(self, history: Sequence[Row]) -> Any:
        """Always."""
        return True

    def have_stopped(self, history: Sequence[Row]) -> bool:
        """After `patience` epochs without a better score."""
        return has_stopped_early(self._setup.config.train, history)

    def make_totals(self) -> Metrics:
        """Zeros."""
        return self._setup.scoring.zeros(self._setup.splits.train.weights is not None)

    def sum_totals(self, totals: Metrics, history: Sequence[Row]) -> Metrics | None:
        """The totals themselves."""
        return totals

    def usual_metrics(self, totals: Metrics, history: Sequence[Row]) -> tuple[dict[str, Any], list[int]]:
        """Nothing, and no member that diverges."""
        return {}, []

    def check_losses(self, bad_step: np.ndarray) -> None:
        """Raises NotFinite."""
        if bad_step != NEVER:
            raise self._setup.not_finite("loss", int(bad_step))

    def check_weights(self, is_finite: np.ndarray, step: int) -> None:
        """Raises NotFinite."""
        if not is_finite:
            raise self._setup.not_finite("weight", step)

    def validate(self, record: Record, model: Model, sums: Metrics | None) -> dict[str, Any]:
        """Metrics of the current weights; raises NotFinite if their loss is not finite."""
        data, scoring = self._setup.splits.validation, self._setup.scoring
        assert data is not None
        metrics = scoring.means(sums) if sums else self.make_classifier(record, model).evaluate(data)
        if not np.isfinite(metrics["loss"]):
            raise self._setup.not_finite("validation loss", record.step)
        return metrics

    def compute_score(self, validation: dict[str, Any]) -> float | None:
        """By `best_by`; None without validation metrics."""
        return score(self._setup.config.train, validation) if validation else None

    def complete_row(self, row: dict[str, Any], rate_factors: Any) -> None:
        """The learning rate of the plateau schedule."""
        if rate_factors is not None:
            row["learning_rate"] *= float(rate_factors)

    def extra_items(self) -> dict[str, Any]:
        """None."""
        return {}

    def resume(self, resumed: Record, record: Record, shapes: Model) -> None:
        """Nothing to restore."""

    def make_classifier(self, record: Record, model: Model) -> Classifier:
        """On the arrays that the next step writes over: good until that is trained."""
        setup = self._setup
        params, model_state = setup.devices.on_one(model)
        return SingleClassifier(record, setup.network, params, model_state, setup.executables)

    def make_best(self, record: Record, model: Model) -> tuple[Classifier, int]:
        """The best saved step."""
        directory, model = self._setup.directory, self._setup.devices.on_one(model)
        best = find_best(directory)
        if best.step != record.step:
            model = jax.device_put(restore_together(directory, best, model=model)["model"])
        return self.make_classifier(best, model), best.step

"""Result: what `engine.run` and `engine.fit` give back."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from engine.augment.config import AugmentConfig
from engine.config import RunConfig
from engine.config.data import Layout
from engine.config.decoding import ResizeRule, ValueRange
from engine.data.decoded.dataset import Dataset, Splits
from engine.data.in_memory import ClassNames
from engine.data.pictures.images import Picture
from engine.errors import InputError, problem
from engine.host.html import html_facts, html_table
from engine.host.storage import expanded, new_directory
from engine.inference.classifier import Classifier, Prediction
from engine.inference.data_in import Evaluable
from engine.metrics.per_class import ClassScores
from engine.report.confusion import confusion_figure
from engine.report.drawing import Drawing
from engine.report.history import curves_figure
from engine.report.losses import TopLosses, find_top_losses
from engine.report.pictures import Pictures
from engine.report.tables import format_metric
from engine.text import counted

SHOWN_EPOCHS = 20  # the last ones


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A finished run.

    history: one row an epoch. metrics: of the best step, by split ("validation", "test").
    seconds: by kind of work. best_step: the one the classifier holds.
    """

    config: RunConfig
    _pictures: Pictures
    classifier: Classifier
    history: tuple[dict[str, Any], ...]
    metrics: dict[str, dict[str, Any]]
    best_step: int
    seconds: dict[str, float]
    _splits: Splits | None = None
    _resume: Callable[..., "Result"] | None = None
    _before: "Result | None" = None  # whose temporary directory this one still needs

    @property
    def directory(self) -> Path:
        """Where the run is kept. In a temporary directory its pictures are drawn now."""
        self._pictures.draw()
        return self._pictures.directory

    def train_on(self, epochs: int, patience: int | None = None, verbose: bool = True) -> "Result":
        """The Result after more epochs, the same bits as if training had never stopped.

        The run goes on in its directory, with its data, optimizer state and callbacks; this result keeps its history
        and classifier, but no longer a directory of its own.
        patience: another one, as a run needs that has stopped early; None: that of the run.
        Raises InputError if the learning rate's schedule has come to its end, or the run was trained on already.
        """
        assert self._resume is not None
        return replace(self._resume(self, epochs, patience, verbose), _before=self)

    def evaluate(
        self,
        data: Evaluable,
        value_range: ValueRange | None = None,
        layout: Layout = "auto",
        class_names: ClassNames | None = None,
    ) -> dict[str, Any]:
        """n, loss and accuracy over every example of a Dataset, (images, labels) or a path: see Classifier.evaluate."""
        return self.classifier.evaluate(data, value_range, layout, class_names)

    def class_scores(self, data: Evaluable, **how: Any) -> ClassScores:
        """Precision, recall and F1 of each class, and what is taken for what: see Classifier.class_scores."""
        return self.classifier.class_scores(data, **how)

    def predict(
        self,
        pictures: Picture | Sequence[Picture],
        top: int = 1,
        resize: ResizeRule | None = None,
        tta: int | AugmentConfig = 0,
        value_range: ValueRange | None = None,
    ) -> list[Prediction]:
        """One Prediction a picture: see Classifier.predict."""
        return self.classifier.predict(pictures, top, resize, tta, value_range)

    def plot(self) -> Drawing:
        """The curves of the run: loss and metrics of training and validation, with the best epoch marked."""
        shown = self.config.train.shown_metrics
        return Drawing(curves_figure(self.history, self.config.name, shown, self._best_epoch))

    def confusion(self, data: Evaluable | None = None) -> Drawing:
        """What was taken for what, on data as of `evaluate`; None: the run's test data, else its validation data.

        Raises InputError for a regression, and for several labels a picture.
        """
        if self.classifier.record.task != "classes":
            rule, remedy = "a model of one class a picture", "Use class_scores()."
            raise InputError(problem("confusion", "a model of another kind", rule, remedy))
        data = self._held_out() if data is None else self.classifier.fitting(data)
        scores = self.classifier.class_scores(data)
        title = f"{self.config.name} on {data.name}"
        return Drawing(confusion_figure(scores.counted, scores.class_names, title))

    def top_losses(self, count: int = 9, data: Evaluable | None = None) -> TopLosses:
        """The `count` examples of the highest losses, drawn in a grid, with what they are and what they are taken for.

        data: as of `evaluate`; None: the run's test data, else its validation data.
        """
        data = self._held_out() if data is None else self.classifier.fitting(data)
        return find_top_losses(self.classifier, data, count)

    def report(self, out: str | PathLike[str] | None = None) -> Path:
        """Writes a page about the run, as `engine report` does, and returns its path: `out`, or report.html of the run.

        Raises InputError for another file at that place.
        """
        from engine.report.page.write import write_report

        place = None if out is None else Path(out)
        return write_report(self.directory, place, trust=True, splits=self._splits)

    def _held_out(self) -> Dataset:
        """The run's test data, or its validation data; raises InputError if there is neither."""
        splits = self._splits
        found = None if splits is None else splits.test if splits.test is not None else splits.validation
        if found is None:
            rule, remedy = "test or validation data of the run", "Pass data."
            raise InputError(problem("data", "a run without these", rule, remedy))
        return self.classifier.fitting(found)

    @property
    def _best_epoch(self) -> int | None:
        """The epoch that the classifier is of, if there is one of all members, by validation."""
        is_one = self.config.train.members == 1 and self._splits is not None and self._splits.are_validated
        epochs = {row["step"]: row["epoch"] for row in self.history}
        return epochs.get(self.best_step) if is_one else None

    def __repr__(self) -> str:
        shown = [f"{split}: {', '.join(_metric_texts(found))}" for split, found in self.metrics.items()]
        facts = [counted(len(self.history), "epoch"), f"best step {self.best_step}", *shown, f"in {self.directory}"]
        return f"<Result {self.config.name}: {'; '.join(facts)}>"

    def _repr_html_(self) -> str:
        shown = {split: ", ".join(_metric_texts(found)) for split, found in self.metrics.items()}
        facts = {"epochs": len(self.history), "best step": self.best_step, **shown}
        facts["seconds"] = ", ".join(f"{kind} {value:.1f}" for kind, value in self.seconds.items() if value >= 0.05)
        return html_facts(f"{self.config.name}: a finished run", facts) + html_table(*_history_table(self.history))

    def save(self, path: str | PathLike[str]) -> Path:
        """Copies the whole run, with its best and last checkpoints, to a new directory for `engine.restore`.

        Raises InputError where something lies there, or nothing can be written.
        """
        target = expanded(path)
        if os.path.lexists(target):
            raise InputError(problem("path", target, "a path where nothing is yet", "Choose another."))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with new_directory(target) as directory:
                shutil.copytree(self.directory, directory, dirs_exist_ok=True)
        except OSError as error:
            got = f"{target} ({error.strerror or str(error)[:200]})"
            raise InputError(problem("path", got, "a place that can be written", "Choose another.")) from None
        return target


def _metric_texts(metrics: dict[str, Any]) -> list[str]:
    return [f"{name} {format_metric(name, value)}" for name, value in metrics.items() if isinstance(value, int | float)]


def _history_table(history: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of the last epochs."""
    names = list(dict.fromkeys(name for row in history for name in row))
    rows = history[-SHOWN_EPOCHS:]
    return names, [[format_metric(name, row[name]) if name in row else "" for name in names] for row in rows]

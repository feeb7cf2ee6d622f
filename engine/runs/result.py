"""Result: what `engine.run` and `engine.fit` give back."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from engine.augment.config import AugmentConfig
from engine.config import RunConfig
from engine.config.data import Layout
from engine.config.decoding import ResizeRule, ValueRange
from engine.data.in_memory import ClassNames
from engine.data.pictures.images import Picture
from engine.errors import InputError, problem
from engine.host.storage import expanded, new_directory
from engine.inference.classifier import Classifier, Prediction
from engine.inference.data_in import Evaluable
from engine.metrics.per_class import ClassScores


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run.

    history: one row an epoch. metrics: of the best step, by split ("validation", "test").
    seconds: by kind of work. best_step: the one the classifier holds.
    """

    config: RunConfig
    directory: Path
    classifier: Classifier
    history: tuple[dict[str, Any], ...]
    metrics: dict[str, dict[str, Any]]
    best_step: int
    seconds: dict[str, float]
    _resume: Callable[..., "Result"] | None = field(default=None, repr=False)
    _before: "Result | None" = field(default=None, repr=False)  # whose temporary directory this one still needs

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

    def save(self, path: str | PathLike[str]) -> Path:
        """Copies the whole run, with its best and last checkpoints, to a new directory for `engine.restore`."""
        target = expanded(path)
        if os.path.lexists(target):
            raise InputError(problem("path", target, "a path where nothing is yet", "Choose another."))
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(target) as directory:
            shutil.copytree(self.directory, directory, dirs_exist_ok=True)
        return target

"""What the sections of a page are made of: a run's records, its model, its data, and what the model says of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.checkpoints.packing import opened
from engine.checkpoints.record import Record
from engine.checkpoints.steps import choose_step, read_record
from engine.data.decoded.dataset import Dataset, Splits
from engine.data.folds import divide_in_folds
from engine.data.held_out import decoded_as_in_training
from engine.data.load import load_splits
from engine.errors import InputError, Say, problem
from engine.host.json_files import read_json
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.restore import restore
from engine.inference.single import SingleClassifier
from engine.metrics.stopping import validation_history
from engine.records.custom import check_trust
from engine.report.confusion import limit_examples
from engine.report.history import Row, read_history
from engine.report.members import find_member_outputs
from engine.report.page.parts import LeftOut


@dataclass(frozen=True, eq=False)
class Answers:
    """What the model says of every example of the data it is scored on.

    outputs: [n k], as of `Classifier.outputs`. of_members: of an ensemble [m n k].
    """

    split: str
    data: Dataset
    outputs: np.ndarray
    of_members: np.ndarray | None = None

    @property
    def are_pictures(self) -> bool:
        """Whether the examples can be shown."""
        return len(self.data.input_shape) == 3


@dataclass(frozen=True, eq=False)
class Material:
    """A run as its page needs it. record: the last one; classifier: of the best step. read_splits: opens the data.

    results: of `result.json`, {} where that cannot be read.
    """

    path: Path
    record: Record
    classifier: Classifier
    results: dict[str, Any]
    read_splits: Callable[[], Splits]
    notes: list[str] = field(default_factory=list)
    """What is wrong with its files, and with the data, known once they are read."""

    @cached_property
    def history(self) -> list[Row]:
        """The epochs."""
        return read_history(self.record.history)

    @property
    def is_ensemble(self) -> bool:
        """Whether several models answer together."""
        return isinstance(self.classifier, EnsembleClassifier)

    @property
    def num_networks(self) -> int:
        """How many models answer."""
        return len(self.classifier.members) if isinstance(self.classifier, EnsembleClassifier) else 1

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights the page is about; None of an ensemble, and without validation data."""
        if self.is_ensemble or not validation_history(self.history):
            return None
        step = self.classifier.record.step
        return next((row["epoch"] for row in self.history if row["step"] == step), None)

    @cached_property
    def splits(self) -> Splits | str:
        """The run's data, or why they are not at hand."""
        try:
            return self.read_splits()
        except InputError as error:
            return str(error)

    @cached_property
    def answers(self) -> Answers | str:
        """What the model says of the test data, else of the validation data; or why there is none."""
        if isinstance(self.splits, str):
            return self.splits
        if self.splits.test is None and self.splits.folds is not None:
            return self._answer_in_folds(self.splits.train, self.splits.folds)
        for split in ("test", "validation"):
            if (data := getattr(self.splits, split)) is not None:
                data = limit_examples(self.classifier.fitting(data), self.record.num_outputs * self.num_networks)
                if not isinstance(self.classifier, EnsembleClassifier):
                    return Answers(split, data, self.classifier.outputs(data.images))
                of_members = find_member_outputs(self.classifier, data)
                return Answers(split, data, self.classifier.combined(of_members), of_members)
        return "The run has neither test nor validation data."

    def _answer_in_folds(self, whole: Dataset, folds: np.ndarray) -> Answers | str:
        """Of a cross-validation: each example answered by the member that was not trained on it."""
        assert isinstance(self.classifier, EnsembleClassifier)
        members = self.classifier.members
        is_trained = [step is None for step in self.record.failed_steps]
        examples = np.flatnonzero(np.asarray(is_trained)[folds])
        if not len(examples):
            return "The training of every fold failed."
        name = f"{whole.name}, each fold by the member that was not trained on it"
        if len(examples) < len(whole):
            name += f", without the {len(whole) - len(examples):,} examples of folds whose training failed"
        data = limit_examples(self.classifier.fitting(whole.take(examples, name)), self.record.num_outputs)
        of_fold = folds[examples[: len(data)]]
        order = np.argsort(of_fold, kind="stable")  # the examples, one fold after the other
        found = [members[k].outputs(data.images[np.flatnonzero(of_fold == k)]) for k in np.unique(of_fold)]
        outputs = np.concatenate(found)[np.argsort(order)]
        return Answers("validation", data, outputs)

    def need_splits(self) -> Splits:
        """The data; raises LeftOut where they are not at hand."""
        if isinstance(self.splits, str):
            raise LeftOut(self.splits)
        return self.splits

    def need_answers(self, *tasks: str) -> Answers:
        """The answers of a model of one of these tasks; raises LeftOut for one of another, and where there are none."""
        named = {"classes": "one class", "labels": "several labels", "numbers": "numbers"}
        if self.record.task not in tasks:
            wanted = " or ".join(named[task] for task in tasks)
            raise LeftOut(f"The model predicts {named[self.record.task]} of a picture; this is for {wanted}.")
        if isinstance(self.answers, str):
            raise LeftOut(self.answers)
        return self.answers

    def find_one_network(self) -> tuple[SingleClassifier, str]:
        """(the model, "") or, of an ensemble, its member of the largest weight and which one that is."""
        if not isinstance(self.classifier, EnsembleClassifier):
            assert isinstance(self.classifier, SingleClassifier)
            return self.classifier, ""
        best = int(np.argmax(self.classifier.combination.weights))
        return self.classifier.members[best], f" of member {self.record.config.train.first_member + best}"


def read_material(
    path: Path, trust: bool, say: Say, splits: Splits | None = None, step: int | str = "best"
) -> Material:
    """What a page of a run is made of. splits: its data, where they are at hand and need not be read.

    step: the one whose model it is of; of another than the best, the page is of the run up to there.

    Raises InputError where the run cannot be opened, as `restore` does.
    """
    with opened(path) as directory:
        classifier = restore(directory, step, trust)
        record = read_record(directory, choose_step(directory, "last" if step == "best" else step))
        results = read_results(directory)
        notes = [why] if (why := find_damage(directory)) else []

    def read_splits() -> Splits:
        if splits is not None:
            return divide(record, splits)
        found = read_own_splits(record, trust, say)
        if found.train.fingerprint != record.data_fingerprint:
            notes.append("The training data are not those that the run was trained on.")
            say(notes[-1])
        return divide(record, found)

    return Material(path, record, classifier, results, read_splits, notes)


def read_results(directory: Path) -> dict[str, Any]:
    """What `result.json` says; {} without one that can be read."""
    try:
        found = read_json(directory / "result.json", "the JSON of a run's result", "Ignore it.")
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def find_damage(directory: Path) -> str | None:
    """What the page lacks because `result.json` cannot be read; None if it can, or the run has not come to its end."""
    if not (directory / "result.json").exists() or read_results(directory):
        return None
    return "result.json cannot be read: the scores and times of the run's end are left out."


def read_own_splits(record: Record, trust: bool, say: Say) -> Splits:
    """The data of a run, read again. Raises InputError where they are not there any more, or never were files."""
    known, spec = record.config.data, record.input_spec
    if known.name == "arrays" and known.path is None and known.source is None:
        rule = "data that can be read again"
        raise InputError(problem("data", "arrays, which a run does not keep", rule, "Use result.report() in Python."))
    check_trust(known.source, "data.source", trust, "Add --trust")
    config = decoded_as_in_training(known, known, spec.levels, spec.color)
    names = record.class_names
    return load_splits(config, record.config.train.seed, say, lambda found: names or found)


def divide(record: Record, splits: Splits) -> Splits:
    """The splits as the run had them: of one member of a cross-validation, its fold for validation."""
    if splits.folds is not None:
        return splits
    return divide_in_folds(record.config, splits)[0]

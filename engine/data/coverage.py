"""Defects of the data that training cannot repair: a single class, classes without examples, too many classes."""

from collections.abc import Iterable

import numpy as np

from engine.data.classes.matching import unlike_in_form
from engine.data.classes.names import Names, are_numbers, names_text
from engine.data.decoded.dataset import Dataset, Splits
from engine.errors import InputError, problem
from engine.text import counted

SHOWN = 3


def check_several_classes(train: Dataset) -> None:
    """Raises InputError for training data of one class, of which nothing can be learnt: accuracy 1.0 from the start."""
    if train.task != "classes" or np.ptp(train.class_numbers):
        return
    examples = counted(len(train), "example")
    got = f"one class only ({train.class_names[train.class_numbers[0]]}) in {examples} to train on"
    others = [name for k, name in enumerate(train.class_names) if k != train.class_numbers[0]]
    remedy = f"Choose a split that has {names_text(others)} too." if others else "Add examples of other classes."
    raise InputError(problem(train.name, got, "at least 2 classes", remedy))


def class_notes(splits: Splits) -> list[str]:
    """A line for each thing about the classes that a user should know before training; none for a regression."""
    names, counts = splits.train.class_names, counts_of(splits.train)
    if not names:
        return []
    notes = _name_notes(names) + _training_notes(splits, counts)
    for which in ("validation", "test"):
        if (held_out := splits.named.get(which)) is not None:
            notes += absent_notes(held_out, which, counts > 0)
    return notes


def absent_notes(dataset: Dataset, which: str, wanted: np.ndarray | None = None) -> list[str]:
    """A line that names the classes, of those `wanted` bool[k], of which a dataset has no examples; none if it has."""
    missing = (counts_of(dataset) == 0) & (True if wanted is None else wanted)
    return [f"{which} has no examples of {_some_of(missing, dataset.class_names)}"] if missing.any() else []


def counts_of(dataset: Dataset) -> np.ndarray:
    """int64[k]: how many examples each class has; empty for a regression."""
    return dataset.class_counts


def _name_notes(names: Names) -> list[str]:
    groups = unlike_in_form(names)
    notes = [f"warning: {' and '.join(group[:SHOWN])} are {len(group):,} classes" for group in groups[:SHOWN]]
    if len(groups) > SHOWN:
        notes.append(f"warning: {len(groups) - SHOWN:,} more groups of class names that differ only in form")
    if are_numbers(names) and names != tuple(map(str, range(len(names)))):
        notes.append(
            f"{counted(len(names), 'class')}, named by their labels: {names_text(names)}, the outputs in this order"
        )
    return notes


def _training_notes(splits: Splits, counts: np.ndarray) -> list[str]:
    names, missing, single = splits.train.class_names, counts == 0, counts == 1
    notes = []
    if np.count_nonzero(counts) == 1:
        notes.append(f"warning: one class only to train on, {names_text(_names_at(counts > 0, names))}")
    if missing.any():
        line = f"warning: no training examples of {_some_of(missing, names)}, which the model cannot learn"
        if splits.train.skipped:
            line += f"; skipped: {counted(len(splits.train.skipped), 'file')}"
        elif splits.validation is not None and (missing & (counts_of(splits.validation) > 0)).any():
            line += "; their examples are in validation, where stratified would set aside the same share of each"
        notes.append(line)
    if len(names) > len(splits.train):
        notes.append(
            f"warning: {len(names):,} classes, more than the {counted(len(splits.train), 'example')} to train on"
        )
    elif len(names) > 2 and 2 * np.count_nonzero(single) > len(names):
        notes.append(f"warning: a single training example of {_some_of(single, names)}")
    return notes


def _some_of(chosen: np.ndarray, names: Names) -> str:
    count = int(np.count_nonzero(chosen))
    return f"{names_text(_names_at(chosen, names))} ({count:,} of {len(names):,} classes)"


def _names_at(chosen: np.ndarray, names: Names) -> Iterable[str]:
    return [names[k] for k in np.flatnonzero(chosen)]

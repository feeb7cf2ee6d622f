"""data.class_names: which classes of a dataset a run is to have, and in which order."""

from collections.abc import Callable

import numpy as np

from engine.data.classes.names import Names, composed, names_text, number_of
from engine.data.decoded.dataset import Dataset
from engine.errors import InputError, problem, unknown


def in_listed_order(
    dataset: Dataset, class_names: Names | None, may_lack: bool, tell: Callable[[str], None]
) -> Dataset:
    """The examples of the classes that are listed, with labels in that order; reports how many are left out.

    Labels that are numbers, where none of the names is one, are taken for indices into the names. Raises InputError
    for names that the data does not have, unless it is a split that may lack some.
    """
    if class_names is None or not dataset.class_names:
        return dataset
    listed = tuple(map(composed, class_names))
    own = dataset.class_names
    numbers = _whole_numbers(own)
    if numbers and not set(own) & set(listed):
        own = _named(numbers, listed, dataset.name)
        tell(f"{dataset.name}: labels 0 to {len(listed) - 1} are named {names_text(listed)} (data.class-names)")
    for name in listed:
        if name not in own and not may_lack:
            raise InputError(unknown("data.class_names", name, own))
    places = np.array([listed.index(name) if name in listed else -1 for name in own], np.int32)
    if dataset.task == "labels":
        return _of_listed_labels(dataset, listed, own, tell)
    labels = places[dataset.labels]
    kept = np.flatnonzero(labels >= 0)
    if len(kept) == len(labels):
        return dataset.relabelled(labels, listed)
    others = [name for name in own if name not in listed]
    what = f"{len(labels) - len(kept):,} examples of classes that are not in data.class-names ({names_text(others)})"
    tell(f"{dataset.name}: left out {what}")
    return dataset.take(kept, dataset.name).relabelled(labels[kept], listed)


def _of_listed_labels(dataset: Dataset, listed: Names, own: Names, tell: Callable[[str], None]) -> Dataset:
    """All examples, with the listed ones of their labels."""
    labels = np.zeros((len(dataset), len(listed)), np.uint8)
    for k, name in enumerate(listed):
        if name in own:
            labels[:, k] = dataset.labels[:, own.index(name)]
    if others := [name for name in own if name not in listed]:
        tell(f"{dataset.name}: left out the labels that are not in data.class-names ({names_text(others)})")
    return dataset.relabelled(labels, listed)


def _whole_numbers(names: Names) -> list[int]:
    """The numbers that names are; none where one is no whole number, or two are the same, like 1 and 001."""
    numbers = [number for name in names if (number := number_of(name)) is not None and number == int(number)]
    return list(map(int, numbers)) if len(set(numbers)) == len(names) else []


def _named(numbers: list[int], listed: Names, where: str) -> Names:
    """The names that labels, numbers from 0, stand for."""
    if min(numbers) < 0 or max(numbers) >= len(listed):
        rule = f"one for each of the labels of {where}, which go up to {max(numbers)}"
        raise InputError(problem("data.class_names", f"{len(listed)} names", rule, "Name every label, in order."))
    return tuple(listed[number] for number in numbers)

"""Labels as people write them, numbers or text → class names and indices into them. Every way in reads them here."""

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from engine.data.classes.names import Names, check_printable, composed, names_text, ordered
from engine.errors import InputError, problem

READING = 2  # part of the key of what is decoded; raise it when the same labels are read as other classes


def classes_of(labels: np.ndarray | Sequence[str], where: str, class_names: Any = None) -> tuple[np.ndarray, Names]:
    """(int32[n] indices into the class names, the class names) of labels [n], whole numbers or text.

    class_names: None: the labels that occur, so that no class is without examples, in the order of `ordered`. A list:
      names in the order of the outputs; labels are indices into it, or text among it. A mapping: {label: name}, or
      {name: index} as Keras's class_indices.
    Raises InputError for names that are no such list, and for labels that have no name.
    """
    written, places = _distinct(labels)
    check_printable(written, where, "Correct or leave out these labels.")
    if class_names is None:
        _check_not_negative(written, places, where)
        names = ordered(written)
        index = {name: k for k, name in enumerate(names)}
    elif isinstance(class_names, Mapping):
        names, index = _of_mapping(class_names, written)
    else:
        names = read_names(class_names)
        check_printable(names, "class_names")
        index = _of_list(names, written, places, isinstance(labels, np.ndarray) and labels.dtype.kind != "U", where)
    unnamed = [k for k, label in enumerate(written) if label not in index]
    if unnamed:
        at = _first(places, unnamed[0])
        rule = f"one of the labels that class_names has a name for ({names_text(index)})"
        remedy = "Add its name, or leave such examples out."
        raise InputError(problem(f"{where} of example {at}", repr(written[unnamed[0]]), rule, remedy))
    return np.array([index[label] for label in written], np.int32)[places], names


def read_names(given: Any, field: str = "class_names") -> Names:
    """Class names that a user gave as a list; raises InputError naming what is wrong with them."""
    if isinstance(given, set | frozenset):
        got, rule = "a set, which has no order", "a list of names, one a class, in the order of the labels"
        raise InputError(problem(field, got, rule, 'Give them like ["cat", "dog"].'))
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        got, remedy = repr(given)[:80], 'Give them like ["cat", "dog"].'
        raise InputError(problem(field, got, "a list of names, one a class", remedy))
    names = tuple(_name_of(name, field) for name in given)
    if not names:
        raise InputError(problem(field, "no names", "one a class", "Leave them out, or give them all."))
    twice = [name for k, name in enumerate(names) if name in names[:k]] if len(set(names)) < len(names) else []
    if twice:
        rule = "a name of its own for each class"
        raise InputError(problem(field, f"{names_text(dict.fromkeys(twice))} more than once", rule, "Rename one."))
    return names


def _name_of(given: Any, field: str) -> str:
    """One name as text: whole numbers as they are written."""
    if isinstance(given, str):
        return composed(str(given))
    if isinstance(given, Integral):
        return str(int(given))
    if isinstance(given, Real) and (number := float(given)).is_integer():
        return str(int(number))
    raise InputError(problem(field, repr(given)[:80], "names that are text or whole numbers", "Convert them."))


def _distinct(labels: np.ndarray | Sequence[str]) -> tuple[list[str], np.ndarray]:
    """(the labels that occur, as they are written; int[n]: which of them each label is)."""
    if isinstance(labels, np.ndarray):
        values, places = np.unique(labels.astype(np.int64) if labels.dtype.kind == "b" else labels, return_inverse=True)
        return [composed(str(value)) for value in values], places.ravel()
    index: dict[str, int] = {}  # and no array of texts, which would take the length of the longest for each
    places = [index.setdefault(label, len(index)) for label in labels]
    return [composed(label) for label in index], np.array(places, np.int64)


def _of_list(names: Names, written: list[str], places: np.ndarray, are_numbers: bool, where: str) -> dict[str, int]:
    """The index of each label for names in the order of the outputs."""
    if not are_numbers:
        return {name: k for k, name in enumerate(names)}
    numbers = list(map(int, written))
    low, high = min(numbers, default=0), max(numbers, default=0)
    if low < 0 or high >= len(names):
        worst = low if low < 0 else high
        rule = f"0 to {len(names) - 1} for {len(names)} class names ({names_text(names)})"
        pairs = ", ".join(f"{low + k}: {name!r}" for k, name in enumerate(names[:2]))
        is_shifted = low > 0 and high - low < len(names)
        remedy = f"Name them by label: class_names={{{pairs}, …}}." if is_shifted else "Give every label a name."
        if set(written) <= set(names):
            remedy = "Leave class_names out: the labels are the names."
        at = _first(places, numbers.index(worst))
        raise InputError(problem(f"{where} of example {at}", worst, rule, remedy))
    return dict(zip(written, numbers, strict=True))


def _of_mapping(given: Mapping[Any, Any], written: list[str]) -> tuple[Names, dict[str, int]]:
    """(names, index of each label) for {label: name} or {name: index}."""
    by_label = dict(given)
    if given and all(isinstance(value, Integral) for value in given.values()):  # Keras's class_indices
        by_label = {value: name for name, value in given.items()}
        if len(by_label) < len(given):
            got = repr(given)[:80]
            raise InputError(problem("class_names", got, "an index of its own for each name", "Correct it."))
    labels = [_name_of(label, "class_names") for label in by_label]
    places = {label: k for k, label in enumerate(ordered(labels))}
    pairs = sorted(zip(labels, by_label.values(), strict=True), key=lambda pair: places[pair[0]])
    names = read_names([name for _, name in pairs])
    check_printable(names, "class_names")
    if set(written) <= set(names) and not set(written) <= set(labels):
        return names, {name: k for k, name in enumerate(names)}
    return names, {label: k for k, (label, _) in enumerate(pairs)}


def _check_not_negative(written: list[str], places: np.ndarray, where: str) -> None:
    """Raises InputError for labels below 0, which mark examples without a label oftener than a class."""
    below = [k for k, label in enumerate(written) if re.fullmatch(r"-\d+", label, re.ASCII)]
    if below:
        at = _first(places, below[0])
        remedy = "Leave out examples without a label; a class of such a number needs a name in place of it."
        raise InputError(problem(f"{where} of example {at}", written[below[0]], "0 or more", remedy))


def _first(places: np.ndarray, which: int) -> int:
    """The first example with that label."""
    return int(np.flatnonzero(places == which)[0])

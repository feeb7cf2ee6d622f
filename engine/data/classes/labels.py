"""Labels as people write them → class names and indices into them, or targets of a regression.

The one reading for all ways in: `fit`, `dataset`, `evaluate`, `finetune`, validation data, .npz, IDX and tables.
"""

from math import prod
from typing import Any, NamedTuple

import numpy as np

from engine.data.arrays.given import column_names, plain_array
from engine.data.classes.names import names_text
from engine.data.classes.reading import read_names
from engine.errors import InputError, problem, shape_text

SEVERAL = (
    'For several labels a picture set loss="binary_cross_entropy", of a command --train.loss binary_cross_entropy.'
)
REGRESSION = 'For a regression set loss="mean_squared_error", of a command --train.loss mean_squared_error.'
GROUPS = (list, tuple, set, frozenset)  # of labels of one picture
MOST_CLASSES = 100_000  # larger whole floats are amounts


class Classes(NamedTuple):
    """int64[n] numbers or text[n] labels; and the names of the classes in order, where the labels come with them."""

    values: np.ndarray
    names: tuple[str, ...] | None = None


def read_classes(given: Any, field: str) -> Classes:
    """Class labels of any form: whole numbers [n] or [n 1] (also as floats or truth values), text, one-hot [n k].

    Raises InputError, naming `field`, for anything else, with what it is taken for and what to do about that.
    """
    labels = of_one_kind(_as_array(given, field), field)
    if is_one_hot(labels):
        names = read_names(column_names(given) or range(labels.shape[1]), field)
        return Classes(labels.argmax(1), names)
    if labels.ndim != 1:
        raise InputError(_several(labels, field, _indexable(given)))
    if labels.dtype.kind == "f":
        labels = _whole(labels, field)
    if labels.dtype.kind not in "biuU":
        rule, remedy = "whole numbers or text", "Give one number or name a picture."
        raise InputError(problem(field, f"{labels.dtype} labels", rule, remedy))
    return Classes(labels if labels.dtype.kind == "U" else _int64(labels, field))


def read_targets(given: Any, field: str) -> np.ndarray:
    """float32[n d] of targets of a regression [n] or [n d]; raises InputError for text and what is not finite."""
    targets = of_one_kind(_as_array(given, field), field)
    if targets.dtype.kind not in "biuf" or targets.ndim == 0:
        rule, remedy = "numbers, as mean_squared_error needs", "Use a loss for classes, like softmax_cross_entropy."
        raise InputError(problem(field, f"{targets.dtype} labels", rule, remedy))
    with np.errstate(over="ignore"):
        targets = targets.astype(np.float32)
    _check_finite(targets, field)
    return targets.reshape(len(targets), prod(targets.shape[1:]))  # [n] or [n …] → [n d]


def are_targets(given: Any, field: str) -> bool:
    """Whether labels are floats that name no classes: with fractions, below 0, huge, or in columns but not one-hot."""
    labels = of_one_kind(_as_array(given, field), field)
    if labels.dtype.kind != "f" or not np.isfinite(labels).all() or is_one_hot(labels):
        return False
    is_code = labels.ndim == 1 and float(labels.min(initial=0)) >= 0 and float(labels.max(initial=0)) < MOST_CLASSES
    return not is_code or bool((labels != np.floor(labels)).any())


def targets_for_classes(targets: np.ndarray, field: str, loss: str) -> str:
    """The wording for targets float32[n d] where a loss needs class labels."""
    if are_truths(targets) and targets.any():
        return _several(targets, field)
    rule = f"class labels, as {loss} needs"
    if targets.shape[1] > 1 and are_shares(targets):
        remedy = "For the likeliest class of each give labels.argmax(1)."
        return problem(field, "class probabilities (soft labels)", rule, remedy)
    if targets.shape[1] == 1 and targets.min() >= 0 and targets.max() <= 1:
        remedy = f"For two classes give (labels > 0.5).astype(int). {REGRESSION}"
        return problem(field, "numbers between 0 and 1", rule, remedy)
    has_fractions = bool((targets != np.floor(targets)).any())
    got = "float targets with fractions" if has_fractions else "float targets"
    return problem(field, got, rule, REGRESSION)


def _as_array(given: Any, field: str) -> np.ndarray:
    """Labels as an array; raises InputError for lists of several labels a picture, as many as each has."""
    if isinstance(given, (list, tuple)) and all(isinstance(one, GROUPS) for one in given):
        lengths = list(map(len, given))
        if len(set(lengths)) > 1:
            raise InputError(_lists(lengths, field))
    return plain_array(given, field)


def _indexable(given: Any) -> str:
    """The labels as advice names them: lists and data frames are no arrays, whose columns have numbers."""
    is_array = hasattr(given, "__getitem__") and hasattr(given, "argmax") and not hasattr(given, "columns")
    return "labels" if is_array else "np.asarray(labels)"


def of_one_kind(labels: np.ndarray, field: str) -> np.ndarray:
    """Labels [n] or [n d] of numbers or text, where there were Python objects or bytes or axes of one place."""
    if labels.ndim > 1 and 1 in labels.shape[1:]:
        labels = labels.reshape(len(labels), *(size for size in labels.shape[1:] if size != 1))  # [n 1 k] → [n k]
    if labels.dtype.kind == "O":
        labels = _of_objects(labels, field)
    if labels.dtype.kind == "S":
        try:
            return np.char.decode(labels, "utf-8")
        except UnicodeDecodeError:
            remedy = 'Decode them, like labels.astype(str) or np.char.decode(labels, "latin-1").'
            raise InputError(problem(field, "bytes that are not UTF-8", "text or numbers", remedy)) from None
    return np.array(labels.tolist(), dtype=str) if labels.dtype.kind == "T" else labels


def _of_objects(labels: np.ndarray, field: str) -> np.ndarray:
    """Python objects of one kind, as pandas gives them, as an array of numbers or text."""
    flat = labels.reshape(-1).tolist()
    for place, value in enumerate(flat):
        if (
            value is None
            or type(value).__name__ in ("NAType", "NaTType")
            or (isinstance(value, float) and value != value)
        ):
            at = place * len(labels) // max(1, len(flat))
            remedy = "Leave that example out, or correct its label."
            raise InputError(problem(f"{field} of example {at}", "no label", "a label for each", remedy))
    kinds = {type(value) for value in flat}
    if labels.ndim == 1 and any(issubclass(kind, GROUPS) for kind in kinds):
        raise InputError(_lists([len(value) if isinstance(value, GROUPS) else 1 for value in flat], field))
    if all(issubclass(kind, str) for kind in kinds):
        return labels.astype(str)
    if all(issubclass(kind, bytes) for kind in kinds):
        return labels.astype(bytes)
    if all(issubclass(kind, (bool, int, float, np.number, np.bool_)) for kind in kinds):
        numbers = np.array(flat).reshape(labels.shape)
        if numbers.dtype == object:
            raise InputError(_beyond(field))
        return numbers
    if labels.ndim > 1:
        raise InputError(_several(labels, field, "np.asarray(labels)"))
    names = names_text(tuple(sorted(kind.__name__.rstrip("_") for kind in kinds)))
    rule, remedy = (
        "all numbers or all text",
        "Convert them: text with np.array(labels).astype(str), numbers with astype(int).",
    )
    got = f"labels of several kinds ({names})" if len(kinds) > 1 else f"labels that are {names} objects"
    raise InputError(problem(field, got, rule, remedy))


def has_one_a_column(labels: np.ndarray) -> bool:
    """Whether truths are one-hot on their side: fewer rows than columns, and one 1 in each of these."""
    return len(labels) < labels.shape[1] and are_truths(labels.T) and bool((labels.T.sum(1) == 1).all())


def is_one_hot(labels: np.ndarray) -> bool:
    """Whether labels [n k] have one 1 a row and 0 beside it."""
    return labels.ndim == 2 and are_truths(labels) and bool((labels.sum(1) == 1).all())


def are_truths(labels: np.ndarray) -> bool:
    """Whether labels [n d], d above 1, are all 0 or 1."""
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind not in "biuf":
        return False
    return labels.dtype.kind == "b" or bool(((labels == 0) | (labels == 1)).all())


def _is_code(labels: np.ndarray) -> bool:
    """Whether labels are one-hot in other numbers than 0 and 1, like -1 and 1 or 0 and 255."""
    if labels.ndim != 2 or labels.shape[1] < 3 or labels.dtype.kind not in "iuf" or not labels.size:
        return False
    is_high = labels == labels.max()
    return bool((is_high | (labels == labels.min())).all() and (is_high.sum(1) == 1).all())


def are_shares(labels: np.ndarray) -> bool:
    """Whether rows of labels [n k] are 0 or more and sum to 1."""
    return bool(labels.min() >= 0 and np.allclose(labels.astype(np.float64).sum(1), 1, atol=1e-3))


def _several(labels: np.ndarray, field: str, given: str = "labels") -> str:
    """The wording for labels [n d …] of which none says one class; given: how advice names them."""
    if labels.ndim == 0:
        return problem(field, "a single value", "one a picture, [n]", "Give a list or an array of them.")
    shape = shape_text(labels.shape)
    if has_one_a_column(labels):
        return problem(field, f"labels of {shape}, one 1 a column", "one 1 a row", f"Turn them: {given}.T.")
    if are_truths(labels) and labels.any():
        counts = labels.astype(np.int64).sum(1)
        if counts.max() == 1:
            got = f"labels of {shape} with no 1 in {(counts == 0).sum():,} rows"
            remedy = f"Leave those examples out, or add a column for what is of none of these classes. {SEVERAL}"
            return problem(f"{field} of example {int(counts.argmin())}", got, "one 1 a row", remedy)
        got = f"labels of {shape} with {counts.min()} to {counts.max()} ones a row (several labels a picture)"
        return problem(field, got, "one class a picture, [n], or one 1 a row", SEVERAL)
    got, rule = f"labels of {shape}", "one a picture, [n], or one-hot, [n k]"
    if labels.dtype.kind == "f" and labels.ndim == 2 and labels.size and are_shares(labels):
        remedy = f"For the likeliest class give {given}.argmax(1)."
        return problem(field, f"class probabilities of {shape}", rule, remedy)
    if _is_code(labels):
        high, low = (f"{value:g}" for value in (labels.max(), labels.min()))
        got = f"labels of {shape} with one {high} a row beside {low}"
        return problem(field, got, rule, f"For the classes that they stand for give {given}.argmax(1).")
    if labels.ndim == 2 and labels.shape[0] == 1:
        return problem(field, got, rule, f"For a row of labels give {given}[0].")
    if labels.ndim == 2:
        other = {"U": f" {SEVERAL}", "O": f" {SEVERAL}", "f": f" {REGRESSION}"}.get(labels.dtype.kind, "")
        return problem(field, got, rule, f"Give the column that holds the class, like {given}[:, 0].{other}")
    return problem(field, got, rule, "Give one class for each picture.")


def _lists(lengths: list[int], field: str) -> str:
    """The wording for a list of labels for each picture."""
    got = f"lists of {min(lengths)} to {max(lengths)} labels (several labels a picture)"
    return problem(field, got, "one class a picture, [n], or one 1 a row", SEVERAL)


def _beyond(field: str) -> str:
    return problem(field, "numbers beyond 32 bits", "class indices from 0", "Correct the labels.")


def _whole(labels: np.ndarray, field: str) -> np.ndarray:
    """Floats that are whole numbers as int64."""
    _check_finite(labels, field)
    fractions = np.flatnonzero(labels != np.floor(labels))
    if len(fractions):
        raise InputError(targets_for_classes(labels[:, None], field, "a classifier"))
    return _int64(labels, field)


def _int64(labels: np.ndarray, field: str) -> np.ndarray:
    if labels.size and labels.dtype.kind != "b" and max(abs(float(labels.min())), abs(float(labels.max()))) >= 2**31:
        raise InputError(_beyond(field))
    return labels.astype(np.int64)


def _check_finite(values: np.ndarray, field: str) -> None:
    if not np.isfinite(values).all():
        at = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InputError(problem(f"{field} of example {at}", "NaN or infinity", "a finite number", "Correct the data."))

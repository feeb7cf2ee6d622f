"""Labels of which a picture may have several → 0 or 1 for each label; and shares of classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.data.arrays.given import column_names, plain_array
from engine.data.classes.labels import GROUPS, are_shares, are_truths, has_one_a_column, is_one_hot, of_one_kind
from engine.data.classes.names import Names, check_printable, composed, ordered
from engine.data.classes.reading import read_names
from engine.errors import InputError, problem, unknown


def read_several(given: Any, field: str, is_asked: bool | None, class_names: Any = None) -> tuple | None:
    """(uint8[n k], the names of the k labels) of 0 and 1 in columns [n k], or of a list of labels for each picture.

    None where labels are none of these. is_asked: columns with one 1 a row are such labels too, if there are more than
    two; None: they are classes; False: nothing is.
    """
    if is_asked is False:
        return None
    lists = _label_lists(given)
    if lists is not None:
        return mark_labels(lists, field, read_names(class_names) if class_names is not None else None)
    labels = of_one_kind(plain_array(given, field), field)
    if not are_truths(labels) or not labels.any():
        return None
    if is_one_hot(labels) and not (is_asked and labels.shape[1] > 2):
        return None
    if not is_asked and has_one_a_column(labels):
        return None
    names = read_names(class_names if class_names is not None else column_names(given) or range(labels.shape[1]))
    if len(names) != labels.shape[1]:
        got, rule = f"{field} of {labels.shape[1]} columns", f"{len(names)}, one for each of class_names"
        raise InputError(problem(field, got, rule, "Name every column."))
    check_printable(names, "class_names")
    return labels.astype(np.uint8), names


def mark_labels(lists: Sequence[Any], field: str, names: Names | None = None) -> tuple[np.ndarray, Names]:
    """(uint8[n k], names) of the labels of each picture, texts or whole numbers; names: those known, in order.

    Raises InputError for a label that is not among these.
    """
    written = [[composed(str(label)) for label in labels] for labels in lists]
    if names is None:
        names = ordered({label for labels in written for label in labels})
        check_printable(names, field, "Correct or leave out these labels.")
    if len(names) < 2:
        rule, remedy = "at least two different labels", "Give one label a picture for two classes."
        raise InputError(problem(field, f"{len(names)} label in all", rule, remedy))
    place, marks = {name: k for k, name in enumerate(names)}, np.zeros((len(lists), len(names)), np.uint8)
    for number, labels in enumerate(written):
        for label in labels:
            if label not in place:
                raise InputError(unknown(f"{field} of example {number}", label, names))
            marks[number, place[label]] = 1
    return marks, names


def read_shares(given: Any, field: str) -> tuple[np.ndarray, Names] | None:
    """(float32[n k] in sum 1, names of the columns) of shares of classes, as soft labels are; None if they are none."""
    if _label_lists(given) is not None:
        return None
    shares = plain_array(given, field)
    if not are_class_shares(shares):
        return None
    names = read_names(column_names(given) or range(shares.shape[1]))
    check_printable(names, "class_names")
    return normalize_shares(shares), names


def are_class_shares(labels: np.ndarray) -> bool:
    """Whether labels [n k], of two or more columns, are 0 or more and sum to 1 in each row, but not one-hot."""
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind != "f" or not labels.size:
        return False
    return bool(np.isfinite(labels).all()) and are_shares(labels) and not are_truths(labels)


def normalize_shares(shares: np.ndarray) -> np.ndarray:
    """float32[n k]: rows that sum to 1."""
    return (shares / shares.sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)


def _label_lists(given: Any) -> list | None:
    """The labels of each picture, where these are lists of them and no rows of numbers alike in length."""
    if getattr(getattr(given, "dtype", None), "kind", "") == "O":  # a column of pandas, too
        given = np.asarray(given)
    if isinstance(given, np.ndarray) and given.dtype != object:
        return None
    if not isinstance(given, list | tuple | np.ndarray) or np.ndim(given if isinstance(given, np.ndarray) else 0) > 1:
        return None
    lists = list(given)
    if not lists or not all(isinstance(labels, GROUPS) for labels in lists):
        return None
    are_texts = any(isinstance(label, str) for labels in lists for label in labels)
    has_sets = any(isinstance(labels, set | frozenset) for labels in lists)
    are_unlike = len({len(labels) for labels in lists}) > 1
    are_plain = all(isinstance(label, str | int | np.integer) for labels in lists for label in labels)
    return lists if are_plain and (are_texts or has_sets or are_unlike) else None

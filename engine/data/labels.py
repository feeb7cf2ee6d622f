"""Labels as people write them, numbers or text → class names and indices into them."""

import numpy as np

from engine.data.dataset import names_text
from engine.errors import InputError, problem, shape_text


def checked_labels(labels: np.ndarray, name: str) -> np.ndarray:
    """[n] of whole numbers or text; raises InputError for one-hot, fractions and the like."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        remedy = "Turn one-hot labels into indices: labels.argmax(1)."
        raise InputError(problem(name, f"labels of {shape_text(labels.shape)}", "one a picture, [n]", remedy))
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8")
    if labels.dtype.kind not in "biuU":
        rule, remedy = "whole numbers or text", "Convert them with astype(int)."
        raise InputError(problem(name, f"{labels.dtype} labels", rule, remedy))
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def class_names_of(labels: np.ndarray, name: str) -> tuple[str, ...]:
    """Names of the classes: the texts in order, or "0" to the largest number."""
    if labels.dtype.kind == "U":
        return tuple(map(str, np.unique(labels)))
    if len(labels) == 0:
        return ()
    low, high, count = int(labels.min()), int(labels.max()), len(np.unique(labels))
    if low < 0 or high >= max(1000, 10 * count):
        rule, remedy = f"0 to {count - 1} for {count} classes", "Number the classes from 0 without gaps."
        raise InputError(problem(name, f"labels from {low} to {high}", rule, remedy))
    return tuple(map(str, range(high + 1)))


def indices_of(labels: np.ndarray, class_names: tuple[str, ...], name: str) -> np.ndarray:
    """int32[n]: the place of each label among the class names; raises InputError naming one that is not there."""
    values, places = np.unique(labels, return_inverse=True)
    index = {class_name: k for k, class_name in enumerate(class_names)}
    for value in values:
        if str(value) not in index:
            at = int(np.flatnonzero(labels == value)[0])
            rule = f"a class of the training split ({names_text(class_names)})"
            raise InputError(problem(f"{name} label of example {at}", repr(str(value)), rule, "Correct it."))
    return np.array([index[str(value)] for value in values], np.int32)[places]

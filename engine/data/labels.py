"""Labels of arrays in files: numbers or text, one a picture."""

import numpy as np

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

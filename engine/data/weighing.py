"""How much classes and examples count: `train.class_weight` for the classes of a dataset, and balanced draws."""

from typing import NamedTuple

import numpy as np

from engine.config.train import ClassWeight
from engine.data.decoded.dataset import Dataset
from engine.errors import InputError, problem, unknown

SHOWN = 10  # classes in a note
FIELD = "train.class_weight"


class ClassDraws(NamedTuple):
    """For balanced sampling: the class of each example, int32[n], and the examples of each, int32[k], none 0."""

    classes: np.ndarray
    counts: np.ndarray


def class_weights(given: ClassWeight | None, train: Dataset) -> tuple[float, ...] | None:
    """What the loss of each class is multiplied by, in the order of the class names; None: 1 for all.

    balanced: n / (k × count), scikit-learn's rule, with the sums of weights in place of counts where examples have
    some; k are the classes that occur. Raises InputError for classes that there are not.
    """
    if given is None:
        return None
    _check_one_class(FIELD, train)
    if given == "balanced":
        return tuple(balanced_weights(train).tolist())
    named = {
        train.class_names[k]: weight for k, weight in zip(_numbers(given, train), dict(given).values(), strict=True)
    }
    found = tuple(named.get(name, 1.0) for name in train.class_names)
    if not any(found):
        raise InputError(problem(FIELD, "0 for every class", "some above 0", "Correct it."))
    return found


def balanced_weights(train: Dataset, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """float[k]: the weights of the classes, balanced, of some examples."""
    sums = np.bincount(
        train.class_numbers[rows], None if train.weights is None else train.weights[rows], train.num_classes
    )
    occurs = sums > 0
    return np.where(occurs, sums.sum() / (np.count_nonzero(occurs) * np.where(occurs, sums, 1)), 1.0)


def weight_notes(given: ClassWeight | None, train: Dataset, has_folds: bool = False) -> list[str]:
    """A line that says how much each class counts, and which classes indices were taken for.

    has_folds: each member counts what it trains on, so that the numbers are those of all examples, not quite its own.
    """
    weights = class_weights(given, train)
    if weights is None:
        return []
    pairs = [f"{name} {weight:.4g}" for name, weight in zip(train.class_names, weights, strict=True)]
    more = f", … {len(pairs) - SHOWN:,} more" if len(pairs) > SHOWN else ""
    how = " (by index)" if isinstance(given, tuple) and not _are_names(given, train) else ""
    whose = ", in each member by its own examples; by all of them" if given == "balanced" and has_folds else ""
    return [f"the training loss counts by class{how}{whose}: {', '.join(pairs[:SHOWN])}{more}"]


def class_draws(train: Dataset) -> ClassDraws:
    """What balanced sampling draws from. Raises InputError where examples are not of one class each."""
    _check_one_class("train.sampling", train)
    _, classes, counts = np.unique(train.class_numbers, return_inverse=True, return_counts=True)
    return ClassDraws(classes.astype(np.int32), counts.astype(np.int32))


def _check_one_class(field: str, train: Dataset) -> None:
    if train.task == "classes":
        return
    got = "a regression" if train.task == "numbers" else "several labels a picture"
    remedy = "Leave it out; examples can have weights: (images, labels, weights)."
    raise InputError(problem(field, got, "data with one class a picture", remedy))


def _are_names(given: tuple[tuple[str, float], ...], train: Dataset) -> bool:
    return any(name in train.class_names for name, _ in given)


def _numbers(given: tuple[tuple[str, float], ...], train: Dataset) -> list[int]:
    """The classes that weights are given for: by name, or, where none is a name, by index as in Keras."""
    names = train.class_names
    if _are_names(given, train):
        others = [name for name, _ in given if name not in names]
        if others:
            raise InputError(unknown(FIELD, others[0], names))
        return [names.index(name) for name, _ in given]
    others = [name for name, _ in given if not (name.isascii() and name.isdigit() and int(name) < len(names))]
    if others:
        raise InputError(unknown(FIELD, others[0], names))
    return [int(name) for name, _ in given]

"""Examples that belong together, like the pictures of one patient: numbered, and drawn as a whole."""

from typing import Any

import numpy as np

from engine.errors import InputError, problem, shape_text


def number_groups(given: Any, count: int, field: str) -> np.ndarray:
    """int32[n] of numbers or texts [n]: equal ones have one number; raises InputError unless there are `count`."""
    values = np.asarray(given)
    if values.shape != (count,):
        got = f"{values.dtype.name} of {shape_text(values.shape)}"
        raise InputError(
            problem(field, got, f"{count:,} numbers or texts, one an example", "Check how they were read.")
        )
    return np.unique(values, return_inverse=True)[1].astype(np.int32)


def draw_groups(groups: np.ndarray, order: np.ndarray, fraction: float) -> tuple[np.ndarray, float]:
    """(the order with the examples of chosen groups first, their share): whole groups, at most that fraction.

    Groups are taken in the order in which `order` has their first examples, as long as they fit.
    """
    own = groups[order]
    names, first, counts = np.unique(own, return_index=True, return_counts=True)
    in_turn = np.argsort(first)
    is_chosen = np.isin(own, names[in_turn[np.cumsum(counts[in_turn]) <= round(len(order) * fraction)]])
    return order[np.argsort(~is_chosen, kind="stable")], float(is_chosen.mean())

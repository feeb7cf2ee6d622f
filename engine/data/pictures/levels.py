"""Arrays of numbers → uint8 levels, by the range that stands for black to white."""

import re

import numpy as np

from engine.config.decoding import LEAST_SHARE, ValueRange
from engine.errors import InputError, problem

USUAL_RANGES: tuple[ValueRange, ...] = ((0, 1), (-1, 1), (0, 255))
WAYS_TO_LEVELS: dict[ValueRange, str] = {
    (0, 1): "Multiply them by 255 and round to uint8: (images * 255).round().astype(np.uint8)",
    (-1, 1): "Bring them to 0 to 255 and round to uint8: ((images + 1) * 127.5).round().astype(np.uint8)",
    (0, 255): "Round them to uint8: images.round().astype(np.uint8)",
}


def as_levels(array: np.ndarray, value_range: ValueRange | None, name: str) -> np.ndarray:
    """uint8 […], 0 for the low end of the range and 255 for the high one, rounded to the nearest.

    Without a range uint8 is taken as it is, and nothing else is taken. Raises InputError, showing both sides, for
    values that are not finite, that are outside the range, or that lie all in its first hundredth without being black.
    """
    if value_range is None and array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "buif":
        raise InputError(problem(name, array.dtype.name, "uint8, or numbers with a value_range", "Convert them."))
    if value_range is not None:
        check_range(value_range)
    if array.size == 0:
        return array.astype(np.uint8, copy=False)
    lowest, highest = extremes(array, name)
    got = f"{array.dtype.name} from {lowest:g} to {highest:g}"
    if value_range is None:
        rule = "uint8, or a value_range that says what is black and what white"
        raise InputError(problem(name, got, rule, to_levels((lowest, highest))))
    low, high = map(float, value_range)
    half_level = (high - low) / 510
    if lowest < low - half_level or highest > high + half_level:
        rule = f"values from {low:g} to {high:g}, the value_range"
        raise InputError(problem(name, got, rule, _remedy(lowest, highest)))
    if array.dtype != np.uint8 and 0 < highest - low < LEAST_SHARE * (high - low):
        rule = f"values from {low:g} to {high:g}, the value_range, and not its first hundredth alone"
        remedy = f"{_remedy(lowest, highest, value_range)} If they are that dark, pass uint8."
        raise InputError(problem(name, got, rule, remedy))
    if array.dtype == np.uint8 and (low, high) == (0, 255):
        return array
    return spread(array, low, high)


def spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 […] of numbers: 0 for `low` and 255 for `high`, to the nearest; what is beyond them is cut off there."""
    fine = values.astype(np.float64 if values.dtype.itemsize > 4 or abs(high) >= 2**24 else np.float32)
    return np.rint((fine - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def is_level(cell: str) -> bool:
    """Whether a cell is a whole number from 0 to 255."""
    found = re.fullmatch(r"\+?0*(\d{1,3})", cell.strip(), re.ASCII)  # and not int, which refuses 5,000 digits
    return found is not None and int(found[1]) <= 255


def check_range(value_range: ValueRange) -> None:
    """Raises InputError unless it is (black, white), two finite numbers in order."""
    try:
        low, high = map(float, value_range)
        is_range = bool(np.isfinite([low, high]).all() and low < high)
    except (TypeError, ValueError):
        is_range = False
    if not is_range:
        rule, remedy = "two numbers, what is black and what is white", "Give (0, 1), (-1, 1) or (0, 255)."
        raise InputError(problem("value_range", repr(value_range), rule, remedy))


def to_levels(found: ValueRange) -> str:
    """How numbers of a range become levels, where that is plain: by a line of code, or by the range to state."""
    usual = next((usual for usual in USUAL_RANGES if usual[0] <= found[0] and found[1] <= usual[1]), None)
    if usual is not None:
        return f"{WAYS_TO_LEVELS[usual]}, or pass value_range={usual}."
    white = next((2**bits - 1 for bits in (10, 12, 14, 16) if found[1] < 2**bits), None)
    like = f", like (0, {white})" if white and found[0] >= 0 else ""
    return f"Pass the value_range they have, (black, white){like}."


def _remedy(lowest: float, highest: float, stated: ValueRange | None = None) -> str:
    """Names the usual range that the values lie in, if it is not the one stated."""
    fitting = next((usual for usual in USUAL_RANGES if usual[0] <= lowest and highest <= usual[1]), None)
    return f"Pass value_range={fitting}." if fitting and fitting != stated else "Pass the value_range they have."


def extremes(array: np.ndarray, name: str) -> tuple[float, float]:
    """(the least, the largest) value; raises InputError if any is not finite."""
    lowest, highest = float(array.min()), float(array.max())
    if not np.isfinite([lowest, highest]).all():
        raise InputError(problem(name, "NaN or infinity", "finite values", "Correct the array."))
    return lowest, highest

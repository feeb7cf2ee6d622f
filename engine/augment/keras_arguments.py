"""Arguments of Keras's augmentation layers → settings of an AugmentConfig."""

from numbers import Integral, Real
from typing import Any

from engine.augment.config import FillMode, Interpolation
from engine.augment.preset_config import DataSettings
from engine.augment.rules import AmountRange
from engine.errors import InputError, problem, unknown

Fills = dict[str, FillMode]
FILLS: Fills = {"constant": "constant", "nearest": "edge", "reflect": "reflect", "wrap": "tensorflow_wrap"}
# Keras's elastic layer reads the image with another function than its other layers do.
ELASTIC_FILLS: Fills = {**FILLS, "wrap": "wrap", "reflect": "tensorflow_reflect"}
INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "nearest": "nearest_away"}
LEVELS = (0, 255)


def read_limits(name: str, factor: Any, least: float, most: float) -> tuple[float, float]:
    """(low, high) as Keras reads a factor: of one number f from −f, or `least` if that is more, to f."""
    is_pair = isinstance(factor, (tuple, list))
    numbers = [*factor] if is_pair else [factor]
    are_numbers = all(isinstance(number, Real) and not isinstance(number, bool) for number in numbers)  # NumPy's too
    if not are_numbers or len(numbers) != 1 + is_pair or not all(least <= number <= most for number in numbers):
        rule = f"a number, or two, from {least} to {most}"
        raise InputError(problem(name, repr(factor)[:80], rule, "Give one of these."))
    low, high = sorted(numbers) if is_pair else (max(-abs(factor), least), abs(factor))
    return low, high


def read_crop(height: Any, width: Any) -> DataSettings:
    """Settings of the data that crop the middle of each picture, as evaluation does."""
    for name, pixels in (("height", height), ("width", width)):
        if not isinstance(pixels, Integral) or isinstance(pixels, bool) or pixels < 1:
            raise InputError(problem(name, repr(pixels), "a whole number of pixels, at least 1", "Give 160 or so."))
    return DataSettings(center_crop=f"{height}x{width}")


def shorten_range(low: float, high: float) -> AmountRange:
    """One number if the range is symmetric, as it is printed."""
    return high if low == -high else (low, high)


def read_zooms(name: str, factor: AmountRange) -> tuple[float, float]:
    """(low, high) of the factor by which a side of the visible part grows: Keras counts from 0, we from 1."""
    low, high = read_limits(name, factor, -1, 1)
    return 1 + low, 1 + high


def read_probability(name: str, factor: AmountRange) -> float:
    """The probability that a draw from [0, 1) is below one from the factor's range: of one number f, f / 2."""
    return sum(read_limits(name, factor, 0, 1)) / 2


def check_levels(value_range: Any) -> None:
    """Raises InputError unless the range is that of levels."""
    if not isinstance(value_range, tuple | list) or tuple(value_range) != LEVELS:
        rule = "(0, 255), which pictures have here while they are augmented, whatever data.scale is"
        raise InputError(problem("value_range", repr(value_range), rule, "Leave it out."))


def read_sampling(fill_mode: str, interpolation: str, fill_value: float, fills: Fills = FILLS) -> dict[str, Any]:
    """Settings of how pixels are read between and beyond those of the image."""
    if fill_mode not in fills:
        raise InputError(unknown("fill_mode", fill_mode, fills))
    if interpolation not in INTERPOLATIONS:
        raise InputError(unknown("interpolation", interpolation, INTERPOLATIONS))
    return {"fill": fills[fill_mode], "interpolation": INTERPOLATIONS[interpolation], "fill_value": fill_value}

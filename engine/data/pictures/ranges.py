"""The range of values that pictures come in: recognised, stated, and held against that of the training images."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from engine.config.decoding import LEAST_SHARE, ValueRange
from engine.data.pictures.deep import usual_range
from engine.data.pictures.levels import USUAL_RANGES, check_range, spread
from engine.errors import InputError, problem

BATCH_EXAMPLES = 1024
BATCH_BYTES = 64 * 2**20
MOST_WHITE = 2**16 - 1  # in arrays; larger numbers are no levels unless it is said
MOST_RAW = 127  # uint8 up to it may be no levels yet, where the training images had such a range
AS_THERE = "Scale them in the same way."
SET_PICTURES = 16  # as many are no dark or bright picture but a set, which uses its range


def parts_of(images: Any) -> Iterator[slice]:
    """The examples of an array [n …] in stretches that take little memory."""
    size = max(1, min(BATCH_EXAMPLES, BATCH_BYTES // max(1, prod(images.shape[1:]))))
    return (slice(start, start + size) for start in range(0, len(images), size))


def range_of(images: np.ndarray, field: str) -> ValueRange:
    """(the least, the largest) value of examples [n …]; raises InputError naming one that is not finite."""
    found = [(float(images[part].min()), float(images[part].max())) for part in parts_of(images)]
    low, high = float(np.min(found)), float(np.max(found))
    if not np.isfinite([low, high]).all():
        part, _ = next(pair for pair in zip(parts_of(images), found, strict=True) if not np.isfinite(pair[1]).all())
        at = part.start + int(np.argwhere(~np.isfinite(images[part].astype(np.float64)))[0][0])
        raise InputError(problem(f"{field} of example {at}", "NaN or infinity", "finite values", "Correct the data."))
    return low, high


def levels_range(images: np.ndarray, field: str, stated: ValueRange | None) -> ValueRange:
    """(black, white) of pictures [n …] that are to become levels, as stated or else recognised.

    Whole numbers are of 8, 10, 12, 14 or 16 bits, the fewest that hold them, or 0 and 1; fractions are from 0 to 1 or
    -1 to 1. Raises InputError, showing the values, for others, and for values outside the stated range.
    """
    if images.dtype.kind not in "buif":
        rule = "numbers: uint8 from 0 to 255, or others with a value_range"
        raise InputError(problem(field, f"{images.dtype} images", rule, "Pass arrays of pixels."))
    if stated is not None:
        check_range(stated)
    if len(images) == 0:
        return stated or (0, 255)
    low, high = range_of(images, field)
    if stated is None and images.dtype == np.int8 and low < -1:
        return -128, 127
    are_whole = images.dtype.kind != "f" or (stated is None and _are_whole(images))
    return range_for(images.dtype, (low, high), are_whole, field, stated)


def range_for(
    dtype: np.dtype | str, found: ValueRange, are_whole: bool, field: str, stated: ValueRange | None
) -> ValueRange:
    """As `levels_range`, of numbers of which only the extremes, and whether all are whole, are known."""
    if stated is not None:
        check_within(dtype, found, stated, field)
        return float(stated[0]), float(stated[1])
    recognised = _recognised(*found, are_whole)
    if recognised is None:
        remedy = "Say what is black and what is white: value_range=(black, white), in files --data.levels BLACK WHITE."
        rule = "0 to 1, -1 to 1, 0 to 255, or whole numbers of up to 16 bits"
        kind = dtype if isinstance(dtype, str) else f"{dtype} images"
        raise InputError(problem(field, f"{kind} from {found[0]:g} to {found[1]:g}", rule, remedy))
    return recognised


def check_within(dtype: np.dtype | str, found: ValueRange, stated: ValueRange, field: str) -> None:
    """Raises InputError for values more than half a level outside the range stated, or all in its first hundredth."""
    (low, high), (black, white) = found, map(float, stated)
    half_level = (white - black) / 510
    got, rule = f"{dtype} from {low:g} to {high:g}", f"values from {black:g} to {white:g}, the value_range"
    if low < black - half_level or high > white + half_level:
        raise InputError(problem(field, got, rule, _restating(found, stated)))
    if dtype != np.uint8 and 0 < high - low < LEAST_SHARE * (white - black):
        rule = f"{rule}, and not its first hundredth alone"
        remedy = f"{_restating(found, stated)[:-1]}, or pass uint8 if they are that dark."
        raise InputError(problem(field, got, rule, remedy))


def range_text(value_range: ValueRange) -> str:
    """What a range stands for: `0 black, 4095 white`."""
    return f"{value_range[0]:g} black, {value_range[1]:g} white"


def deep_range(value_range: ValueRange | None) -> ValueRange | None:
    """The range of arrays, where it is one that files of more than 8 bits have too."""
    return value_range if value_range is not None and value_range[1] > 255 else None


def check_same_range(found: ValueRange | None, expected: ValueRange | None, name: str, whose: str) -> None:
    """Raises InputError where levels were made of numbers of two ranges; None, 0 to 255: they were levels already."""
    if found is None or expected is None or tuple(found) in (tuple(expected), (0, 255)):
        return
    ours, theirs = (f"({low:g}, {high:g})" for low, high in (expected, found))
    low, high = expected
    remedy = f"Make it with value_range={ours}, of files with --data.levels {low:g} {high:g}."
    raise InputError(problem(name, f"the value range {theirs}", f"{ours} {whose}", remedy))


def check_not_raw(images: np.ndarray, trained: ValueRange | None, field: str) -> None:
    """Raises InputError for uint8 [n …] that look as the training images did before these became levels.

    That is all in the range of those, where it ends far below 255, and not black alone: they would be next to black.
    """
    if trained is None or images.dtype != np.uint8 or not images.size or not 0 < trained[1] <= MOST_RAW:
        return
    highest = max(int(images[part].max()) for part in parts_of(images))
    if 0 < highest <= trained[1]:
        rule = f"levels up to 255: those of the training images were made of {range_text(trained)}"
        ours = f"({trained[0]:g}, {trained[1]:g})"
        remedy = f"Pass value_range={ours} if that is their range, or (0, 255) if they are that dark."
        raise InputError(problem(field, f"uint8 up to {highest}", rule, remedy))


def as_uint8(images: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """uint8 of a few pictures whose range was checked."""
    return images if images.dtype == np.uint8 and value_range == (0, 255) else spread(images, *value_range)


def check_like_training(found: ValueRange, trained: ValueRange, field: str, dtype: Any, count: int) -> None:
    """Raises InputError if float pictures cannot be scaled as those that a model was trained on.

    found: the extremes of `count` pictures. trained: of the training images. Refused are values outside the usual range
    that all training images lie in (of other ranges: outside it by more than its width), those all within the first
    hundredth, and a set without negative values where training had them.
    """
    width = trained[1] - trained[0]
    if width <= 0:
        return
    low, high = find_usual(trained) or (trained[0] - width, trained[1] + width)
    slack = (high - low) / 510
    is_outside = found[0] < low - slack or found[1] > high + slack
    magnitude, usual = (max(map(abs, pair)) for pair in (found, trained))
    is_tiny = 0 < magnitude < usual * LEAST_SHARE
    lacks_negative = count >= SET_PICTURES and trained[0] < -width / 20 and found[0] >= 0
    if is_outside or is_tiny or lacks_negative:
        got = f"{dtype} from {found[0]:g} to {found[1]:g}"
        rule = f"values like those the model was trained on, {trained[0]:g} to {trained[1]:g}"
        raise InputError(problem(field, got, rule, _rescaling(found, trained)))


def doubts_of(found: ValueRange, dtype: np.dtype) -> str | None:
    """What is odd about the range of training pictures, in words; None for nothing."""
    low, high = found
    if dtype == np.uint8:
        if 0 < high <= 1:
            return "uint8 from 0 to 1, which is almost black: levels go to 255. If 1 is white, multiply by 255"
        return None
    if 0 <= low < high < LEAST_SHARE:
        return f"{dtype} from {low:g} to {high:g}. If they were divided by 255 twice, multiply by 255"
    return None


def _are_whole(images: np.ndarray) -> bool:
    return not any((images[part] != np.floor(images[part])).any() for part in parts_of(images))


def _recognised(low: float, high: float, are_whole: bool) -> ValueRange | None:
    if low >= 0 and high <= 1:
        return 0, 1
    if low >= -1 and high <= 1:
        return -1, 1
    if low >= 0 and high <= 255:
        return 0, 255
    return usual_range(low, high, True) if low >= 0 and high <= MOST_WHITE and are_whole else None


def find_usual(found: ValueRange) -> ValueRange | None:
    """The usual range (0 to 1, -1 to 1, 0 to 255) that all values lie in and that they use."""
    return next(
        (
            usual
            for usual in USUAL_RANGES
            if usual[0] <= found[0] and found[1] <= usual[1] and max(map(abs, found)) > LEAST_SHARE * usual[1]
        ),
        None,
    )


def converting(dtype: str, found: ValueRange | None, trained: ValueRange | None) -> str:
    """How pictures become of the dtype, and the range, of a model's float inputs."""
    remedy = f"Convert them: images.astype(np.{dtype})."
    if found is None or trained is None or find_usual(found) == find_usual(trained):
        return remedy
    return f"{remedy} {_rescaling(found, trained)}"


def _restating(found: ValueRange, stated: ValueRange) -> str:
    """What to do about values of another range than was stated, or than the training images have."""
    rescaling = _rescaling(found, stated)
    return "State the range they have." if rescaling == AS_THERE else f"{rescaling[:-1]}, or state the range they have."


def _rescaling(found: ValueRange, trained: ValueRange) -> str:
    """How the values become like those of training, where that is plain."""
    theirs, ours = find_usual(trained), find_usual(found)
    is_twice = theirs == (0, 1) and found[0] >= 0 and found[1] <= 1 / 254
    if is_twice or (theirs, ours) == ((0, 255), (0, 1)):
        return "Multiply them by 255."
    ways: dict[tuple[ValueRange, ValueRange], str] = {
        ((0, 1), (0, 255)): "Divide them by 255.",
        ((-1, 1), (0, 255)): "Scale them in the same way: images / 127.5 - 1.",
        ((-1, 1), (0, 1)): "Scale them in the same way: images * 2 - 1.",
        ((0, 1), (-1, 1)): "Scale them in the same way: (images + 1) / 2.",
        ((0, 255), (-1, 1)): "Scale them in the same way: (images + 1) * 127.5.",
    }
    return ways.get((theirs, ours), AS_THERE) if theirs and ours else AS_THERE

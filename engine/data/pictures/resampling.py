"""Pictures in another size: stretched, cut or padded, by Pillow's filters or without antialiasing, as TensorFlow's.

Pillow's antialiased linear filter takes a fifth of its time here if there is a C++ compiler. What comes out is the same
to the bit, so that a model sees what it was trained on wherever it runs.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image

from engine.config.decoding import USUAL, Decoding, Interpolation, ResizeRule
from engine.data.pictures.interpolating import interpolated
from engine.host.library import Library

SOURCE = Path(__file__).with_name("resampling.cc")

# Antialiased, but for nearest, as in torchvision and in Keras's `load_img`. Keras's `image_dataset_from_directory` and
# its layer Resizing do not antialias: see `interpolating`.
FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,  # a third cheaper than bicubic
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# The longest side that is resized in one step. The tables of a filter hold some numbers for each pixel of it, and their
# weights, in fixed point, get too small to be exact. Longer ones are averaged by twos, threes, … before.
MOST_SIDE = 2**17
KEPT_WEIGHTS = 2**14  # of a table that is kept: 512 of them take 32 MB
MOST_RATIO = 16  # times as long as its shorter side asks for: more of a picture is cut off before it is enlarged
WEIGHT_BITS = 22  # behind the point, as in cpu/resampling.cc
IS_ROW_ALWAYS_FIRST = int(PIL.__version__.split(".")[0]) < 13  # in which order Pillow goes, and so rounds
_LIBRARY = Library(SOURCE, "resizing of pictures")


def fitted(
    levels: np.ndarray, height_width: tuple[int, int], rule: ResizeRule | None, decoding: Decoding = USUAL
) -> np.ndarray:
    """uint8[y x c] of uint8[h w c] by a resize rule, stretched where there is none. Channels are resized each alone."""
    if rule == "shorter":
        return _cut_from_shorter(levels, height_width, decoding)
    if levels.shape[:2] == height_width or rule not in ("crop", "pad"):
        return stretched(levels, height_width, decoding)
    cut, padded = (_cut, _padded) if decoding.antialias else (_cut_to_ratio, _padded_to_ratio)
    return (cut if rule == "crop" else padded)(levels, height_width, decoding)


def stretched(levels: np.ndarray, height_width: tuple[int, int], decoding: Decoding = USUAL) -> np.ndarray:
    """uint8[y x c] of uint8[h w c].

    With antialiasing what Pillow makes (all pixels count where it gets smaller, but for nearest), without it what
    TensorFlow makes of float levels, rounded.
    """
    if levels.shape[:2] == height_width:
        return levels
    if not decoding.antialias:
        return interpolated(levels, height_width, decoding.interpolation)
    if decoding.interpolation != "nearest":
        levels = _shortened(levels, height_width)
    if decoding.interpolation == "bilinear":
        return resized(levels, height_width)
    return _by_pillow(levels, height_width, decoding.interpolation)


def resized(levels: np.ndarray, height_width: tuple[int, int]) -> np.ndarray:
    """uint8[y x c] of uint8[h w c], stretched by the antialiased linear filter."""
    (h, w, c), (y, x) = levels.shape, height_width
    if (h, w) == (y, x):
        return levels
    resample = _resample()
    if resample is None:
        return _by_pillow(levels, height_width, "bilinear")
    levels = np.ascontiguousarray(levels)
    is_row_first = IS_ROW_ALWAYS_FIRST or not (h > y and h - y > 2 * (w - x))
    between, made = np.empty((h, x, c) if is_row_first else (y, w, c), np.uint8), np.empty((y, x, c), np.uint8)
    rows, columns = _table(h, y), _table(w, x)
    pointers = [array.ctypes.data for array in (levels, between, made)] + [*rows.pointers, *columns.pointers]
    resample(h, w, c, y, rows.num, x, columns.num, is_row_first, *pointers)  # lets go of Python's lock
    return made


def _by_pillow(
    levels: np.ndarray,
    height_width: tuple[int, int],
    interpolation: Interpolation,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """uint8[y x c] of a box (left, upper, right, lower) of uint8[h w c]; None: of all of it."""
    size, filter_ = (height_width[1], height_width[0]), FILTERS[interpolation]
    if levels.shape[-1] == 3:
        return np.asarray(Image.fromarray(levels).resize(size, filter_, box))
    # Not LA and RGBA, which Pillow multiplies with their opacity: these may be any channels.
    channels = (Image.fromarray(np.ascontiguousarray(levels[..., c])) for c in range(levels.shape[-1]))
    return np.stack([np.asarray(channel.resize(size, filter_, box)) for channel in channels], -1)


def _shortened(levels: np.ndarray, height_width: tuple[int, int]) -> np.ndarray:
    """uint8[h w c] whose sides are at most MOST_SIDE, unless they are to be about as long."""
    (h, w, c), (y, x) = levels.shape, height_width
    by_rows, by_columns = (max(1, size // max(MOST_SIDE // 2, 8 * made)) for size, made in ((h, y), (w, x)))
    if max(h, w) <= MOST_SIDE or by_rows == by_columns == 1:
        return levels
    channels = (Image.fromarray(np.ascontiguousarray(levels[..., k])).reduce((by_columns, by_rows)) for k in range(c))
    return np.stack([np.asarray(channel) for channel in channels], -1)


def _cut(levels: np.ndarray, height_width: tuple[int, int], decoding: Decoding) -> np.ndarray:
    """The middle, as large as it can be, in the other size: `PIL.ImageOps.fit`."""
    (h, w, _), (y, x) = levels.shape, height_width
    ratio, wanted = w / h, x / y
    width, height = (w, h) if ratio == wanted else (wanted * h, h) if ratio >= wanted else (w, w / wanted)
    left, upper = (w - width) * 0.5, (h - height) * 0.5
    box = (left, upper, left + width, upper + height)
    return _by_pillow(levels, height_width, decoding.interpolation, box)


def _padded(levels: np.ndarray, height_width: tuple[int, int], decoding: Decoding) -> np.ndarray:
    """All of it in the middle, with black beside it: `PIL.ImageOps.pad`, but that a thin picture is still there."""
    (h, w, _), (y, x) = levels.shape, height_width
    size = (max(1, round(h / w * x)), x) if w / h > x / y else (y, max(1, round(w / h * y)))
    size = height_width if w / h == x / y else size
    corner = round((y - size[0]) * 0.5), round((x - size[1]) * 0.5)
    return _laid(stretched(levels, size, decoding), corner, height_width)


def _cut_to_ratio(levels: np.ndarray, height_width: tuple[int, int], decoding: Decoding) -> np.ndarray:
    """As Keras's `smart_resize` and crop_to_aspect_ratio: whole pixels are cut off, then it is stretched."""
    (h, w, _), (y, x) = levels.shape, height_width
    height = max(1, min(h, int(np.float32(w * y) / np.float32(x))))
    width = max(1, min(w, int(np.float32(h * x) / np.float32(y))))
    upper, left = (h - height) // 2, (w - width) // 2
    return stretched(levels[upper : upper + height, left : left + width], height_width, decoding)


def _padded_to_ratio(levels: np.ndarray, height_width: tuple[int, int], decoding: Decoding) -> np.ndarray:
    """As Keras's pad_to_aspect_ratio, which is `tf.image.resize_with_pad`: the picture is made as large as fits."""
    (h, w, _), (y, x) = levels.shape, height_width
    ratio = max(np.float32(w) / np.float32(x), np.float32(h) / np.float32(y))
    height, width = np.float32(h) / ratio, np.float32(w) / ratio
    size = max(1, int(height)), max(1, int(width))
    corner = max(0, int((y - height) / 2)), max(0, int((x - width) / 2))
    return _laid(stretched(levels, size, decoding), corner, height_width)


def _cut_from_shorter(levels: np.ndarray, height_width: tuple[int, int], decoding: Decoding) -> np.ndarray:
    """As torchvision's and timm's Resize and CenterCrop: the shorter side fills its share, whole pixels are cut off."""
    levels = _without_ends(levels, height_width)
    (h, w, _), (y, x) = levels.shape, height_width
    tall, wide = int(y / decoding.crop_share), int(x / decoding.crop_share)
    if y == x:
        size = (tall, max(wide, int(tall * w / h))) if h <= w else (max(tall, int(wide * h / w)), wide)
    else:  # timm's ResizeKeepRatio
        ratio = min(h / tall, w / wide)
        size = max(y, round(h / ratio)), max(x, round(w / ratio))
    made = stretched(levels, size, decoding)
    upper, left = round((size[0] - y) / 2), round((size[1] - x) / 2)
    return made[upper : upper + y, left : left + x]


def _without_ends(levels: np.ndarray, height_width: tuple[int, int]) -> np.ndarray:
    """The middle of a picture that is so long and thin that it would be enlarged to gigabytes before it is cut."""
    (h, w, _), (y, x) = levels.shape, height_width
    height, width = min(h, MOST_RATIO * max(1, -(-w * y // x))), min(w, MOST_RATIO * max(1, -(-h * x // y)))
    upper, left = (h - height) // 2, (w - width) // 2
    return levels[upper : upper + height, left : left + width]


def _laid(levels: np.ndarray, corner: tuple[int, int], height_width: tuple[int, int]) -> np.ndarray:
    """The picture on black, with its upper left corner at a place."""
    (h, w, c), (upper, left) = levels.shape, corner
    made = np.zeros((*height_width, c), np.uint8)
    made[upper : upper + h, left : left + w] = levels
    return made


@functools.cache
def _resample() -> Any:
    library = _LIBRARY.load()
    if library is None:
        return None
    function = library.engine_resample
    function.argtypes, function.restype = [ctypes.c_int64] * 7 + [ctypes.c_bool] + [ctypes.c_void_p] * 7, None
    return function


class _Taps(NamedTuple):
    """What each of `made` places along an axis is a sum of: weights int32[made num], first int32[made]."""

    weights: np.ndarray
    first: np.ndarray
    num: int
    pointers: tuple[int, int]


def _table(size: int, made: int) -> _Taps:
    """The taps of an axis; kept for the next picture unless they are many."""
    return _kept_taps(size, made) if 3 * max(size, made) <= KEPT_WEIGHTS else _taps(size, made)


def _taps(size: int, made: int) -> _Taps:
    """Of an axis of so many places.

    A triangle as wide as two places made, or as two there were if those are wider, around the middle of each.
    """
    scale = size / made
    support = max(scale, 1.0)
    middle = (np.arange(made) + 0.5) * scale
    low = np.maximum((middle - support + 0.5).astype(np.int64), 0)
    high = np.minimum((middle + support + 0.5).astype(np.int64), size)
    count = int((high - low).max())
    first = np.minimum(low, size - count)
    places = first[:, None] + np.arange(count)
    weights = 1 - np.abs((places - middle[:, None] + 0.5) * (1 / support))
    weights = np.where((places >= low[:, None]) & (places < high[:, None]), np.maximum(weights, 0), 0)
    total = sum(weights.T, np.zeros(made))  # one after another: rounded as Pillow does
    weights = weights / total[:, None] * 2**WEIGHT_BITS + 0.5
    weights, first = weights.astype(np.int32), first.astype(np.int32)
    return _Taps(weights, first, count, (weights.ctypes.data, first.ctypes.data))


_kept_taps = functools.lru_cache(maxsize=512)(_taps)

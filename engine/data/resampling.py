"""Pictures in another size, by Pillow's antialiased linear filter, in a fifth of its time if there is a C++ compiler.

What comes out is the same to the bit, so that a model sees what it was trained on wherever it runs.
"""

import ctypes
import functools
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image

from engine import compiled

# Antialiased, as Pillow's filters all are. A third cheaper than bicubic, and what torchvision and Keras use.
RESAMPLING = Image.Resampling.BILINEAR
WEIGHT_BITS = 22  # behind the point, as in cpu/resampling.cc
IS_ROW_ALWAYS_FIRST = int(PIL.__version__.split(".")[0]) < 13  # in which order Pillow goes, and so rounds
_LOADING = Lock()


def resized(levels: np.ndarray, height_width: tuple[int, int]) -> np.ndarray:
    """uint8[y x c] of uint8[h w c], c 1 or 3, stretched."""
    (h, w, c), (y, x) = levels.shape, height_width
    if (h, w) == (y, x):
        return levels
    with _LOADING:  # for a library that must be compiled, threads wait for one of them
        resample = _resample()
    if resample is None:
        image = Image.fromarray(levels[..., 0] if c == 1 else levels)
        return np.asarray(image.resize((x, y), RESAMPLING)).reshape(y, x, c)
    levels = np.ascontiguousarray(levels)
    is_row_first = IS_ROW_ALWAYS_FIRST or not (h > y and h - y > 2 * (w - x))
    between, made = np.empty((h, x, c) if is_row_first else (y, w, c), np.uint8), np.empty((y, x, c), np.uint8)
    rows, columns = _taps(h, y), _taps(w, x)
    pointers = [array.ctypes.data for array in (levels, between, made)] + [*rows.pointers, *columns.pointers]
    resample(h, w, c, y, rows.count, x, columns.count, is_row_first, *pointers)  # lets go of Python's lock
    return made


@functools.cache
def _resample() -> Any:
    library = compiled.library("resampling")
    if library is None:
        return None
    function = library.engine_resample
    function.argtypes, function.restype = [ctypes.c_int64] * 7 + [ctypes.c_bool] + [ctypes.c_void_p] * 7, None
    return function


class _Taps(NamedTuple):
    """What each of `made` places along an axis is a sum of: weights int32[made count], first int32[made]."""

    weights: np.ndarray
    first: np.ndarray
    count: int
    pointers: tuple[int, int]


@functools.lru_cache(maxsize=512)
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

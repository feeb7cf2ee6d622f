"""Pictures in another size without antialiasing, as `tf.image.resize` and so Keras's data pipelines make them.

Where a picture becomes smaller, pixels between those that are interpolated are passed over. The formulas and their
single precision are TensorFlow's (core/kernels/image: resize_bilinear_op, resize_bicubic_op, scale_and_translate_op);
what comes out is rounded to levels, which Keras does not do.
"""

import functools
from typing import NamedTuple

import numpy as np

from engine.config.decoding import Interpolation

CUBIC_STEPS = 1024  # in which TensorFlow tabulates the bicubic kernel
KEYS = -0.5  # of Keys's cubic kernel
LANCZOS = 3
KEPT_TABLES = 64


class Taps(NamedTuple):
    """What each of `made` places along an axis is a sum of: places int64[made taps] and weights float32[made taps]."""

    places: np.ndarray
    weights: np.ndarray


def interpolated(levels: np.ndarray, height_width: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    """uint8[y x c] of uint8[h w c]."""
    (h, w, _), (y, x) = levels.shape, height_width
    if interpolation == "nearest":
        return levels[np.ix_(nearest_places(h, y), nearest_places(w, x))]
    axes = [(0, taps(h, y, interpolation)), (1, taps(w, x, interpolation))]
    values: np.ndarray = levels
    for axis, chosen in sorted(axes, key=lambda pair: len(pair[1].places) / levels.shape[pair[0]]):  # the least work
        values = _along(values, axis, chosen)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def nearest_places(size: int, made: int) -> np.ndarray:
    """int64[made]: of an axis of so many places, those nearest to the middles of `made`."""
    scale = np.float32(size) / np.float32(made)
    middles = (np.arange(made, dtype=np.float32) + np.float32(0.5)) * scale
    return np.minimum(np.floor(middles).astype(np.int64), size - 1)


@functools.lru_cache(maxsize=KEPT_TABLES)
def taps(size: int, made: int, interpolation: Interpolation) -> Taps:
    """Of an axis of so many places; a few taps whatever its size, because nothing is averaged."""
    scale, half = np.float32(size) / np.float32(made), np.float32(0.5)
    middle = (np.arange(made, dtype=np.float32) + half) * scale - half
    low = np.floor(middle)
    reach = {"bilinear": 1, "bicubic": 2, "lanczos": LANCZOS}[interpolation]
    places = low.astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)  # [made taps]
    if interpolation == "bilinear":
        part = middle - low
        return Taps(places.clip(0, size - 1), np.stack([1 - part, part], 1))
    if interpolation == "bicubic":
        part = np.rint((middle - low) * CUBIC_STEPS) / CUBIC_STEPS
        weights = _keys(part[:, None] - np.arange(1 - reach, reach + 1))
    else:
        weights = _lanczos(places - middle[:, None])
    weights = np.where((places >= 0) & (places < size), weights, 0)
    return Taps(places.clip(0, size - 1), (weights / weights.sum(1, keepdims=True)).astype(np.float32))


def _along(values: np.ndarray, axis: int, chosen: Taps) -> np.ndarray:
    """float32 […]: sums of neighbours along an axis, a tap after the other, which holds no more than two results."""
    shape = tuple(-1 if a == axis else 1 for a in range(values.ndim))
    total: np.ndarray | None = None
    for places, weights in zip(chosen.places.T, chosen.weights.T, strict=True):
        part = np.take(values, places, axis).astype(np.float32) * weights.reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total


def _keys(distance: np.ndarray) -> np.ndarray:
    """Keys's cubic convolution kernel (1981)."""
    d = np.abs(distance)
    near = ((KEYS + 2) * d - (KEYS + 3)) * d * d + 1
    far = ((KEYS * d - 5 * KEYS) * d + 8 * KEYS) * d - 4 * KEYS
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _lanczos(distance: np.ndarray) -> np.ndarray:
    """sinc(d) sinc(d / 3) within 3."""
    return np.where(np.abs(distance) < LANCZOS, np.sinc(distance) * np.sinc(distance / LANCZOS), 0)

"""Which axis of pictures in arrays holds their channels: as it is stated, or as the shape leaves no doubt."""

from math import isqrt
from typing import get_args

import numpy as np

from engine.config.data import Layout
from engine.config.decoding import USUAL_COLORS
from engine.errors import InputError, Say, problem, shape_text, unknown

CHANNELS = tuple(USUAL_COLORS)


def channels_last(images: np.ndarray, field: str, layout: Layout, say: Say) -> np.ndarray:
    """[n h w c] of pictures [n h w], [n h w c] or [n c h w], as a view; arrays of other ranks are left as they are.

    auto: channels are first where that axis has 1 or 3 places (or 2 or 4, before a square) and the last has more than
    any picture has channels. If that may be wrong, it is reported to `say`.
    """
    if layout not in get_args(Layout):
        raise InputError(unknown("layout", layout, get_args(Layout)))
    if images.ndim == 3:
        return images[..., None]  # [n h w] → [n h w 1]
    if images.ndim != 4 or layout == "channels_last":
        return images
    if layout == "channels_first":
        return np.moveaxis(images, 1, -1)
    first, height, width = images.shape[1:]
    if first not in CHANNELS or width in CHANNELS:
        return images
    shape, is_square = shape_text(images.shape), height == width
    if first == 3 or is_square or (first == 1 and images.dtype.kind != "f"):
        say(f"{field}: {shape} is read as channels first")
        return np.moveaxis(images, 1, -1)  # [n c h w] → [n h w c]
    say(f'{field}: {shape} is read as channels last, {width} of them; layout="channels_first" turns it')
    return images


def check_pictures(images: np.ndarray, field: str) -> None:
    """Raises InputError unless images are [n h w c] with as many channels as pictures have."""
    if images.ndim != 4 or images.shape[-1] not in CHANNELS or 0 in images.shape[1:]:
        rule = "[n h w], or [n h w c] with 1 to 4 channels, and at least a pixel"
        got = f"images of {shape_text(images.shape)}"
        remedy = "Reshape them, or set --data.layout channels_first if they are [n c h w]."
        raise InputError(problem(field, got, rule, remedy))


def square_shape(num_pixels: int) -> tuple[int, int, int] | None:
    """(h, w, c) of a square grey or else colour picture with so many numbers."""
    for channels in (1, 3):
        side = isqrt(num_pixels // channels)
        if num_pixels and channels * side**2 == num_pixels:
            return side, side, channels
    return None

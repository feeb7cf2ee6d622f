"""Pictures of more than 8 bits a level, or of signed or fractional ones: their numbers, and what is black and white.

Pillow has no pictures of several channels with 16 bits: it drops the lower byte of each. So these are read twice, once
for each byte.
"""

import re
import sys
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from engine.config.decoding import ValueRange
from engine.data.pictures.levels import spread

SIXTEEN = re.compile(r"(RGBA|RGBX?|RGBa|LA|CMYK);16([BLN])")
# How the lower byte is read, by the order in which the upper one is.
SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
BITS = (1, 2, 4, 8, 10, 12, 14, 16, 24, 31, 32)
ALPHAS = {"RGBA", "LA"}
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_PLANES, TIFF_FORMAT = 258, 262, 284, 339
TIFF_RANGES = ((340, 341), (280, 281))  # of values of any type, and of whole ones from 0
SIGNED = 2
FULL = 65535.0
NATURAL: tuple[ValueRange, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, FULL))


def is_deep(image: Image.Image) -> bool:
    """Whether a picture that is not yet loaded holds more than Pillow's levels of 8 bits show, or other numbers."""
    if image.mode[:1] in ("I", "F"):
        return True
    return SIXTEEN.match(_raw_mode(image)) is not None or _is_signed_8(image)


def has_planes(image: Image.Image) -> bool:
    """Whether it is a TIFF that stores its channels of 16 bits one after the other, which Pillow reads as of 8."""
    bits = _values(image, TIFF_BITS)
    return _tag(image, TIFF_PLANES) == 2 and len(bits) > 1 and 16 in bits


def is_cut(image: Image.Image) -> bool:
    """Whether only the upper byte of 16 bits can be read: where Pillow divides by opacity, or has loaded it."""
    return _raw_mode(image).startswith("RGBa;16")


def numbers_of(image: Image.Image) -> np.ndarray:
    """[h w] or [h w c] of a deep picture, which is loaded: uint8, uint16, uint32, int8, int32 or float32."""
    raw = _raw_mode(image)
    if raw == "LA;16B":
        return _grey_with_alpha(image)
    if found := SIXTEEN.match(raw):
        return _both_bytes(image, raw, found[2])
    image.load()
    values = np.asarray(image)
    if _is_signed_8(image):
        return values.view(np.int8)
    is_unsigned = image.mode == "I" and _tag(image, TIFF_BITS) == 32 and _tag(image, TIFF_FORMAT) in (None, 1)
    return values.view(np.uint32) if is_unsigned else values


def tagged_range(image: Image.Image) -> ValueRange | None:
    """What is black and what is white, as far as the file says.

    TIFF has tags for it, and for numbers of bits like 12; of PPM and JPEG 2000 Pillow itself makes full 16 bits.
    """
    if getattr(image, "format", None) in ("PPM", "JPEG2000"):
        return 0.0, FULL
    for low, high in TIFF_RANGES:
        found = _extremes(_values(image, low), _values(image, high), _tag(image, TIFF_FORMAT))
        if found is not None:
            return found
    bits = _tag(image, TIFF_BITS)
    return (0.0, 2.0**bits - 1) if isinstance(bits, int) and 8 < bits < 16 else None


def extremes_of(image: Image.Image, values: np.ndarray) -> ValueRange:
    """(least, largest) of the colours, which are not finite if any of them is not."""
    colors = values[..., :-1] if image.mode in ALPHAS and values.ndim == 3 else values
    return float(colors.min()), float(colors.max())


def evident_range(lowest: float, highest: float, is_whole: bool) -> ValueRange | None:
    """The range of a single picture that says none, if its numbers leave no doubt, else None.

    Whole ones that take 16 bits, and others that use more than half of one of the usual ranges.
    """
    found = usual_range(lowest, highest, is_whole)
    evident = ((0.0, FULL),) if is_whole else NATURAL
    return found if found in evident else None


def usual_range(lowest: float, highest: float, is_whole: bool) -> ValueRange:
    """The range that numbers from `lowest` to `highest` are assumed to have, if it is not stated.

    Whole ones from 0: of as many bits as hold them, 1, 2, 4, 8, 10, 12, 14, 16 or more. Others: 0 to 1, −1 to 1, 0 to
    255 or 0 to 65,535 if they use more than half of that; else theirs, to two digits.
    """
    if is_whole and lowest >= 0:
        return 0.0, float(next(2**bits - 1 for bits in BITS if highest < 2**bits))
    for low, high in NATURAL:
        reach = max(highest, -lowest)
        if low <= lowest and highest <= high and high / 2 < reach and (low == 0 or lowest < 0):
            return low, high
    step = 10.0 ** np.floor(np.log10(max(highest - lowest, 1e-30))) / 10
    low, high = float(np.floor(lowest / step) * step), float(np.ceil(highest / step) * step)
    return float(f"{low:.12g}"), float(f"{high:.12g}") if high > low else low + 1.0


def eight_bits(image: Image.Image, values: np.ndarray, range_: ValueRange) -> Image.Image:
    """A picture of 8 bits, of the numbers of a deep one: 0 for the low end of the range and 255 for the high one."""
    low, high = range_
    levels, colors = np.empty(values.shape, np.uint8), values
    has_alpha = image.mode in ALPHAS and values.ndim == 3
    if has_alpha:
        alpha, colors = values[..., -1], values[..., :-1]
        levels[..., -1] = spread(alpha, 0.0, high if alpha.max() <= high else FULL)
        levels[..., :-1] = spread(colors, low, high)
    else:
        levels = spread(values, low, high)
        if _tag(image, TIFF_PHOTOMETRIC) == 0:  # white is zero, which Pillow minds in 8 bits only
            levels = 255 - levels
    key = image.info.get("transparency")
    if not has_alpha and isinstance(key, (int, tuple)):
        opaque = (values != np.asarray(key, values.dtype)).reshape(*values.shape[:2], -1).any(-1)
        levels = np.dstack([levels, np.where(opaque, 255, 0).astype(np.uint8)])
    if levels.shape[2:] == (2,):
        return Image.merge("LA", [Image.fromarray(np.ascontiguousarray(levels[..., c])) for c in (0, 1)])
    return Image.frombytes("CMYK", image.size, levels.tobytes()) if image.mode == "CMYK" else Image.fromarray(levels)


def _raw_mode(image: Image.Image) -> str:
    """How the bytes of a picture that is not loaded are laid out, as Pillow calls it."""
    tiles = getattr(image, "tile", None)
    arguments: Any = tiles[0][3] if tiles else ""
    first = next(iter(arguments), "") if isinstance(arguments, tuple) else arguments
    return first if isinstance(first, str) else ""


def _both_bytes(image: Image.Image, raw: str, order: str) -> np.ndarray:
    """uint16[h w c]"""
    swapped = raw.replace(f";16{order}", f";16{SWAPPED[order]}")
    other = None if is_cut(image) else _opened_again(image)
    if other is not None:
        other.tile = [tile._replace(args=_with_raw_mode(tile[3], swapped)) for tile in other.tile]
        other.load()
    image.load()
    upper = np.asarray(image)
    lower = upper if other is None else np.asarray(other)  # 8 bits of 16 where there is no way to the others
    return upper.astype(np.uint16) << 8 | lower


def _grey_with_alpha(image: Image.Image) -> np.ndarray:
    """uint16[h w 2] of a PNG whose pixels are four bytes, read as if these were channels."""
    assert isinstance(image, ImageFile)
    image.tile = [tile._replace(args=_with_raw_mode(tile[3], "RGBA")) for tile in image.tile]
    image.load()
    return np.asarray(image).copy().view(">u2").astype(np.uint16)  # [h w 4] → [h w 2]


def _with_raw_mode(arguments: Any, raw: str) -> Any:
    return (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw


def _opened_again(image: Image.Image) -> Any:
    """The same file once more, before the first is loaded, which may close it."""
    file = getattr(image, "fp", None)
    if file is None or not isinstance(image, ImageFile):
        return None
    place = file.tell()
    file.seek(0)
    other = type(image)(file)
    file.seek(place)
    return other


def _is_signed_8(image: Image.Image) -> bool:
    return image.mode == "L" and _tag(image, TIFF_FORMAT) == SIGNED


def _values(image: Image.Image, tag: int) -> tuple[Any, ...]:
    found = getattr(image, "tag_v2", {}).get(tag, ())
    return found if isinstance(found, tuple) else (found,)


def _tag(image: Image.Image, tag: int) -> Any:
    return next(iter(_values(image, tag)), None)


def _extremes(lows: tuple[Any, ...], highs: tuple[Any, ...], sample_format: Any) -> ValueRange | None:
    """What tags say, if they say the high end and it is above the low one, which is 0 where they do not say it."""
    try:
        high = max(map(float, highs))
        low = min(map(float, lows)) if lows else -high - 1 if sample_format == SIGNED else 0.0
    except (ValueError, TypeError):
        return None
    return (low, high) if np.isfinite([low, high]).all() and low < high else None

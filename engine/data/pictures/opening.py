"""Files, bytes and PIL images → decoded pictures, turned upright; or the reason why not, in a few words."""

import os
from collections.abc import Callable
from functools import partial
from math import prod
from os import PathLike

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from engine.config.decoding import USUAL, ColorMode, Decoding, ValueRange
from engine.data.pictures import deep
from engine.data.pictures.formats import MOST_BYTES, MOST_BYTES_A_PIXEL, MOST_HEADER_BYTES, Budgeted
from engine.data.pictures.frames import holds_more, jpeg_holds_more
from engine.data.pictures.jpeg import holds_whole, jpeg_levels, shrunk, upright_size
from engine.data.pictures.orientation import ORIENTATION, TURNS, orientation_of
from engine.data.pictures.stored import (
    Stored,
    UnreadablePicture,
    name_of_picture,
    open_stored,
    open_stream,
    reading_picture,
)

MODES: dict[ColorMode, str] = {
    "grayscale": "L", "rgb": "RGB", "rgba": "RGBA", "la": "LA", "cmyk": "CMYK", "lab": "LAB",
}  # fmt: skip
LEAST_CUT = 2**15  # white of 16 bits whose lower byte is not needed to tell 128 levels apart
HEADER_BYTES = 2**20  # of a JPEG, which contain its size and coding


def open_picture(
    source: Stored, color: ColorMode | None = None, height_width: tuple[int, int] | None = None
) -> Image.Image:
    """The decoded picture of a file, bytes or PIL image, turned upright; raises InputError if it is unreadable.

    color, height_width: what the picture will be turned into. A JPEG is then decoded at the smallest of 1, 1/2, 1/4
      and 1/8 of its size that still covers this one, and without its colours if those are not wanted.
    """
    opened = open_levels(source, color, height_width)
    return Image.fromarray(opened) if isinstance(opened, np.ndarray) else opened


def open_levels(
    source: Stored,
    color: ColorMode | None = None,
    height_width: tuple[int, int] | None = None,
    decoding: Decoding = USUAL,
    ranges: "Ranging | None" = None,
    several: list[str] | None = None,
) -> Image.Image | np.ndarray:
    """What `open_picture` gives, or, sooner, the same as an array [h w 3], of a JPEG with nothing odd about it.

    Pictures of more than 8 bits come as such of 8; where neither the config nor their tags say what is black and what
    is white, `ranges` does, and without it they are refused.
    several: gets the kind of a picture that holds several frames or pages, of which the first is read.
    """
    if decoding.interpolation != "bilinear" or not decoding.antialias:
        height_width = None  # parts of a JPEG are antialiased, and other libraries resize the whole
    with reading_picture(source):
        if color == "rgb" and not isinstance(source, Image.Image):
            levels = _plain_jpeg(source, height_width, decoding, several)
            if levels is not None:
                return levels
        with open_stored(source) as image:
            turn = _orientation(image, source)
            # A PIL image is the caller's, who may go on to use it, so it is not drafted.
            if image is not source:
                _draft(image, color, _width_height(height_width, turn), decoding, source)
                _allow_pixels(image)
            file = None if isinstance(source, Image.Image) else partial(open_stream, source)
            has_more = several is not None and holds_more(image, file)
            shown = _loaded(image, name_of_picture(source), decoding, ranges)
            # Only now is all of a PNG known, whose orientation may follow the pixels, and is a TIFF turned by Pillow.
            turn = turn if isinstance(image, JpegImageFile) else _orientation(image, source)
            if several is not None and has_more:
                several.append(image.format or "others")
            return _turned(shown, turn)


Ranging = Callable[[ValueRange | None], ValueRange]  # the tags' range, or None, → what is black and what is white


def _draft(
    image: Image.Image, color: ColorMode | None, size: tuple[int, int] | None, decoding: Decoding, source: Stored
) -> None:
    """Has a JPEG decoded at a part of its size; refuses what would fill the memory."""
    if not (_is_too_large(image, decoding) and _is_held_whole(image)) and (color or size):
        image.draft(MODES[color] if color else None, size)
    _check_size(image, decoding, source)


def _loaded(image: Image.Image, name: str, decoding: Decoding, ranges: Ranging | None) -> Image.Image:
    """The picture with its pixels, of 8 bits unless its levels shall be taken by their type."""
    if decoding.levels == "type" or not deep.is_deep(image):
        image.load()
        return image
    is_cut = deep.is_cut(image)
    values = deep.numbers_of(image)
    lowest, highest = deep.extremes_of(image, values)
    kind = f"levels from {lowest:g} to {highest:g} ({values.dtype.name})"
    if not np.isfinite([lowest, highest]).all():
        raise UnreadablePicture(name, "NaN or infinity among its levels", "finite levels", "Correct it.")
    range_ = decoding.levels or deep.tagged_range(image)
    if ranges is not None:
        range_ = decoding.levels or ranges(range_)
    range_ = range_ or deep.evident_range(lowest, highest, values.dtype.kind != "f")
    if range_ is None:
        low, high = deep.usual_range(lowest, highest, values.dtype.kind != "f")
        remedy = f"Say it: value_range=({low:g}, {high:g}), --value-range {low:g} {high:g} or so."
        raise UnreadablePicture(name, kind, "a file or setting that says what is black and what is white", remedy)
    half_level = (range_[1] - range_[0]) / 510
    if lowest < range_[0] - half_level or highest > range_[1] + half_level:
        rule = f"levels from {range_[0]:g} to {range_[1]:g}"
        low, high = min(range_[0], lowest), max(range_[1], highest)
        remedy = f"Set a range that holds all of them, like --data.levels {low:g} {high:g}, or value_range to predict."
        raise UnreadablePicture(name, kind, rule, remedy)
    if is_cut and range_[1] < LEAST_CUT:
        rule = "16 bits that are used, where colours are multiplied by opacity"
        raise UnreadablePicture(name, kind, rule, "Save it with opacity of its own (unassociated alpha).")
    return deep.eight_bits(image, values, range_)


def deep_extremes(source: Stored, decoding: Decoding = USUAL) -> tuple[ValueRange | None, ValueRange, bool] | None:
    """(range of the tags, extremes, whether all are whole) of a deep picture, None of one of 8 bits: cheap of those."""
    with reading_picture(source), open_stored(source) as image:
        if not deep.is_deep(image):
            return None
        _check_size(image, decoding, source)
        _allow_pixels(image)
        values = deep.numbers_of(image)
        return deep.tagged_range(image), deep.extremes_of(image, values), values.dtype.kind != "f"


def picture_height_width(source: Stored) -> tuple[int, int]:
    """(h, w) of the upright picture as its header says, nothing decoded; raises InputError if that is unreadable."""
    with reading_picture(source), open_stored(source) as image:
        width, height = image.size
        return (width, height) if _orientation(image, source) >= 5 else (height, width)


def _is_held_whole(image: Image.Image) -> bool:
    """Whether decoding holds the picture in its full size, whatever size it is drafted at."""
    if not isinstance(image, JpegImageFile) or image.fp is None:
        return True
    place = image.fp.tell()
    image.fp.seek(0)
    start = image.fp.read(HEADER_BYTES)
    image.fp.seek(place)
    return holds_whole(start)


def _check_size(image: Image.Image, decoding: Decoding, source: Stored) -> None:
    if _is_too_large(image, decoding):
        reason = f"{image.height}×{image.width} pixels"
        rule = f"at most {most_pixels(decoding):,} pixels in all"
        count = image.height * image.width
        remedy = f"Make it smaller or remove it, or allow it: --data.max-pixels {count} (to predict: --max-pixels)."
        raise UnreadablePicture(name_of_picture(source), reason, rule, remedy)


def _is_too_large(image: Image.Image, decoding: Decoding) -> bool:
    most = most_pixels(decoding)
    return most is not None and image.height * image.width > most


def most_pixels(decoding: Decoding) -> int | None:
    """How many pixels a decoded picture may have at most; None for any number."""
    return Image.MAX_IMAGE_PIXELS if decoding.max_pixels is None else decoding.max_pixels


def _allow_pixels(image: Image.Image) -> None:
    """Lets as much of the file be read as its pixels may take, twice because they may be, and a header's worth."""
    if isinstance(file := getattr(image, "fp", None), Budgeted):
        beside = MOST_HEADER_BYTES.get(str(image.format), MOST_BYTES)
        file.allow(2 * MOST_BYTES_A_PIXEL * image.width * image.height + beside)


def _plain_jpeg(
    source: str | PathLike[str] | bytes,
    height_width: tuple[int, int] | None,
    decoding: Decoding,
    several: list[str] | None,
) -> np.ndarray | None:
    with open_stream(source) as file:  # not buffered, or it would be in memory twice
        is_short = file.seek(0, os.SEEK_END) <= MOST_BYTES
        file.seek(0)
        if not is_short or file.read(3) != b"\xff\xd8\xff":
            return None
        file.seek(0)
        data = file.read()
    size = upright_size(data)
    if size is None:
        return None
    most = most_pixels(decoding)
    if most is not None and prod(size) > most and (holds_whole(data) or prod(shrunk(size, height_width)) > most):
        return None  # Pillow's way says why
    levels = jpeg_levels(data, size, height_width)
    if several is not None and levels is not None and jpeg_holds_more(data):
        several.append("JPEG")
    return levels


def _orientation(image: Image.Image, source: Stored) -> int:
    """1 to 8 as EXIF counts, of a file without Pillow's parser, which reads all of EXIF and warns where it is odd."""
    return image.getexif().get(ORIENTATION, 1) if image is source else orientation_of(image.info)


def _width_height(height_width: tuple[int, int] | None, orientation: int) -> tuple[int, int] | None:
    """The size that a picture must have before it is turned, as Pillow counts."""
    if height_width is None:
        return None
    height, width = height_width
    return (height, width) if orientation >= 5 else (width, height)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    if orientation not in TURNS:
        return image
    turned = image.transpose(TURNS[orientation])
    for name in ("exif", "xmp"):  # or it would be turned again
        turned.info.pop(name, None)
    return turned

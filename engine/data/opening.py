"""Files, bytes and PIL images → decoded pictures, turned upright; or the reason why not, in a few words."""

import contextlib
import io
import os
import re
import stat
from collections.abc import Iterator
from os import PathLike
from typing import IO

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from engine.data.config import ColorMode
from engine.data.jpeg import jpeg_levels, upright_size
from engine.data.orientation import ORIENTATION, TURNS, orientation_of
from engine.errors import InputError, problem

MODES: dict[ColorMode, str] = {"grayscale": "L", "rgb": "RGB"}
# How each kind of file starts. Not Image.open, which only warns of a picture that would fill the memory, and which
# tries decoders of dozens of other kinds on whatever it is given.
READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"P[1-6]\s"), PpmImageFile),
)
MOST_BYTES = 2**28  # of a JPEG that is read whole; Pillow reads a longer file, or what is hung on to it, bit by bit
Stored = str | PathLike[str] | bytes | Image.Image


class UnreadablePicture(InputError):
    """A picture that cannot be read; `reason` says why in a few words.

    is_passing: the system, not the content, was at fault, so that another try may succeed.
    """

    def __init__(
        self,
        name: str,
        reason: str,
        expected: str = "a readable, complete image",
        remedy: str = "Repair or remove it.",
        is_passing: bool = False,
    ):
        super().__init__(problem(name, reason, expected, remedy))
        self.reason, self.is_passing = reason, is_passing


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
    source: Stored, color: ColorMode | None = None, height_width: tuple[int, int] | None = None
) -> Image.Image | np.ndarray:
    """What `open_picture` gives, or, sooner, the same as an array [h w 3], of a JPEG with nothing odd about it."""
    with _unreadable_told(source):
        if color == "rgb" and not isinstance(source, Image.Image):
            levels = _plain_jpeg(source, height_width)
            if levels is not None:
                return levels
        with _opened(source) as image:
            turn = _orientation(image, source)
            # A PIL image is the caller's, who may go on to use it, so it is not drafted.
            if image is not source and (color or height_width):
                image.draft(MODES[color] if color else None, _width_height(height_width, turn))
            image.load()
            # Only now is all of a PNG known, whose orientation may follow the pixels, and is a TIFF turned by Pillow.
            turn = turn if isinstance(image, JpegImageFile) else _orientation(image, source)
            return _turned(image, turn)


def picture_height_width(source: Stored) -> tuple[int, int]:
    """(h, w) of the upright picture as its header says, nothing decoded; raises InputError if that is unreadable."""
    with _unreadable_told(source), _opened(source) as image:
        width, height = image.size
        return (width, height) if _orientation(image, source) >= 5 else (height, width)


@contextlib.contextmanager
def _unreadable_told(source: Stored) -> Iterator[None]:
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged data make Pillow's decoders raise errors of nearly every kind
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        is_passing = isinstance(error, OSError) and error.errno is not None
        raise UnreadablePicture(name_of_picture(source), reason.splitlines()[0], is_passing=is_passing) from None


def name_of_picture(picture: object) -> str:
    """What errors call a picture: its path, or its type."""
    if isinstance(picture, bytes):
        return f"{len(picture)} bytes"
    return str(picture) if isinstance(picture, (str, PathLike)) else type(picture).__name__


@contextlib.contextmanager
def _opened(source: Stored) -> Iterator[Image.Image]:
    if isinstance(source, Image.Image):
        yield source
        return
    with _stream(source) as file:
        yield _identified(file, name_of_picture(source))


def _stream(source: str | PathLike[str] | bytes, buffering: int = -1) -> IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not stat.S_ISREG(mode := os.stat(source).st_mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"  # a pipe would be waited for without end
        raise UnreadablePicture(name_of_picture(source), kind, "an image file")
    return open(source, "rb", buffering)


def _identified(file: IO[bytes], name: str) -> ImageFile:
    """The picture in a file, not yet decoded; refused if it would fill the memory."""
    start = file.read(16)
    reader = next((reader for signature, reader in READERS if signature.match(start)), None)
    if not start:
        raise UnreadablePicture(name, "an empty file")
    if reader is None:
        raise UnreadablePicture(name, "a file that is not an image", "JPEG, PNG or the like", "Remove it.")
    file.seek(0)
    image = reader(file)
    if _is_too_large(image.height, image.width):
        reason = f"{image.height}×{image.width} pixels"
        rule = f"at most {Image.MAX_IMAGE_PIXELS:,} pixels in all"
        raise UnreadablePicture(name, reason, rule, "Make it smaller or remove it.")
    return image


def _is_too_large(height: int, width: int) -> bool:
    return Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS


def _plain_jpeg(source: str | PathLike[str] | bytes, height_width: tuple[int, int] | None) -> np.ndarray | None:
    with _stream(source, buffering=0) as file:  # or it would be in memory twice
        is_short = file.seek(0, os.SEEK_END) <= MOST_BYTES
        file.seek(0)
        if not is_short or file.read(3) != b"\xff\xd8\xff":
            return None
        file.seek(0)
        data = file.read()
    size = upright_size(data)
    return None if size is None or _is_too_large(*size) else jpeg_levels(data, size, height_width)


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

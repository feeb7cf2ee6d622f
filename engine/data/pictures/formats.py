"""Which kinds of picture files are read, how each starts, and how much of a file may be read on the way to its pixels.

Not Image.open, which only warns of a picture that would fill the memory, and which tries decoders of dozens of other
kinds on whatever it is given.
"""

import importlib.util
import io
import re
from collections.abc import Callable
from typing import IO, NamedTuple

from PIL import features
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

START_BYTES = 132  # of a file, which show its kind
# How much of a file may be read before, and beside, its pixels: of metadata, which Pillow holds in memory, and of kinds
# that are read whole. Of PPM and GIF less, whose headers are read byte by byte or block by block: a second a MB.
MOST_BYTES = 2**28
MOST_HEADER_BYTES = {"PPM": 2**16, "GIF": 2**22}
# Of bytes that a pixel takes in a file at most: of an uncompressed picture 16 (four channels of 32 bits), of a PPM
# written as text 24 (three channels of up to five digits, blanks and some more).
MOST_BYTES_A_PIXEL = 24

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
}


class MissingReader(Exception):
    """A kind of picture that could be read if something was installed; args: what it is, what to do."""


def _avif(file: IO[bytes]) -> ImageFile:
    if not features.check("avif"):
        raise MissingReader("an AVIF picture, which this Pillow cannot read", "Run: pip install 'pillow>=11.3'.")
    from PIL.AvifImagePlugin import AvifImageFile

    return AvifImageFile(file)


def _heic(file: IO[bytes]) -> ImageFile:
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError:
        raise MissingReader("a HEIC picture, which needs pillow-heif", "Run: pip install pillow-heif.") from None
    return HeifImageFile(file)


def _jpeg2000(file: IO[bytes]) -> ImageFile:
    if not features.check("jpg_2000"):
        reason = "a JPEG 2000 picture, which this Pillow cannot read"
        raise MissingReader(reason, "Install Pillow from its wheels: pip install --force-reinstall pillow.")
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    return Jpeg2KImageFile(file)


class Kind(NamedTuple):
    """A kind of picture file: how it starts, its name, and what opens it.

    is_optional: whether it depends on what is installed, codecs too, which of its files can be read. One that cannot
      is then left out and reported, and not taken for damaged.
    """

    signature: re.Pattern[bytes]
    name: str
    reader: Callable[[IO[bytes]], ImageFile]
    is_optional: bool = False


def _starts(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


READERS = (
    Kind(_starts(rb"\xff\xd8\xff"), "JPEG", JpegImageFile),
    Kind(_starts(rb"\x89PNG\r\n\x1a\n"), "PNG", PngImageFile),
    Kind(_starts(rb"GIF8[79]a"), "GIF", GifImageFile),
    Kind(_starts(rb"RIFF....WEBP"), "WEBP", WebPImageFile),
    Kind(_starts(rb"II[*+]\0|MM\0[*+]"), "TIFF", TiffImageFile),
    Kind(_starts(rb"BM"), "BMP", BmpImageFile),
    Kind(_starts(rb"P[1-6]\s"), "PPM", PpmImageFile),
    Kind(_starts(rb"....ftyp(avi[fs]|(mif1|msf1)....(....){0,24}?avi[fs])"), "AVIF", _avif, True),
    Kind(_starts(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)"), "HEIC", _heic, True),
    Kind(_starts(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"), "JPEG 2000", _jpeg2000, True),
)
CONVERT = "Convert it to PNG or JPEG."
# What is taken for a picture by its name and is none that can be read, with what to do.
OTHERS = (
    (_starts(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL picture", CONVERT),
    (_starts(rb"8BPS"), "a Photoshop document", CONVERT),
    (_starts(rb"\0\0[\1\2]\0"), "an icon", CONVERT),
    (_starts(rb"....ftypcrx |FUJIFILMCCD-RAW"), "a camera's raw picture", CONVERT),
    (_starts(rb".{128}DICM"), "a DICOM picture", CONVERT),
    (_starts(rb"%PDF|%!PS"), "a document", CONVERT),
    (_starts(rb"\s*<(\?xml|svg)"), "an SVG or XML file", CONVERT),
    (_starts(rb"version https://git-lfs"), "a Git LFS pointer and not the picture", "Run: git lfs pull."),
    (_starts(rb"\s*<(!DOCTYPE|!doctype|html|HTML)"), "an HTML page", "Download it again, or remove it."),
)


def kind_of(start: bytes) -> Kind | None:
    """The kind of a file that starts so; None if it is no picture that can be read."""
    return next((kind for kind in READERS if kind.signature.match(start)), None)


def optional_readers() -> tuple[str, ...]:
    """What is installed of that on which it depends which pictures can be read."""
    heif = ("heif",) if importlib.util.find_spec("pillow_heif") else ()
    return (*heif, *(name for name in ("avif", "jpg_2000") if features.check(name)))


def other_kind(start: bytes) -> tuple[str, str]:
    """(what a file is that is no readable picture, what to do)"""
    found = next((other[1:] for other in OTHERS if other[0].match(start)), None)
    return found or ("a file that is not an image", "Remove it.")


class TooMuch(Exception):
    """More of a file was requested than may be read."""


class Budgeted(io.BufferedReader):
    """A file of which only so much may be read; `allow` starts again with another limit.

    Pillow holds whatever comes before or after the pixels in memory, so a file could fill it with one huge chunk.
    """

    def __init__(self, raw: io.RawIOBase | io.BytesIO):
        super().__init__(raw)  # type: ignore[arg-type]
        self.allow(MOST_BYTES)

    def allow(self, most: int) -> None:
        """From now on no more than `most` bytes."""
        self.most = self.left = most

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file; raises TooMuch where that is more than is allowed."""
        data = super().read(self.left + 1 if size is None or size < 0 else min(size, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise TooMuch
        return data

"""Files, bytes and PIL images of pictures, opened within bounds; or the reason why one cannot be read."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from os import PathLike

from PIL import Image
from PIL.ImageFile import ImageFile

from engine.data.pictures import deep
from engine.data.pictures.formats import (
    MOST_BYTES,
    MOST_HEADER_BYTES,
    START_BYTES,
    Budgeted,
    MissingReader,
    TooMuch,
    kind_of,
    other_kind,
)
from engine.errors import InputError, problem, remedy_for
from engine.host.storage import at_home, is_web_address

WEB_ADDRESS = "a web address"
Stored = str | PathLike[str] | bytes | Image.Image


class UnreadablePicture(InputError):
    """A picture that cannot be read; `reason` says why in a few words.

    is_passing: the system, not the content, was at fault, so that another try may succeed.
    kind: of a kind that can be read with other software only, its name.
    """

    def __init__(
        self,
        name: str,
        reason: str,
        expected: str = "a readable, complete image",
        remedy: str = "Repair or remove it.",
        is_passing: bool = False,
        kind: str = "",
    ):
        super().__init__(problem(name, reason, expected, remedy))
        self.reason, self.is_passing, self.kind = reason, is_passing, kind


@contextlib.contextmanager
def reading_picture(source: Stored) -> Iterator[None]:
    """Turns errors of reading a picture into UnreadablePicture."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except MissingReader as error:
        (reason, remedy), kind = error.args, _optional_kind(source)
        name, rule = name_of_picture(source), "a picture that can be read here"
        reason = f"{reason}; {remedy[0].lower()}{remedy[1:-1]}"
        raise UnreadablePicture(name, reason, rule, remedy, kind=kind) from None
    except TooMuch:
        reason = "more beside its pixels than any picture needs"
        raise UnreadablePicture(name_of_picture(source), reason) from None
    except Exception as error:  # damaged data make Pillow's decoders raise errors of nearly every kind
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        is_passing = isinstance(error, OSError) and error.errno is not None
        name, kind = name_of_picture(source), _optional_kind(source)
        reason = f"{kind}: {reason.splitlines()[0]}" if kind else reason.splitlines()[0]
        usual = "Check the path." if isinstance(error, FileNotFoundError) else "Repair or remove it."
        remedy = remedy_for(error, usual)
        raise UnreadablePicture(name, reason, remedy=remedy, is_passing=is_passing, kind=kind) from None


def _optional_kind(source: Stored) -> str:
    """The kind of a picture that could not be read, if it depends on what is installed; else ""."""
    if isinstance(source, Image.Image):
        return ""
    with contextlib.suppress(OSError, UnreadablePicture), open_stream(source) as file:
        kind = kind_of(file.read(START_BYTES))
        return kind.name if kind is not None and kind.is_optional else ""
    return ""


def name_of_picture(picture: object) -> str:
    """What errors call a picture: its path, or its type."""
    if isinstance(picture, bytes):
        return f"{len(picture)} bytes"
    return str(picture) if isinstance(picture, (str, PathLike)) else type(picture).__name__


@contextlib.contextmanager
def open_stored(source: Stored) -> Iterator[Image.Image]:
    """The picture, not yet decoded, of whose file no more is read than a header's worth."""
    if isinstance(source, Image.Image):
        yield source
        return
    with open_stream(source) as file, Budgeted(file) as budgeted:
        image = _identified(budgeted, name_of_picture(source))
        if deep.has_planes(image):
            rule, remedy = "channels side by side", "Save it so (planar configuration 1)."
            raise UnreadablePicture(name_of_picture(source), "a TIFF of 16 bits in planes", rule, remedy)
        yield image


def open_stream(source: str | PathLike[str] | bytes) -> io.FileIO | io.BytesIO:
    """The bytes of a picture, unbuffered; raises UnreadablePicture for what is not a regular file."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, str | PathLike):
        kind, rule = type(source).__name__, "a path, bytes, a PIL image or an array"
        raise UnreadablePicture(kind, "no picture", rule, "Pass one of these.")
    try:
        source = at_home(source)
        mode = os.stat(source).st_mode
    except FileNotFoundError:
        if not is_web_address(source):
            raise
        rule, remedy = "a file on this machine", "Download it first."
        raise UnreadablePicture(name_of_picture(source), WEB_ADDRESS, rule, remedy) from None
    except ValueError:  # no system has names with a NUL
        raise UnreadablePicture(name_of_picture(source), "a name with a NUL", "an image file", "Correct it.") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"  # a pipe would be waited for without end
        raise UnreadablePicture(name_of_picture(source), kind, "an image file")
    return open(source, "rb", buffering=0)


def _identified(file: Budgeted, name: str) -> ImageFile:
    """The picture in a file, not yet decoded."""
    start = file.read(START_BYTES)
    kind = kind_of(start)
    if not start:
        raise UnreadablePicture(name, "an empty file")
    if kind is None:
        reason, remedy = other_kind(start)
        raise UnreadablePicture(name, reason, "JPEG, PNG or the like", remedy)
    file.seek(0)
    file.allow(MOST_HEADER_BYTES.get(kind.name, MOST_BYTES))
    return kind.reader(file)

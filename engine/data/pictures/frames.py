"""Pictures of several frames or pages (animations, multi-page TIFF, stereo JPEGs), of which the first alone is read.

Whether there is a second is found out without decoding any, in time that does not depend on how many there are.
"""

import contextlib
import io
import struct
from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import IO

from PIL import Image

from engine.data.pictures.jpeg import SEGMENT, START_OF_SCAN
from engine.text import one_line

MOST_BLOCKS = 2**18  # of a GIF's first frame, 64 MiB where they are full
MOST_PAGES, MOST_TAGS = 64, 4096  # of a TIFF, before one that is no smaller copy of the first
SUBFILE_TYPE, IS_NO_PAGE = 254, 0b101  # a smaller copy, or a mask
MP_ENTRIES, MP_ENTRY_BYTES, MOST_MP_TAGS = 0xB002, 16, 16
THUMBNAIL = 0x01  # in the type of a picture within a JPEG
APP1, APP2 = 0xE1, 0xE2
READ_DAMAGED = (OSError, ValueError, IndexError, struct.error, EOFError, SyntaxError)


class SeveralFrames:
    """Counts the pictures that hold more than what is read of them, by kind; many threads may add to it."""

    def __init__(self):
        self._lock, self._counts, self._first = Lock(), Counter[str](), ""

    def add(self, kind: str, name: str) -> None:
        """One more, of a kind like GIF."""
        with self._lock:
            self._first = min(name, self._first) if self.total else name
            self._counts[kind] += 1

    @property
    def total(self) -> int:
        """How many there are."""
        return self._counts.total()

    def notes(self, num_pictures: int) -> list[str]:
        """What was left unread of so many pictures, in a line; none if nothing was."""
        if not self.total:
            return []
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self._counts.most_common())
        named = f": {one_line(self._first)}" if self._first else ""
        text = f"{self.total:,} of {num_pictures:,} pictures hold several frames or pages, of which the first is read"
        return [f"{text} ({kinds}){named}{' first' if named and self.total > 1 else ''}"]


def holds_more(image: Image.Image, opened: Callable[[], IO[bytes]] | None) -> bool:
    """Whether a picture holds more than the frame that is read; `opened` gives its file, None of a PIL image at hand.

    Smaller copies and masks do not count. Of a PIL image that was taken to another frame nothing is left unread.
    """
    with contextlib.suppress(*READ_DAMAGED):  # of damage behind the first frame, which is read
        if opened is None:
            return image.tell() == 0 and bool(getattr(image, "is_animated", False))
        scan = _SCANS.get(str(image.format))
        if scan is None or (image.format == "TIFF" and not getattr(image, "is_animated", False)):
            return bool(getattr(image, "is_animated", False))
        with opened() as raw, io.BufferedReader(raw) as file:  # type: ignore[arg-type, type-var]
            return scan(file)
    return False


def jpeg_holds_more(data: bytes) -> bool:
    """Whether a JPEG, or its start, says that other pictures follow it that are no thumbnails or HDR gain maps."""
    place, index = 2, b""
    with contextlib.suppress(struct.error):
        while True:
            start, marker, length = SEGMENT.unpack_from(data, place)
            if start != 0xFF or marker == START_OF_SCAN:
                break
            if marker == APP1 and b"hdrgm:Version" in data[place : place + 2 + length]:
                return False
            if marker == APP2 and data[place + 4 : place + 8] == b"MPF\0":
                index = data[place + 8 : place + 2 + length]
            place += 2 + length
    with contextlib.suppress(struct.error):
        return bool(index) and any(kind != THUMBNAIL for kind in _kinds_within(index))
    return False


def _kinds_within(index: bytes) -> list[int]:
    """The high byte of the type of each picture but the first, by the index of a multi-picture JPEG."""
    order = "<" if index.startswith(b"II") else ">"
    (place,) = struct.unpack_from(f"{order}I", index, 4)
    (num_tags,) = struct.unpack_from(f"{order}H", index, place)
    for at in range(place + 2, place + 2 + 12 * min(num_tags, MOST_MP_TAGS), 12):
        tag, _, num_bytes, start = struct.unpack_from(f"{order}HHII", index, at)
        if tag == MP_ENTRIES:
            ends = range(start, min(start + num_bytes, len(index) - MP_ENTRY_BYTES + 1), MP_ENTRY_BYTES)
            return [struct.unpack_from(f"{order}I", index, entry)[0] >> 16 & 0xFF for entry in ends[1:]]
    return []


def _gif_holds_more(file: io.BufferedReader) -> bool:
    flags = file.read(13)[10]
    file.seek(_palette_bytes(flags), io.SEEK_CUR)
    num_frames = num_blocks = 0
    while (kind := file.read(1)) in (b"!", b",", b"\0") and num_blocks < MOST_BLOCKS:
        num_blocks += 1
        if kind == b"\0":
            continue
        if kind == b",":
            flags, num_frames = file.read(9)[8], num_frames + 1
            if num_frames == 2:
                return True
            file.seek(_palette_bytes(flags), io.SEEK_CUR)
        file.read(1)  # what kind of extension, or the least code size
        while (length := file.read(1)[0]) and num_blocks < MOST_BLOCKS:
            file.seek(length, io.SEEK_CUR)
            num_blocks += 1
    return False


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tiff_holds_more(file: io.BufferedReader) -> bool:
    start = file.read(16)
    order = "<" if start.startswith(b"II") else ">"
    is_big = 43 in start[2:4]
    (offset,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", start, 8 if is_big else 4)
    seen = set[int]()
    while offset and offset not in seen and len(seen) < MOST_PAGES:
        is_page, following = _page_at(file, offset, order, is_big)
        if is_page and seen:
            return True
        seen.add(offset)
        offset = following
    return False


def _page_at(file: io.BufferedReader, offset: int, order: str, is_big: bool) -> tuple[bool, int]:
    """(whether the picture described there is no smaller copy and no mask, where the next one is described)"""
    count_kind, entry_bytes, value_at, next_kind = ("Q", 20, 12, "Q") if is_big else ("H", 12, 8, "I")
    file.seek(offset)
    (num_tags,) = struct.unpack(f"{order}{count_kind}", file.read(struct.calcsize(f"={count_kind}")))
    if num_tags > MOST_TAGS:
        raise ValueError(num_tags)
    tags = file.read(num_tags * entry_bytes)
    (following,) = struct.unpack(f"{order}{next_kind}", file.read(struct.calcsize(f"={next_kind}")))
    for at in range(0, len(tags), entry_bytes):
        tag, kind = struct.unpack_from(f"{order}HH", tags, at)
        if tag == SUBFILE_TYPE:
            (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", tags, at + value_at)
            return not value & IS_NO_PAGE, following
    return True, following


_SCANS: dict[str, Callable[[io.BufferedReader], bool]] = {
    "GIF": _gif_holds_more,
    "TIFF": _tiff_holds_more,
    "JPEG": lambda file: jpeg_holds_more(file.read(2**18)),
}

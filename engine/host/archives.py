"""Untrusted zip archives: checks how much there is to read before any of it is read."""

import struct
from pathlib import Path

from engine.errors import InputError, problem
from engine.host.storage import check_regular

# Size of an archive's central directory: 80,000 files with names of 50 letters. Python needs 600 bytes for each.
MOST_DIRECTORY_BYTES = 8 * 2**20
END, END_BYTES, MOST_COMMENT = b"PK\5\6", 22, 2**16
LOCATOR, LOCATOR_BYTES, END_64, END_64_BYTES = b"PK\6\7", 20, b"PK\6\6", 56


def check_directory_size(path: Path, kind: str) -> None:
    """Raises InputError if an archive's list of files, which Python reads whole, is longer than any that we write.

    kind: what the file should be, for the error. A file that is not an archive passes: opening it will fail. Raises
    OSError if the file cannot be read.
    """
    check_regular(path)
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - MOST_COMMENT - END_BYTES - LOCATOR_BYTES - END_64_BYTES))
        tail = file.read()
    listed = _directory_bytes(tail)
    if listed > MOST_DIRECTORY_BYTES:
        rule = f"{kind} with a list of its files of at most {MOST_DIRECTORY_BYTES:,} bytes"
        raise InputError(problem(str(path), f"a list of {listed:,} bytes", rule, "Make or download it again."))


def _directory_bytes(tail: bytes) -> int:
    """Size of the file list, from the record at an archive's end; 0 without one (PKWARE's APPNOTE, 4.3.14 to 16)."""
    at = tail.rfind(END)
    if at < 0 or len(tail) < at + END_BYTES:
        return 0
    (listed,) = struct.unpack_from("<I", tail, at + 12)
    locator, end = at - LOCATOR_BYTES, at - LOCATOR_BYTES - END_64_BYTES
    if end >= 0 and tail[locator : locator + 4] == LOCATOR and tail[end : end + 4] == END_64:
        (listed,) = struct.unpack_from("<Q", tail, end + 40)
    return listed

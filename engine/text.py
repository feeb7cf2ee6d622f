"""Names and messages from anywhere, escaped for a terminal, a line and a spreadsheet.

Names of files and classes, labels, and what errors say of them are strangers' text. A terminal acts on control
characters in it (clears the screen, writes the clipboard), and a spreadsheet runs what looks like a formula.
"""

import csv
import re
from collections.abc import Iterable
from typing import IO, Any

# Control characters but for line breaks and tabs, separators of lines, marks that turn the direction of writing or
# show nothing, and the half characters that stand for bytes which are not UTF-8.
ACTED_ON = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# A spreadsheet takes a cell that starts so for a formula; the wide forms too, in some languages.
FORMULA = re.compile("[=+@\t\n＝＋－＠-]")
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
# What our own messages are written with, for consoles that lack it; other characters are shown as escapes.
PLAIN = {"×": "x", "…": "...", "–": "-", "−": "-", "±": "+-", "°": " deg", "→": "->", "“": '"', "”": '"', "’": "'"}


def printable(text: str) -> str:
    r"""The text with its lines and tabs, and an escape for all else that is acted on or not shown: `\x1b`, `\xff`."""
    return ACTED_ON.sub(lambda found: _escape(found[0]), text)


def one_line(text: object) -> str:
    r"""As `printable`, with line breaks and tabs escaped too (`\n`): for a name within a message."""
    return printable(str(text)).replace("\n", "\\n").replace("\t", "\\t")


def counted(count: int, thing: str) -> str:
    """How many of a thing there are: "1 class", "2 classes", "10,000 images"."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}{'es' if thing.endswith('ss') else 's'}"


def rate_text(images_per_second: float) -> str:
    """Images a second with two digits or more: "0.31 images/s", "12,345 images/s"."""
    digits = ",.0f" if images_per_second >= 10 or not images_per_second else ".2g"
    return f"{images_per_second:{digits}} images/s"


def encodable(text: str, encoding: str | None) -> str:
    """The text with nothing in it that the encoding of a console or pipe lacks."""
    if not _fits(text, encoding or "utf-8"):
        return "".join(c if _fits(c, encoding or "utf-8") else PLAIN.get(c) or _escape(c) for c in text)
    return text


def csv_cell(value: object) -> object:
    """What a CSV file holds for a value: a text that a spreadsheet would take for a formula has a ' before it."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if FORMULA.match(shown) and not NUMBER.fullmatch(shown) else shown


class CsvWriter:
    """Rows → a CSV file that is safe to open in a spreadsheet. Every CSV file of ours is written by it."""

    def __init__(self, file: IO[str]):
        self._writer = csv.writer(file, lineterminator="\n")

    def writerow(self, row: Iterable[Any]) -> None:
        """Adds a row."""
        self._writer.writerow([csv_cell(value) for value in row])

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Adds rows."""
        for row in rows:
            self.writerow(row)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as Python keeps it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    except LookupError:  # an encoding that Python does not know
        return text.isascii()
    return True

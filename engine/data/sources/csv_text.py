"""The text of a CSV table: its encoding, its delimiter, its first rows, and what comes before them."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple

from engine.data.classes.names import composed, names_text
from engine.data.pictures.images import is_picture_name
from engine.errors import InputError, problem, remedy_for
from engine.host.encodings import encoding_of
from engine.host.storage import check_regular, is_web_address

LABEL_NAMES = (
    "label", "class", "target", "labels", "category", "class_name", "classname", "class_label", "species", "breed",
    "diagnosis", "dx",
)  # fmt: skip
FILE_NAMES = (
    "path", "file", "filename", "image", "image_path", "filepath", "file_path", "file_name", "image_name", "image_id",
    "imagepath", "img_path", "img_name", "img", "image_file", "picture", "photo", "url", "image_url",
)  # fmt: skip
DELIMITERS = ",;\t|"
# The line that Excel writes, and reads, before all others.
SEPARATOR = re.compile(r'"?sep=([^\r\n])"?\s*', re.IGNORECASE)
SAMPLE_ROWS = 20
MOST_LINE = 2**24  # characters: pictures of 2,000×2,000 pixels, of five characters each


COLUMNS = "label and pixels (label,pixel0,pixel1,…), or path and label (path,label)"


class Start(NamedTuple):
    """The first rows of a table, and how its text is to be read.

    skipped: how many lines come before the table: sep=;, comments, blank ones. notes: what the user should know.
    """

    rows: list[list[str]]
    encoding: str
    delimiter: str
    skipped: int
    notes: tuple[str, ...]


def read_start(path: Path, encoding: str | None) -> Start:
    """The first rows, and what the lines say of encoding (unless it is given), delimiter and lines to skip.

    Raises InputError for a file that is empty, or is not text in one encoding.
    """
    with reading_table(path):
        check_regular(path)
        codec, note = encoding_of(path, encoding)
    with open_lines(path, codec) as file:
        lines = list(_first(file))
    with reading_table(path):
        skipped, delimiter = _before(lines)
        filled = [line for line in lines[skipped:] if line.strip()]
        if not filled:
            raise InputError(problem(str(path), "an empty file", f"a table of {COLUMNS}", "Check the file."))
        delimiter = delimiter or _delimiter(filled)
        rows = [[cell.strip() for cell in row] for row in csv.reader(filled, delimiter=delimiter) if row]
    aside = tuple(line.strip() for line in lines[:skipped] if line.strip())
    ignored = f"{path}: ignored before the columns: {names_text(aside)}" if aside else ""
    return Start(rows, codec, delimiter, skipped, tuple(filter(None, (note, ignored))))


@contextmanager
def open_lines(path: Path, encoding: str, skipped: int = 0) -> Iterator[Iterator[str]]:
    """The lines of a table, without the byte-order mark of Excel; never with replaced characters."""
    with reading_table(path), path.open(encoding=encoding, newline="") as file:
        yield islice(_lines(file, path), skipped, None)


def _lines(file: io.TextIOWrapper, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            got, rule = f"more than {MOST_LINE:,} characters", "a line of a table"
            raise InputError(problem(f"{path} line {number:,}", got, rule, "Check that it is a table of text."))
        yield line


def _first(lines: Iterator[str]) -> Iterator[str]:
    """SAMPLE_ROWS lines beside those before the table, or as few as have MOST_LINE characters."""
    length = count = 0
    for line in lines:
        yield line
        length += len(line)
        count += count > 0 or not _is_aside(line)
        if count == SAMPLE_ROWS or length > MOST_LINE:
            return


def _is_aside(line: str) -> bool:
    """Whether a line at the start is blank, a comment, or says what the delimiter is."""
    return not line.strip() or line.lstrip().startswith("#") or SEPARATOR.fullmatch(line) is not None


def _before(lines: list[str]) -> tuple[int, str | None]:
    """(how many lines come before the table, the delimiter that one of them states)."""
    aside = list(takewhile(_is_aside, lines))
    stated = next((found[1] for found in map(SEPARATOR.fullmatch, aside) if found), None)
    comments = [k for k, line in enumerate(aside) if line.lstrip().startswith("#")]
    rest = [line for line in lines[len(aside) :] if line.strip()] if comments else []
    delimiter = stated or _delimiter(rest or [aside[k] for k in comments])
    first = _split(rest[0], delimiter) if rest else []
    for k in comments:
        cells = _split(aside[k], delimiter)
        is_as_wide = len(cells) > 1 and len(cells) == len(first or cells)
        if is_as_wide and (has_picture(cells) or (k == comments[-1] and _are_names(cells, first))):
            return k, stated
    return len(aside), stated


def _split(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def has_picture(cells: list[str]) -> bool:
    """Whether a cell is the path of a picture."""
    return any(map(is_picture_name, map(_last_part, cells)))


def _are_names(comment: list[str], first: list[str]) -> bool:
    """Whether a comment names the columns of a table whose first row is `first`, without names then."""
    known, rows = {*LABEL_NAMES, *FILE_NAMES}, (comment, first)
    has_known, is_named = (not known.isdisjoint(as_column_name(cell.lstrip("# ")) for cell in row) for row in rows)
    return not is_named and (has_known or all(map(is_number, first)) or has_picture(first))


@contextmanager
def reading_table(path: Path) -> Iterator[None]:
    """Turns errors of reading a table into an InputError of one sentence."""
    try:
        yield
    except UnicodeError as error:
        got = f"bytes that are not of its encoding ({error})"
        if isinstance(error, UnicodeDecodeError):
            got = f"bytes that are no {error.encoding} ({error.object[error.start : error.start + 8].hex(' ')})"
        remedy = "Name its encoding, like --data.encoding cp1252, or save it as UTF-8."
        raise InputError(problem(str(path), got, "text in one encoding", remedy)) from None
    except (OSError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        remedy = remedy_for(error, "Correct the path or file.")
        raise InputError(problem(str(path), reason, "a table that can be read", remedy)) from None


def is_number(cell: str) -> bool:
    """Whether a cell is a number as people write them."""
    return re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", cell) is not None


def _delimiter(lines: list[str]) -> str:
    """The delimiter that divides all lines into the same number of cells, and into the most; a comma if none does."""
    best, most = ",", 1
    for delimiter in DELIMITERS:
        widths = {len(row) for row in csv.reader(lines, delimiter=delimiter) if row}
        if len(widths) == 1 and max(widths) > most:
            best, most = delimiter, max(widths)
    if most > 1:
        return best
    widths = {delimiter: len(next(csv.reader(lines, delimiter=delimiter), [])) for delimiter in DELIMITERS}
    return max(DELIMITERS, key=lambda delimiter: widths[delimiter])


def is_picture(cell: str) -> bool:
    """Whether a cell is the path or web address of a picture."""
    return is_picture_name(_last_part(cell)) or is_web_address(cell)


def as_column_name(name: str) -> str:
    """A column's name in lower case with underscores, as names are compared."""
    return re.sub(r"[ \-]+", "_", composed(name).strip().lower())


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]

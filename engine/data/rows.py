"""Rows of CSV tables: their columns, labels, pixels and file names, and what is wrong with a row."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import isqrt
from pathlib import Path

import numpy as np

from engine.data.dataset import names_text
from engine.errors import InputError, problem

LABEL_NAMES = ("label", "class", "target")
FILE_NAMES = ("path", "file", "filename", "image", "image_path")
CHUNK_ROWS = 2048
LEAST_PIXELS = 4
COLUMNS = "label and pixels (label,pixel0,pixel1,…), or path and label (path,label)"


@dataclass(frozen=True)
class Table:
    """What the first line of a CSV file says about it.

    columns: their names as written; made up where there is no header.
    label, file: the places of these columns; None where there are none.
    """

    path: Path
    columns: tuple[str, ...]
    has_header: bool
    label: int | None
    file: int | None

    @property
    def num_pixels(self) -> int:
        """How many columns are pixels."""
        return len(self.columns) - (self.label is not None)


def describe(path: Path, num_pixels: int | None = None) -> Table:
    """What the first line says; `num_pixels` is how many there should be, where that is known."""
    with _text(path) as file:
        cells = [cell.strip() for cell in next(csv.reader(file), [])]
    if not cells:
        raise InputError(problem(str(path), "an empty file", f"a table of {COLUMNS}", "Check the file."))
    if all(map(_is_number, cells)):
        return _without_header(path, len(cells), num_pixels)
    names = [cell.lower() for cell in cells]
    label = next((names.index(name) for name in LABEL_NAMES if name in names), None)
    file = next((names.index(name) for name in FILE_NAMES if name in names), None)
    if file is None and len(cells) - (label is not None) < LEAST_PIXELS:
        remedy = "Name the columns in the first line, with commas between them."
        raise InputError(problem(str(path), f"the columns {names_text(tuple(cells))}", f"columns {COLUMNS}", remedy))
    return Table(path, tuple(cells), True, label, file)


def _without_header(path: Path, count: int, num_pixels: int | None) -> Table:
    """A table of numbers alone, which starts with a label if only then the other numbers make a picture."""
    fits = [size == num_pixels if num_pixels else square_shape(size) is not None for size in (count, count - 1)]
    if num_pixels is None and fits[0] == fits[1]:
        rule = "a first line that names the columns, because it is not clear which one is the label"
        raise InputError(problem(str(path), f"{count:,} columns without names", rule, "Add label,pixel0,pixel1,…"))
    has_label = fits[1]
    names = ["label"] * has_label + [f"pixel{i}" for i in range(count - has_label)]
    return Table(path, tuple(names), False, 0 if has_label else None, None)


def square_shape(num_pixels: int) -> tuple[int, int, int] | None:
    """(h, w, c) of a square grey or else colour picture with so many numbers."""
    for channels in (1, 3):
        side = isqrt(num_pixels // channels)
        if num_pixels and channels * side**2 == num_pixels:
            return side, side, channels
    return None


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOWrapper]:
    """The file as text, without the mark that Excel puts before it; bytes that are no UTF-8 turn into �."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            yield file
    except (OSError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(problem(str(path), reason, "a table that can be read", "Correct the path or file.")) from None


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", cell) is not None


def row_chunks(table: Table) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of the rows, without the header."""
    with _text(table.path) as file:
        number = 1 + table.has_header
        if table.has_header:
            next(file)
        while lines := list(islice(file, CHUNK_ROWS)):
            yield number, lines
            number += len(lines)


def pixel_labels(table: Table) -> list[str]:
    """The label of every row."""
    assert table.label is not None
    labels: list[str] = []
    for first, lines in row_chunks(table):
        for number, line in enumerate(lines, first):
            if not line.strip():
                continue
            cells = next(csv.reader([line])) if '"' in line else line.split(",", table.label + 1)
            label = cells[table.label].strip() if len(cells) > table.label else ""
            if not label:
                raise InputError(_bad_row(table, number, line))
            labels.append(label)
    if not labels:
        raise InputError(no_rows(table))
    return labels


def parse_pixels(table: Table, lines: list[str], first: int) -> np.ndarray:
    """uint8[b pixels] of some lines; raises InputError with line and column of the first that is bad."""
    before = len(table.columns) if table.label is None else table.label
    after = 0 if table.label is None else len(table.columns) - table.label - 1
    parts = [("before", np.uint8, (before,)), ("label", "O"), ("after", np.uint8, (after,))]
    kinds = np.dtype([part for part in parts if part[-1] != (0,) and (part[0] != "label" or table.label is not None)])
    filled = [line for line in lines if not line.isspace()]
    if not filled:
        return np.zeros((0, table.num_pixels), np.uint8)
    try:
        rows = np.loadtxt(filled, kinds, delimiter=",", comments=None, quotechar='"', ndmin=1)
    except (ValueError, OverflowError):
        raise InputError(_first_bad_row(table, lines, first)) from None
    return np.concatenate([rows[name] for name in ("before", "after") if name in (kinds.names or ())], 1)


def _first_bad_row(table: Table, lines: list[str], first: int) -> str:
    texts = (_bad_row(table, number, line) for number, line in enumerate(lines, first) if line.strip())
    where, rule = f"{table.path} from line {first:,} on", "numbers with commas between them"
    return next(filter(None, texts), problem(where, "rows that cannot be read", rule, "Correct them."))


def _bad_row(table: Table, number: int, line: str) -> str:
    """What is wrong with a row of pixels; empty if nothing is."""
    cells = next(csv.reader([line]))
    where = f"{table.path} line {number:,}"
    if len(cells) != len(table.columns):
        rule = f"{len(table.columns):,}, as the first line has"
        return problem(where, f"{len(cells):,} columns", rule, "Correct or remove the line.")
    for place, cell in enumerate(cells):
        where_exactly = f"{where}, column {place + 1:,} ({table.columns[place]})"
        if place == table.label:
            if not cell.strip():
                return problem(where_exactly, "no label", "one", "Correct or remove the line.")
        elif not re.fullmatch(r"\+?\d+", cell.strip(), re.ASCII) or int(cell) > 255:
            return problem(where_exactly, repr(cell), "a whole number from 0 to 255", "Correct it.")
    return ""


def no_rows(table: Table) -> str:
    """The wording for a table that ends after its first line."""
    return problem(str(table.path), "no rows below the first line", "one a picture", "Check the file.")


def labels_and_files(table: Table) -> tuple[list[str], list[str]]:
    """(labels, file names) of every row."""
    assert table.file is not None
    assert table.label is not None
    files, labels = [], []
    with _text(table.path) as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            if not row:
                continue
            where = f"{table.path} line {rows.line_num:,}"
            if len(row) != len(table.columns):
                got, rule = f"{len(row):,} columns", f"{len(table.columns):,}, as the first line has"
                raise InputError(problem(where, got, rule, 'Correct it; names with commas in them need "quotes".'))
            for place in (table.file, table.label):
                if not row[place].strip():
                    exactly = f"{where}, column {place + 1:,} ({table.columns[place]})"
                    raise InputError(problem(exactly, "nothing", "a value", "Correct or remove the line."))
            files.append(row[table.file].strip())
            labels.append(row[table.label].strip())
    if not files:
        raise InputError(no_rows(table))
    return labels, files

"""Rows of CSV tables: their labels, pixels and file names, and what is wrong with a row."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np

from engine.config.decoding import ValueRange
from engine.data.decoded.dataset import names_text
from engine.data.pictures.levels import is_level
from engine.data.pictures.ranges import range_for
from engine.data.sources.columns import Table
from engine.data.sources.csv_text import is_number, open_lines, reading_table
from engine.data.sources.split_names import SPLIT_ORDER, UNLABELLED, split_of_value, truth_of
from engine.errors import InputError, problem
from engine.text import counted

MARK = "\x1f"  # between labels that are names of columns
CHUNK_ROWS, CHUNK_CHARACTERS = 2048, 2**23


def row_chunks(table: Table) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of the rows, without the header; blank in place of those of other splits."""
    with open_lines(table.path, table.encoding, table.skipped) as file:
        number = 1 + table.skipped + table.has_header
        if table.has_header:
            next(file)
        while lines := _some(file):
            yield number, lines if table.part is None else [line if _is_of_part(table, line) else "" for line in lines]
            number += len(lines)


def _some(file: Iterator[str]) -> list[str]:
    """The next CHUNK_ROWS lines, or fewer if they are long."""
    lines, length = list[str](), 0
    for line in file:
        lines.append(line)
        length += len(line)
        if len(lines) == CHUNK_ROWS or length > CHUNK_CHARACTERS:
            break
    return lines


def _cells(table: Table, line: str) -> list[str]:
    with reading_table(table.path):
        return next(csv.reader([line], delimiter=table.delimiter), [])


def _is_of_part(table: Table, line: str) -> bool:
    assert table.split is not None
    return bool(line.strip()) and part_of(table, _cell(table, line, table.split)) == table.part


def part_of(table: Table, value: str) -> str | None:
    """The split that a cell of the table's column of splits stands for."""
    assert table.split is not None
    return split_of_value(value, table.columns[table.split].strip().lower())


def _cell(table: Table, line: str, place: int) -> str:
    """One cell of a line; empty where the line is too short."""
    cells = _cells(table, line) if '"' in line else line.rstrip("\r\n").split(table.delimiter, place + 1)
    return cells[place].strip() if len(cells) > place else ""


def in_parts(table: Table) -> dict[str, Table]:
    """The table as one for each split that its rows are said to belong to; as it is, for training, if none are.

    Raises InputError where a column named like one of splits does not say so of every row.
    """
    if table.split is None:
        return {"train": table}
    values = {_cell(table, line, table.split) for _, lines in row_chunks(table) for line in lines if line.strip()}
    roles = {value: part_of(table, value) for value in sorted(values)}
    odd = tuple(value for value, role in roles.items() if role is None)
    name = table.columns[table.split]
    if odd:
        got = f"the column {name} with {names_text(tuple(map(repr, odd)))}"
        remedy = "Write these words in it, or rename or remove the column if it says something else."
        raise InputError(problem(str(table.path), got, "train, validation or test in every row", remedy))
    parts = [split for split in (*SPLIT_ORDER, UNLABELLED) if split in roles.values()]
    return {split: replace(table, part=split) for split in parts}


def pixel_labels(table: Table) -> list[str]:
    """The label of every row."""
    assert table.has_labels
    labels: list[str] = []
    for first, lines in row_chunks(table):
        for number, line in enumerate(lines, first):
            if not line.strip():
                continue
            if table.one_hot:
                labels.append(_class_of(table, _cells(table, line), f"{table.path} line {number:,}"))
                continue
            label = _cell(table, line, table.label or 0)
            if not label and table.separator is None:
                raise InputError(_bad_row(table, number, line))
            labels.append(label)
    if not labels:
        raise InputError(no_rows(table))
    return labels


def _class_of(table: Table, cells: list[str], where: str) -> str:
    """The name of the one-hot column that has the 1 of a row; raises InputError where not exactly one has it.

    Of columns of several labels all names, with MARK between them; of targets the numbers.
    """
    if table.are_targets:
        return MARK.join(_target_of(table, cells, k, where) for k in table.one_hot)
    found = [truth_of(cells[k]) if k < len(cells) else None for k in table.one_hot]
    ones = [table.columns[k] for k, is_one in zip(table.one_hot, found, strict=True) if is_one]
    if None not in found and (table.several or len(ones) == 1):
        return MARK.join(ones)
    names = names_text(table.columns[k] for k in table.one_hot)
    got = f"{len(ones)} ones ({names_text(ones)})" if ones else "no 1"
    remedy = "Correct or remove the line."
    if len(ones) > 1:
        joined = "|".join(ones)
        remedy = f"Correct it, or write several labels into one column, like {joined}, with --data.label-separator '|'."
    raise InputError(problem(where, got, f"one 1, and 0 in the others, in the columns {names}", remedy))


def _target_of(table: Table, cells: list[str], place: int, where: str) -> str:
    """A number, with a decimal comma perhaps, that float32 can hold."""
    cell = cells[place].strip() if place < len(cells) else ""
    number = cell.replace(",", ".")
    if not _is_finite(number) or abs(float(number)) > float(np.finfo(np.float32).max):
        exactly = f"{where}, column {place + 1:,} ({table.columns[place]})"
        raise InputError(problem(exactly, repr(cell[:80]), "a number to predict", "Correct or remove the line."))
    return number


def parse_pixels(table: Table, lines: list[str], first: int, dtype: type = np.uint8) -> np.ndarray:
    """[b pixels] of some lines, uint8 or float64; raises InputError with line and column of the first that is bad."""
    pixels = set(table.pixels)
    runs = [(is_pixel, len(list(run))) for is_pixel, run in groupby(range(len(table.columns)), pixels.__contains__)]
    kinds = np.dtype([(f"{k}", dtype if is_pixel else "O", (n,)) for k, (is_pixel, n) in enumerate(runs)])
    filled = [line for line in lines if line and not line.isspace()]
    if not filled:
        return np.zeros((0, table.num_pixels), dtype)
    try:
        rows = np.loadtxt(filled, kinds, delimiter=table.delimiter, comments=None, quotechar='"', ndmin=1)
    except (ValueError, OverflowError):
        raise InputError(_first_bad_row(table, lines, first, dtype)) from None
    found = np.concatenate([rows[f"{k}"] for k, (is_pixel, _) in enumerate(runs) if is_pixel], 1)
    if dtype != np.uint8 and not np.isfinite(found).all():
        raise InputError(_first_bad_row(table, lines, first, dtype))
    return found


def numbers_range(table: Table, stated: ValueRange | None) -> ValueRange:
    """(black, white) of a table's pixels, as stated or else recognised, see `range_for`; all rows are read."""
    found, are_whole = list[float](), True
    for first, lines in row_chunks(table):
        pixels = parse_pixels(table, lines, first, np.float64)
        found += [pixels.min(), pixels.max()] if pixels.size else []
        are_whole = are_whole and bool((pixels == np.floor(pixels)).all())
    if not found:
        raise InputError(no_rows(table))
    return range_for("numbers", (min(found), max(found)), are_whole, f"pixels in {table.path}", stated)


def _first_bad_row(table: Table, lines: list[str], first: int, dtype: type) -> str:
    texts = (_bad_row(table, number, line, dtype) for number, line in enumerate(lines, first) if line.strip())
    where, rule = f"{table.path} from line {first:,} on", "numbers with delimiters between them"
    return next(filter(None, texts), problem(where, "rows that cannot be read", rule, "Correct them."))


def _bad_row(table: Table, number: int, line: str, dtype: type = np.uint8) -> str:
    """What is wrong with a row of pixels; empty if nothing is."""
    cells = _cells(table, line)
    where = f"{table.path} line {number:,}"
    if len(cells) != len(table.columns):
        rule = f"{len(table.columns):,}, as the first line has"
        return problem(where, counted(len(cells), "column"), rule, "Correct or remove the line.")
    pixels = set(table.pixels)
    for place, cell in enumerate(cells):
        where_exactly = f"{where}, column {place + 1:,} ({table.columns[place]})"
        if place == table.label:
            if not cell.strip():
                return problem(where_exactly, "no label", "one", "Correct or remove the line.")
        elif place in pixels and not (is_level(cell) if dtype == np.uint8 else _is_finite(cell)):
            return problem(where_exactly, repr(cell[:80]), *_rule_of(cell, dtype))
    return ""


def _rule_of(cell: str, dtype: type) -> tuple[str, str]:
    """(rule, remedy) for the cell of a pixel that breaks it."""
    if dtype != np.uint8:
        return "a number", "Correct it."
    if not _is_finite(cell):
        return "a whole number from 0 to 255", "Correct it."
    remedy = "Correct it, or say what is black and white: --data.levels 0 65535 or so (--value-range to predict)."
    return "a whole number from 0 to 255, as in the first rows", remedy


def _is_finite(cell: str) -> bool:
    return is_number(cell.strip()) and bool(np.isfinite(float(cell)))


def no_rows(table: Table) -> str:
    """The wording for a table that ends after its first line."""
    return problem(str(table.path), "no rows below the first line", "one a picture", "Check the file.")


def labels_and_files(table: Table) -> tuple[list[str], list[str]]:
    """(labels, file names) of every row; no labels where there is no column of them."""
    assert table.file is not None
    files, labels = [], []
    for where, row in _file_rows(table):
        files.append(row[table.file].strip())
        labels += [row[table.label].strip()] if table.label is not None else []
        labels += [_class_of(table, row, where)] if table.one_hot else []
    if not files:
        raise InputError(no_rows(table))
    return labels, files


def read_weights(table: Table) -> np.ndarray:
    """float64[n]: how much each row counts; raises InputError, naming line and column, for what is no such number."""
    assert table.weight is not None
    found = []
    if table.file is not None:
        cells = ((where, row[table.weight]) for where, row in _file_rows(table))
    else:
        numbered = ((number, line) for first, lines in row_chunks(table) for number, line in enumerate(lines, first))
        filled = ((number, line) for number, line in numbered if line.strip())
        cells = ((f"{table.path} line {n:,}", _cell(table, line, table.weight)) for n, line in filled)
    for where, cell in cells:
        if not _is_finite(cell) or float(cell) < 0:
            exactly = f"{where}, column {table.weight + 1:,} ({table.columns[table.weight]})"
            raise InputError(problem(exactly, repr(cell[:80]), "a number of 0 or more", "Correct it."))
        found.append(float(cell))
    return np.array(found)


def _file_rows(table: Table) -> Iterator[tuple[str, list[str]]]:
    """(file and line for errors, cells) of each row of a table of file names."""
    wanted = [table.file, *([table.label] if table.separator is None else [])]
    with open_lines(table.path, table.encoding, table.skipped) as file:
        rows = csv.reader(file, delimiter=table.delimiter)
        if table.has_header:
            next(rows)
        for row in rows:
            if len(row) <= 1 and not "".join(row).strip():  # a line of blanks
                continue
            where = f"{table.path} line {table.skipped + rows.line_num:,}"
            if len(row) != len(table.columns):
                got, rule = counted(len(row), "column"), f"{len(table.columns):,}, as the first line has"
                raise InputError(problem(where, got, rule, 'Correct it; names with delimiters in them need "quotes".'))
            if table.part and part_of(table, row[table.split or 0].strip()) != table.part:
                continue
            for place in (place for place in wanted if place is not None):
                if not row[place].strip():
                    exactly = f"{where}, column {place + 1:,} ({table.columns[place]})"
                    raise InputError(problem(exactly, "nothing", "a value", "Correct or remove the line."))
            yield where, row


def read_column(table: Table, place: int) -> list[str]:
    """The cell of a column in every row; raises InputError naming the line of one that is empty."""
    cells = []
    with open_lines(table.path, table.encoding, table.skipped) as file:
        rows = csv.reader(file, delimiter=table.delimiter)
        if table.has_header:
            next(rows)
        for row in rows:
            if len(row) <= 1 and not "".join(row).strip():  # a line of blanks
                continue
            if table.part and part_of(table, row[table.split or 0].strip()) != table.part:
                continue
            cells.append(row[place].strip() if place < len(row) else "")
            if not cells[-1]:
                where = f"{table.path} line {table.skipped + rows.line_num:,}, column {place + 1:,}"
                got = f"{where} ({table.columns[place]})"
                raise InputError(problem(got, "nothing", "a value", "Correct or remove the line."))
    return cells

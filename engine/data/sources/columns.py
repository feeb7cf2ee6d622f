"""The columns of a CSV table: which of them hold paths, labels, pixels and splits."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.config.data import DataConfig
from engine.data.arrays.axes import square_shape
from engine.data.classes.names import names_text
from engine.data.pictures.levels import is_level
from engine.data.sources.csv_text import (
    COLUMNS,
    FILE_NAMES,
    LABEL_NAMES,
    as_column_name,
    has_picture,
    is_number,
    is_picture,
    read_start,
)
from engine.data.sources.split_names import is_split_column, split_of_value, truth_of
from engine.errors import InputError, problem, unknown

LEAST_PIXELS = 4
MOST_ODD = 0.25  # of pixels that are not 0 and no levels; fewer are mistakes, and named
HoldsFiles = Callable[[list[str]], bool]
NAME_THEM = "Name the columns in the first line, or set --data.path-column and --data.label-column."


@dataclass(frozen=True)
class Table:
    """A CSV file as its first lines describe it.

    columns: their names as written; their numbers where there is no header.
    label, file, split, group: the places of these columns; None where there are none. unnamed: places that are ignored.
    part: the split whose rows are meant, where a column says which split a row belongs to.
    one_hot: the places of columns of 0 and 1, one for each class, in place of a column of labels.
    are_targets: whether these are columns of numbers instead, the targets of a regression.
    several: whether rows may have any number of ones in these. separator: what stands between several labels in a cell.
    weight: the place of the column that says how much each row counts.
    skipped: how many lines come before the first that is of the table: sep=;, comments, blank ones.
    has_levels: whether the pixels of the first rows are whole numbers from 0 to 255, and not of another range.
    """

    path: Path
    columns: tuple[str, ...]
    has_header: bool
    label: int | None
    file: int | None
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    split: int | None = None
    part: str | None = None
    unnamed: tuple[int, ...] = ()
    one_hot: tuple[int, ...] = ()
    skipped: int = 0
    has_levels: bool = True
    group: int | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    several: bool = False
    separator: str | None = None
    weight: int | None = None
    are_targets: bool = False

    @property
    def pixels(self) -> list[int]:
        """The places of the columns of pixels."""
        others = {self.label, self.split, self.weight, self.group, *self.unnamed, *self.one_hot}
        return [k for k in range(len(self.columns)) if k not in others]

    @property
    def has_labels(self) -> bool:
        """Whether rows say of which class they are."""
        return self.label is not None or bool(self.one_hot)

    @property
    def has_more(self) -> bool:
        """Whether rows have several labels or targets, a weight or a group."""
        has_several = self.several or self.separator is not None or self.are_targets
        return has_several or self.weight is not None or self.group is not None

    @property
    def num_pixels(self) -> int:
        """How many columns are pixels."""
        return len(self.pixels)


def describe(
    path: Path,
    config: DataConfig | None = None,
    num_pixels: int | None = None,
    holds_files: HoldsFiles = lambda cells: False,
) -> Table:
    """What the first lines say, and what `config` says of columns.

    num_pixels: how many columns of pixels there should be, if that is known. holds_files: whether cells name files.
    Raises InputError for columns that are not there, and where it is not clear which ones are meant.
    """
    config = config or DataConfig()
    rows, encoding, delimiter, skipped, notes = read_start(path, config.encoding)
    given = {"skipped": skipped, "notes": notes, "separator": config.label_separator}
    table = Table(path, (), False, None, None, delimiter, encoding, **given)
    is_asked = any((config.path_column, config.label_column, config.weight_column, config.group_column))
    if all(map(is_number, rows[0])) and not is_asked:
        return _with_kind_of_pixels(_of_numbers(table, len(rows[0]), num_pixels), rows)
    has_header = not has_picture(rows[0])
    named = (re.sub(r"^#\s*(?=.)", "", rows[0][0]), *rows[0][1:])  # as np.savetxt writes a header
    numbers = tuple(str(k + 1) for k in range(len(rows[0])))
    table = replace(table, columns=named if has_header else numbers, has_header=has_header)
    return _with_kind_of_pixels(_with_columns(table, rows[has_header:], config, holds_files), rows[has_header:])


def _of_numbers(table: Table, count: int, num_pixels: int | None) -> Table:
    """A table of numbers alone, which starts with a label if only then the other numbers make a picture."""
    fits = [size == num_pixels if num_pixels else square_shape(size) is not None for size in (count, count - 1)]
    if num_pixels is None and fits[0] == fits[1]:
        rule = "a first line that names the columns, because it is not clear which one is the label"
        remedy = "Add label,pixel0,pixel1,…"
        raise InputError(problem(str(table.path), f"{count:,} columns without names", rule, remedy))
    has_label = fits[1]
    names = ["label"] * has_label + [f"pixel{i}" for i in range(count - has_label)]
    return replace(table, columns=tuple(names), has_header=False, label=0 if has_label else None)


def _with_columns(table: Table, rows: list[list[str]], config: DataConfig, holds_files: HoldsFiles) -> Table:
    """The table with the role of each column: by the config, by its name, and by what is in it."""
    names = [as_column_name(name) for name in table.columns]
    targets = _several_asked(table, config.label_column)
    label = None if targets else _asked("label", table, config.label_column)
    file = _asked("path", table, config.path_column)
    group = _asked("group", table, config.group_column)
    weight = _asked("weight", table, config.weight_column)
    label = label if label is not None or targets else _first_named(table, LABEL_NAMES, file, "label")
    file = file if file is not None else _first_named(table, FILE_NAMES, label, "path")
    unnamed = tuple(k for k, name in enumerate(names) if re.fullmatch(r"(unnamed:? ?_?\d+|#)?", name))
    free = [k for k in range(len(names)) if k not in (label, file, weight, group, *unnamed, *targets)]
    cells = {k: [row[k] for row in rows if k < len(row) and row[k]] for k in free}
    split = _split_column(table, {k: cells[k] for k in free})
    rest = [k for k in free if k != split]
    if file is None:
        holding = [k for k in rest if cells[k] and all(map(is_picture, cells[k]))]
        file = holding[0] if len(holding) == 1 else None
    if file is None:
        texts = [k for k in rest if cells[k] and not any(map(is_number, cells[k]))]
        file = texts[0] if len(texts) == 1 and holds_files(cells[texts[0]]) else None
    if file is None and not _are_pixels(rest, cells):
        holding = [k for k in rest if holds_files(cells[k])]
        if len(holding) != 1:
            got = f"the columns {names_text(table.columns)}"
            raise InputError(problem(str(table.path), got, f"columns {COLUMNS}", NAME_THEM))
        (file,) = holding
    others = [k for k in rest if k != file]
    if file is not None and label is None and len(others) == 1 and not targets:
        label = others[0]
    places = (others if file is not None else _no_pixels(names, others)) if label is None else []
    marks, several = (targets, False) if targets else _find_marks(table, places, rows)
    found = {"label": label, "file": file, "split": split, "weight": weight, "group": group}
    return replace(table, **found, unnamed=unnamed, one_hot=marks, several=several, are_targets=bool(targets))


def _no_pixels(names: list[str], places: list[int]) -> list[int]:
    """Those columns that are not named like most others, but for numbers in the names: pixel0, pixel1, …"""
    stems = {k: re.sub(r"\d+", "", names[k]) for k in places}
    counts = Counter(stems.values())
    usual = max(counts, key=lambda stem: counts[stem], default="")
    return [k for k in places if stems[k] != usual and counts[usual] >= LEAST_PIXELS]


def _find_marks(table: Table, places: list[int], rows: list[list[str]]) -> tuple[tuple[int, ...], bool]:
    """(the columns of 0 and 1: a class each, or a label, whether some row has not exactly one 1 in them)."""
    whole = [row for row in rows if len(row) == len(table.columns)]
    found = [k for k in places if whole and all(truth_of(row[k]) is not None for row in whole)]
    is_one = len(found) > 1 and all(sum(truth_of(row[k]) or False for k in found) == 1 for row in whole)
    return (tuple(found), not is_one) if len(found) > 1 else ((), False)


def _with_kind_of_pixels(table: Table, rows: list[list[str]]) -> Table:
    """The table, with whether the pixels of some rows are levels, but for a few, which are found when it is read."""
    if table.file is not None:
        return table
    cells = (row[k] for row in rows for k in table.pixels if k < len(row))
    filled = [cell for cell in cells if is_number(cell) and cell != "0"]
    return replace(table, has_levels=sum(not is_level(cell) for cell in filled) <= len(filled) * MOST_ODD)


def _several_asked(table: Table, given: str | None) -> tuple[int, ...]:
    """The places of the columns `x,y`, which hold the targets of a regression; none where a single column is meant."""
    if given is None or "," not in given or as_column_name(given.strip()) in map(as_column_name, table.columns):
        return ()
    found = tuple(place for part in given.split(",") if (place := _asked("label", table, part.strip())) is not None)
    if len({*found}) < len(found) or table.separator is not None:
        got = f"{given} with a separator of labels" if table.separator is not None else f"{given}, one of them twice"
        raise InputError(problem("data.label_column", got, "columns of numbers, for a regression", "Correct it."))
    return found


def _asked(field: str, table: Table, given: str | None) -> int | None:
    """The place of a column that the config names, as it is written or else in another case."""
    if given is None:
        return None
    for same in (str, as_column_name):
        names = [same(name) for name in table.columns]
        if same(given.strip()) in names:
            return _only(names, same(given.strip()), field, table)
    if given.isdigit() and 1 <= int(given) <= len(table.columns):
        return int(given) - 1
    raise InputError(unknown(f"data.{field}_column", given, table.columns))


def _first_named(table: Table, known: tuple[str, ...], other: int | None, field: str) -> int | None:
    names = [as_column_name(name) for name in table.columns]
    found = next((name for name in known if name in names and names.index(name) != other), None)
    return None if found is None else _only(names, found, field, table)


def _only(names: list[str], name: str, field: str, table: Table) -> int:
    """The place of a name; raises InputError if several columns have it."""
    places = [k for k, other in enumerate(names) if other == name]
    if len(places) > 1:
        got = f"{len(places)} columns named {table.columns[places[0]]}, {names_text(str(k + 1) for k in places)}"
        remedy = f"Rename or remove the others, or give the number of one: --data.{field}-column {places[0] + 1}."
        raise InputError(problem(str(table.path), got, f"one column for the {field}", remedy))
    return places[0]


def _are_pixels(places: list[int], cells: dict[int, list[str]]) -> bool:
    """Whether there are enough columns for pixels, and mostly numbers in them; a bad one is found when it is read."""
    found = [cell for k in places for cell in cells[k]]
    return len(places) >= LEAST_PIXELS and 2 * sum(map(is_number, found)) >= len(found)


def _split_column(table: Table, cells: dict[int, list[str]]) -> int | None:
    """The column that says which split a row belongs to: by its name, or because it holds nothing but their names."""
    named = [k for k in cells if is_split_column(as_column_name(table.columns[k]))]
    texts = {k: found for k, found in cells.items() if found and not any(map(is_picture, found))}  # no train/1.jpg
    holding = [k for k, found in texts.items() if all(split_of_value(cell) for cell in found)]
    places = sorted({*named, *holding})
    if len(places) > 1:
        got = f"the columns {names_text(tuple(table.columns[k] for k in places))}"
        rule = "one column that says which split a row belongs to"
        raise InputError(problem(str(table.path), got, rule, "Remove or rename the others."))
    return places[0] if places else None

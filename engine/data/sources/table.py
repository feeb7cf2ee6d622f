"""CSV tables → Source: rows of pixels with a label, or rows of a file name and a label."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from engine.config.data import DataConfig
from engine.config.decoding import ValueRange
from engine.data.arrays.axes import square_shape
from engine.data.decoded.cache import Decoded, DecodedBatch, Findings, cached
from engine.data.decoded.dataset import Dataset, combined_fingerprint, names_text
from engine.data.pictures.images import fit_images, fitted_shape
from engine.data.pictures.ranges import as_uint8, range_text
from engine.data.sources.class_folders import name_of
from engine.data.sources.class_order import in_listed_order
from engine.data.sources.columns import NAME_THEM, Table, describe
from engine.data.sources.csv_text import COLUMNS
from engine.data.sources.files import cache_entry, file_key, load_files
from engine.data.sources.groups import with_groups
from engine.data.sources.listed_files import Finder, check_there, finder_for, image_file
from engine.data.sources.rows import (
    in_parts,
    labels_and_files,
    no_rows,
    numbers_range,
    parse_pixels,
    pixel_labels,
    read_weights,
    row_chunks,
)
from engine.data.sources.source import Source, split_title, visible_entries
from engine.data.sources.split_names import SPLIT_ORDER, SPLITS, UNLABELLED, split_roles
from engine.data.sources.table_labels import Tell, numeric_targets, targets_of
from engine.data.sources.walk import ImageFile
from engine.errors import InputError, problem, shape_text
from engine.host.storage import expanded
from engine.text import counted, one_line

TABLE_ENDINGS = (".csv", ".tsv")
LEVELS: ValueRange = (0.0, 255.0)


@dataclass(frozen=True)
class TableSource(Source):
    """Tables by split, all of one kind."""

    name: str
    tables: dict[str, Table]
    config: DataConfig
    tell: Tell

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it has; "train" where it is not divided."""
        return tuple(self.tables)

    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field` if there is no such split, or file, line and column if bad."""
        name, table = split_title(self.name, self.tables, split, field), self.tables[split]
        may_lack = split != self.config.split
        dataset, rows = self._read(split, name)
        if dataset.class_names and table.label is not None:
            dataset = replace(dataset, targets=numeric_targets(dataset))
        if table.weight is not None:
            dataset = dataset.weighted(read_weights(table)[rows], f"{table.path} {table.columns[table.weight]}")
        dataset = with_groups(dataset, table, rows)
        return in_listed_order(dataset, self.config.class_names, may_lack, self.tell)

    def _read(self, split: str, name: str) -> tuple[Dataset, Any]:
        """(the split, which of its table's rows these are)."""
        table = self.tables[split]
        if table.file is not None:
            return self._load_files(table, split, name)
        about = [table.label, table.split, table.part, table.encoding, table.delimiter]
        about += [table.one_hot, *["targets"] * table.are_targets] if table.one_hot else []
        about += [table.several, table.separator, table.weight, table.group] if table.has_more else []
        files = dict.fromkeys([table.path, self._training_table(table).path])  # whose range is that of all
        entry = cache_entry(self.config, name, file_key(files, self.config, *about))
        return cached(entry, name, lambda: self._decode(table), self.tell), slice(None)

    def image_files(self) -> dict[str, list[str]]:
        """Paths of the image files by split, in the order of the examples; none of tables of pixels."""
        return {split: [file.path for file in self.files(split)] for split in self.split_names}

    def files(self, split: str) -> list[ImageFile]:
        """The files that a split names, in order; empty for a table of pixels. Reports how names had to be read."""
        table = self.tables[split]
        if table.file is None:
            return []
        _, names = labels_and_files(table)
        finder = finder_for(table.path, names, self.config)
        found = [finder.find(name) for name in names]
        tell_how(table, finder, self.tell)
        if self.config.on_bad_file == "stop":
            missing = [name for name, path in zip(names, found, strict=True) if path is None]
            check_there(table.path, missing, len(names), finder)
        return [image_file(path, name, finder.base) for path, name in zip(found, names, strict=True)]

    def _load_files(self, table: Table, split: str, name: str) -> tuple[Dataset, Any]:
        labels, _ = labels_and_files(table)
        targets, class_names = targets_of(labels, table, self.tell, self.config.class_names)
        given = (name, self.config, self.tell)
        if not table.has_more:
            return load_files(self.files(split), targets.tolist(), class_names, *given), slice(None)
        # Numbers of rows for labels: bad files may be skipped, and what else the rows say must follow.
        numbers = [[float(number)] for number in range(len(targets))]
        dataset = load_files(self.files(split), numbers, (), *given)
        rows = dataset.labels[:, 0].astype(np.int64)
        assert dataset.hashes is not None
        fingerprint = combined_fingerprint(dataset.input_shape, dataset.hashes, targets[rows])
        return replace(dataset, labels=targets[rows], class_names=class_names, fingerprint=fingerprint), rows

    def _decode(self, table: Table) -> Decoded:
        targets, class_names = targets_of(pixel_labels(table), table, self.tell, self.config.class_names)
        shape, value_range = _pixel_shape(table, self.config), self._range(table)
        batches = _pixel_batches(table, targets, shape, self.config, value_range)
        notes = [f"numbers are read as levels, {range_text(value_range)}"] if value_range not in (None, LEVELS) else []
        found = (Findings(notes=notes), value_range)
        return Decoded(len(targets), fitted_shape(shape, self.config), class_names, batches, [], [], *found)

    def _range(self, table: Table) -> ValueRange | None:
        """What is black and what is white in a table of pixels, that of the training table; None: they are levels."""
        stated = self.config.levels if isinstance(self.config.levels, tuple) else None
        train = self._training_table(table)
        if stated is None and train is not table:
            stated = LEVELS if train.has_levels else numbers_range(train, None)
        if table.has_levels and stated in (None, LEVELS):
            return None
        return numbers_range(table, stated)

    def _training_table(self, table: Table) -> Table:
        return self.tables.get("train", table)


def open_table(config: DataConfig, tell: Tell) -> TableSource:
    """The table at `config.path`, or the train.csv (validation.csv, test.csv) in that folder.

    A column that says which split a row belongs to divides the table. Only that column and the first lines are read.
    """
    assert config.path is not None
    path = expanded(config.path)
    files = _tables_of(path) if path.is_dir() else {"train": path}
    tables: dict[str, Table] = {}
    for split, file in files.items():
        table = describe(file, config, holds_files=lambda cells, file=file: _name_files(file, cells, config))
        for note in table.notes:
            tell(note)
        if not table.has_labels and split != "train":
            tell(f"{file}: has no column of labels; this split is left out")
            continue
        if not table.has_labels:
            raise InputError(_no_labels(table))
        parts = in_parts(table)
        if len(files) > 1 and table.split is not None and set(parts) != {split}:
            got = f"{file} with rows of {names_text(parts)} in the column {table.columns[table.split]}"
            remedy = "Give the path of that table alone, or remove the column."
            raise InputError(problem("data.path", got, f"rows of {split} alone, as the file is named", remedy))
        tables.update({split: table} if len(files) > 1 else parts)
        _tell_parts(table, parts, tell)
    tables.pop(UNLABELLED, None)
    return TableSource(name_of(path), tables, config, tell)


def listed_pictures(path: Path, tell: Tell) -> list[str] | None:
    """The files that a table names, to be classified, with or without labels; None for a table of pixels.

    A file that is not there is among them, under the path that is written.
    """
    table = describe(path, holds_files=lambda cells: _name_files(path, cells, DataConfig()))
    if table.file is None:
        return None
    for note in table.notes:
        tell(note)
    _, names = labels_and_files(table)
    finder = finder_for(path, names, DataConfig())
    found = [image_file(finder.find(name), name, finder.base).path for name in names]
    tell_how(table, finder, tell)
    return found


def tell_how(table: Table, finder: Finder, tell: Tell) -> None:
    """Says where the files of a table were found, and how many not as they are written."""
    where = [f"files found in {finder.base or '.'}"] if Path(finder.base) != table.path.parent else []
    how = [f"{count:,} found {kind}" for kind, count in finder.counts.most_common()]
    if where or how:
        tell(f"{table.path}: {', '.join([*where, *how])}")


def holds_tables(folder: Path) -> bool:
    """Whether a folder holds a table for training, or tables and no folders."""
    inside = visible_entries(folder)
    names = [path.name.lower() for path in inside]
    if not {"train.csv", "train.tsv"}.isdisjoint(names):
        return True
    return any(map(is_table_name, names)) and not any(path.is_dir() for path in inside)


def is_table_name(name: str) -> bool:
    """Whether a file of this name is taken for a table."""
    return name.lower().endswith(TABLE_ENDINGS)


def read_unlabelled_table(
    path: Path, input_shape: tuple[int, ...], value_range: ValueRange | None = LEVELS
) -> np.ndarray:
    """[n h w c] of a table of pixels to be classified, with or without labels (which are not read).

    uint8, or, where the numbers are no levels by the first rows or `value_range`, which is that of the model's training
    data (None: not levels), float64. Raises InputError unless there are as many pixels a row as the model's input has.
    """
    table = describe(path, num_pixels=prod(input_shape))
    if table.file is not None or table.num_pixels != prod(input_shape):
        got = f"{counted(len(table.columns), 'column')} ({names_text(table.columns)})"
        rule = f"{prod(input_shape):,} columns of pixels, the model's input of {shape_text(input_shape)}"
        raise InputError(problem(str(path), got, rule, "Use a table of that size."))
    dtype = np.uint8 if table.has_levels and value_range == LEVELS else np.float64
    chunks = [parse_pixels(table, lines, first, dtype) for first, lines in row_chunks(table)]
    if not chunks:
        raise InputError(no_rows(table))
    return np.concatenate(chunks).reshape(-1, *input_shape)  # [n hwc] → [n h w c]


def _tables_of(folder: Path) -> dict[str, Path]:
    """The CSV files of a folder by split; one alone is for training."""
    inside = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in (".csv", ".tsv") and path.name[0] != "."
    )
    roles = split_roles(path.stem for path in inside)
    found: dict[str, Path] = {}
    for path in sorted(inside, key=lambda path: (path.stem.lower() not in SPLITS, path)):
        split = roles.get(path.stem)
        if split is None or split == UNLABELLED:
            continue
        if split in found and path.stem.lower() not in SPLITS and found[split].stem.lower() not in SPLITS:
            got, rule = f"{found[split].name} and {path.name} in {folder}", f"one table for the {split} split"
            raise InputError(problem("data.path", got, rule, "Rename one, or give the path of one table."))
        found.setdefault(split, path)
    if "train" not in found and len(inside) == 1:
        return {"train": inside[0]}
    if not found:
        got = f"{folder} with {names_text(tuple(path.name for path in inside)) or 'no tables'}"
        remedy = "Give the path of one table, or rename it."
        raise InputError(problem("data.path", got, "train.csv (and validation.csv, test.csv)", remedy))
    return {split: found[split] for split in SPLIT_ORDER if split in found}


def _pixel_shape(table: Table, config: DataConfig) -> tuple[int, int, int]:
    """(h, w, c) of a row's picture: the size of the config where it is exactly that, else a square."""
    count = table.num_pixels
    if config.height_width is not None:
        height, width = config.height_width
        for channels in (1, 3):
            if count == height * width * channels:
                return height, width, channels
    found = square_shape(count)
    if found is None:
        rule = "as many as a square grey or colour picture has, like 784 (28×28), or as --data.image-size has"
        remedy = "Set --data.image-size to their HEIGHTxWIDTH, or correct the columns."
        raise InputError(problem(str(table.path), f"{count:,} columns of pixels", rule, remedy))
    return found


def _pixel_batches(
    table: Table, indices: np.ndarray, shape: tuple[int, int, int], config: DataConfig, value_range: ValueRange | None
) -> Iterator[DecodedBatch]:
    done, dtype = 0, np.uint8 if value_range is None else np.float64
    for first, lines in row_chunks(table):
        pixels = parse_pixels(table, lines, first, dtype).reshape(-1, *shape)  # [b hwc] → [b h w c]
        pixels = pixels if value_range is None else as_uint8(pixels, value_range)
        yield DecodedBatch(fit_images(pixels, config), indices[done : done + len(pixels)])
        done += len(pixels)


def _name_files(table: Path, cells: list[str], config: DataConfig) -> bool:
    """Whether cells of a table are names of files, most of which are there."""
    finder = finder_for(table, cells, config)
    return 2 * sum(finder.find(cell) is not None for cell in cells) > len(cells)


def _no_labels(table: Table) -> str:
    others = [name for k, name in enumerate(table.columns) if k not in (table.file, table.split, *table.unnamed)]
    got, names = f"{table.path} with the columns {names_text(table.columns)}", ", ".join(others)
    if len(others) > 1 and table.has_header:
        is_short = len(names) < 200
        remedy = f"Set --data.label-column to one of {one_line(names)}" if is_short else "Set --data.label-column"
        remedy += ", or put the class of each row into one column if each of these stands for a class."
    else:
        remedy = NAME_THEM
    return problem("data.path", got, f"columns {COLUMNS}", remedy)


def _tell_parts(table: Table, parts: dict[str, Table], tell: Tell) -> None:
    if table.split is not None:
        aside = "; those without labels are left out" if UNLABELLED in parts else ""
        tell(f"{table.path}: the column {table.columns[table.split]} divides it into {', '.join(parts)}{aside}")

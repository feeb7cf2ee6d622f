"""CSV tables → Source: rows of pixels with a label, or rows of a file name and a label."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from engine.data.arrays import fit_images, fitted_shape
from engine.data.cache import Decoded, DecodedBatch, cached
from engine.data.class_folders import name_of
from engine.data.classes import Names, classes_of
from engine.data.config import DataConfig
from engine.data.dataset import Dataset, names_text
from engine.data.files import cache_entry, file_key, load_files
from engine.data.rows import (
    COLUMNS,
    Table,
    describe,
    labels_and_files,
    no_rows,
    parse_pixels,
    pixel_labels,
    row_chunks,
    square_shape,
)
from engine.data.source import split_title
from engine.data.split_names import SPLIT_ORDER, SPLITS
from engine.data.walk import ImageFile
from engine.errors import InputError, problem, shape_text
from engine.storage import expanded

Tell = Callable[[str], None]


@dataclass(frozen=True)
class TableSource:
    """Tables by split, all of one kind."""

    name: str
    tables: dict[str, Table]
    config: DataConfig
    tell: Tell

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it has; "train" where it is not divided."""
        return tuple(self.tables)

    @property
    def passed_over(self) -> dict[str, int]:
        """Nothing: there is no folder to walk."""
        return {}

    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field` if there is no such split, or file, line and column if bad."""
        name = split_title(self.name, self.tables, split, field)
        table = self.tables[split]
        if table.file is not None:
            return self._load_files(table, name)
        entry = cache_entry(self.config, name, file_key([table.path], self.config, table.label))
        return cached(entry, name, lambda: self._decode(table), self.tell)

    def _load_files(self, table: Table, name: str) -> Dataset:
        labels, names = labels_and_files(table)
        indices, class_names = _classes_of(labels, table)
        files = [_found(table.path.parent, name) for name in names]
        return load_files(files, indices.tolist(), class_names, name, self.config, self.tell)

    def _decode(self, table: Table) -> Decoded:
        indices, class_names = _classes_of(pixel_labels(table), table)
        shape = _pixel_shape(table, self.config)
        batches = _pixel_batches(table, indices, shape, self.config)
        return Decoded(len(indices), fitted_shape(shape, self.config), class_names, batches)


def open_table(config: DataConfig, tell: Tell) -> TableSource:
    """The table at `config.path`, or the train.csv (validation.csv, test.csv) in that folder; only headers are read."""
    assert config.path is not None
    path = expanded(config.path)
    tables: dict[str, Table] = {}
    for split, file in (_tables_of(path) if path.is_dir() else {"train": path}).items():
        table = describe(file)
        if table.label is not None:
            tables[split] = table
        elif split == "train":
            got = f"{file} with the columns {names_text(table.columns)}"
            raise InputError(problem("data.path", got, f"columns {COLUMNS}", "Name the columns in the first line."))
        else:
            tell(f"{file}: has no column of labels; this split is left out")
    return TableSource(name_of(path), tables, config, tell)


def read_unlabelled_table(path: Path, input_shape: tuple[int, ...]) -> np.ndarray:
    """uint8[n h w c] of a table of pixels to be classified, with or without a column of labels (which is not read).

    Raises InputError unless there are as many pixels a row as the model's input has.
    """
    table = describe(path, prod(input_shape))
    if table.file is not None or table.num_pixels != prod(input_shape):
        got = f"{len(table.columns):,} columns ({names_text(table.columns)})"
        rule = f"{prod(input_shape):,} columns of pixels, the model's input of {shape_text(input_shape)}"
        raise InputError(problem(str(path), got, rule, "Use a table of that size."))
    chunks = [parse_pixels(table, lines, first) for first, lines in row_chunks(table)]
    if not chunks:
        raise InputError(no_rows(table))
    return np.concatenate(chunks).reshape(-1, *input_shape)  # [n hwc] → [n h w c]


def _tables_of(folder: Path) -> dict[str, Path]:
    """The CSV files of a folder by split; one alone is for training."""
    inside = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv" and path.name[0] != ".")
    found: dict[str, Path] = {}
    for path in inside:
        if path.stem.lower() in SPLITS:
            found.setdefault(SPLITS[path.stem.lower()], path)
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
    table: Table, indices: np.ndarray, shape: tuple[int, int, int], config: DataConfig
) -> Iterator[DecodedBatch]:
    done = 0
    for first, lines in row_chunks(table):
        pixels = parse_pixels(table, lines, first).reshape(-1, *shape)  # [b hwc] → [b h w c]
        yield DecodedBatch(fit_images(pixels, config), indices[done : done + len(pixels)])
        done += len(pixels)


def _found(folder: Path, name: str) -> ImageFile:
    """A file as it lies there; one that does not is found out when it is decoded."""
    path = os.path.join(folder, name)
    try:
        about = os.stat(path)
    except OSError:
        return ImageFile(path, name, -1, 0)
    return ImageFile(path, name, about.st_size, about.st_mtime_ns)


def _classes_of(labels: list[str], table: Table) -> tuple[np.ndarray, Names]:
    """Labels stay texts, as they are written: 001 and 1 are not the same class."""
    return classes_of(labels, f"{table.path} label")

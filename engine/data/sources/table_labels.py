"""Labels of a CSV table → classes, or numbers for a regression."""

from collections.abc import Callable

import numpy as np

from engine.data.classes.reading import Names, classes_of, read_names
from engine.data.classes.several import mark_labels
from engine.data.decoded.dataset import Dataset, names_text
from engine.data.sources.columns import Table
from engine.data.sources.csv_text import is_number
from engine.data.sources.rows import MARK
from engine.errors import InputError, problem
from engine.text import counted

NO_NUMBERS = {"nan", "inf", "+inf", "-inf", "infinity", "-infinity"}  # as pandas and NumPy write what is missing
LARGEST_TARGET = float(np.finfo(np.float32).max)
REGRESSION = "a regression (--train.loss mean_squared_error)"
Tell = Callable[[str], None]


def targets_of(labels: list[str], table: Table, tell: Tell, listed: Names | None = None) -> tuple[np.ndarray, Names]:
    """(int32[n] indices, class names), or (float32[n d], no names) of numbers with fractions or several columns, or
    (uint8[n k], names) of several labels a picture, which must be among those `listed`, if any are.

    Reports which task it is.
    """
    if table.are_targets:
        numbers = np.array([label.split(MARK) for label in labels], np.float32)
        names = names_text(table.columns[k] for k in table.one_hot)
        tell(f"{table.path}: the columns {names} are {numbers.shape[1]} numbers to predict: {REGRESSION}")
        return numbers, ()
    if table.several:
        columns = read_names([table.columns[k] for k in table.one_hot])
        tell(f"{table.path}: the columns {names_text(columns)} are labels of which a picture may have several")
        return mark_labels([label.split(MARK) if label else [] for label in labels], f"{table.path} label", columns)
    if table.label is None:
        return _of_one_hot(labels, table, tell)
    if table.separator is not None:
        return _of_cells(labels, table, tell, listed)
    _tell_of_separators(labels, table, tell)
    column = table.columns[table.label] if table.has_header else f"column {table.label + 1}"
    numbers = _as_numbers(labels, f"{table.path} {column}")
    if numbers is not None and _is_real(numbers):
        low, high = numbers.min(), numbers.max()
        task = f"numbers from {low:g} to {high:g}: {REGRESSION}"
        tell(f"{table.path}: {column} has {task}")
        return numbers.astype(np.float32)[:, None], ()
    # As they are written (001 and 1 are two classes), but for the fractions that pandas adds to whole numbers.
    has_fractions = any("." in label or "," in label for label in set(labels))
    is_exact = numbers is not None and has_fractions and np.abs(numbers).max() < 2**53
    written = numbers.astype(np.int64) if numbers is not None and is_exact else labels
    indices, names = classes_of(written, f"{table.path} label")
    tell(f"{table.path}: {column} has {counted(len(names), 'class')} ({names_text(names)})")
    return indices, names


def numeric_targets(dataset: Dataset) -> np.ndarray | None:
    """float32[n 1] of the labels as numbers, for a regression; None where they are text, or beyond float32."""
    if dataset.labels.ndim == 2 or not all(map(is_number, dataset.class_names)):
        return None
    numbers = np.array([float(name) for name in dataset.class_names])
    if (np.abs(numbers) > LARGEST_TARGET).any():
        return None
    return numbers.astype(np.float32)[dataset.labels][:, None]


def _of_cells(labels: list[str], table: Table, tell: Tell, listed: Names | None) -> tuple[np.ndarray, Names]:
    """(uint8[n k], names) of cells with any number of labels."""
    lists = [[part.strip() for part in label.split(table.separator) if part.strip()] for label in labels]
    marks, names = mark_labels(lists, f"{table.path} label", listed)
    most, none = marks.sum(1).max(), np.count_nonzero(~marks.any(1))
    empty = f", none in {none:,} rows" if none else ""
    tell(f"{table.path}: {counted(len(names), 'label')} ({names_text(names)}), up to {most} a picture{empty}")
    return marks, names


def _tell_of_separators(labels: list[str], table: Table, tell: Tell) -> None:
    """Reports labels that look like several joined: where all parts are labels by themselves, too."""
    known = set(labels)
    for separator in "|;,":
        joined = sorted(label for label in known if separator in label)
        parts = {part.strip() for label in joined for part in label.split(separator)}
        if joined and parts <= known:
            how = f"--data.label-separator '{separator}' reads them so"
            tell(f"warning: {table.path}: labels like {joined[0]} look like several labels a picture; {how}")


def _of_one_hot(labels: list[str], table: Table, tell: Tell) -> tuple[np.ndarray, Names]:
    """(int32[n] indices, the names of the columns in their order), as one-hot labels in arrays are read."""
    columns = tuple(table.columns[k] for k in table.one_hot)
    indices, names = classes_of(labels, f"{table.path} label", columns)
    tell(f"{table.path}: the columns {names_text(columns)} are one-hot labels of {len(names):,} classes")
    return indices, names


def _as_numbers(labels: list[str], where: str) -> np.ndarray | None:
    """float64[n] if all labels are numbers, with a decimal comma perhaps; None if one is not.

    Raises InputError, naming the place, for numbers that are none or too large for float32.
    """
    distinct = {label: label.replace(",", ".") for label in set(labels)}
    others = {label for label, number in distinct.items() if not is_number(number)}
    if others and (len(others) == len(distinct) or any(label.lower() not in NO_NUMBERS for label in others)):
        return None
    numbers = np.array([float(distinct[label]) for label in labels])
    # As classes numbers are names, of any size.
    bad = ~np.isfinite(numbers) | (np.abs(numbers) > LARGEST_TARGET if _is_real(numbers) else False)
    if bad.any():
        got = f"{np.count_nonzero(bad):,} of {len(labels):,} labels like {labels[int(bad.argmax())][:40]}"
        raise InputError(problem(where, got, "numbers, because the others are", "Correct or remove these rows."))
    return numbers


def _is_real(numbers: np.ndarray) -> bool:
    return bool((numbers != np.round(numbers)).any())

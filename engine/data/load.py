"""A data config → the splits of a run."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.config.data import DataConfig
from engine.data.arrays.stored import StoredImages
from engine.data.classes.labels import targets_for_classes
from engine.data.classes.names import Names
from engine.data.decoded.dataset import Dataset, Splits, num_shared, split_by_fraction
from engine.data.in_memory import as_targets
from engine.data.options import Kind, check_taken
from engine.data.sources.array_files import open_arrays
from engine.data.sources.as_keras import split_as_keras
from engine.data.sources.folder import open_folder
from engine.data.sources.source import Source
from engine.data.sources.table import is_table_name, open_table
from engine.data.sources.tfds import TfdsSource
from engine.data.sources.tfds_prepared import is_prepared
from engine.errors import InputError, problem, remedy_for
from engine.host.console import show
from engine.host.storage import expanded, is_web_address, names_like

ARRAY_ENDINGS = (".npy", ".npz", "-ubyte", "-ubyte.gz")
Tell = Callable[[str], None]
ClassOrder = Callable[[Names], Names]


def as_they_are(class_names: Names) -> Names:
    """The class order of a new run: that of the data."""
    return class_names


def open_source(config: DataConfig, tell: Tell = show) -> Source:
    """What the config names: the data at `path`, by what lies there, or the tfds builder `name`."""
    kind = kind_of(config)
    check_taken(config, kind)
    with _told_of_files():
        return _OPENERS[kind](config, tell)


def kind_of(config: DataConfig) -> Kind:
    """What kind of data the config names; raises InputError if it is none that is known."""
    if config.path is None:
        return "tfds"
    path = expanded(config.path)
    if not os.path.exists(path):  # and not Path.exists, which raises for names that are too long
        near = ", ".join(str(other) for other in names_like(path))
        remedy = f"Did you mean {near}?" if near else "Correct the path; relative ones start at the working directory."
        if is_web_address(path):
            remedy = "Download it first, and give the path of the file."
        raise InputError(problem("data.path", path, "a folder or file that exists", remedy))
    if path.is_dir():
        with _told_of_files():
            return _kind_in(path)
    if not path.is_file():
        raise InputError(problem("data.path", f"{path}, a pipe or device", "a folder or file", "Correct the path."))
    if is_table_name(path.name):
        return "table"
    if path.name.lower().endswith(ARRAY_ENDINGS):
        return "arrays"
    rule = "a folder of images, a table (.csv), arrays (.npz, .npy, IDX files), or data that tfds prepared"
    raise InputError(problem("data.path", path, rule, "Name one of these."))


def _kind_in(path: Path) -> Kind:
    """What a folder holds: by the data files right in it, unless it has folders that hold images beside them."""
    if is_prepared(path):
        return "tfds"
    inside = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    names = [entry.name.lower() for entry in inside]
    has_folders = any(entry.is_dir() for entry in inside)
    if not {"train.csv", "train.tsv"}.isdisjoint(names) or (not has_folders and any(map(is_table_name, names))):
        return "table"
    if not has_folders and any(name.endswith(ARRAY_ENDINGS) for name in names):
        return "arrays"
    return "folder"


@contextlib.contextmanager
def _told_of_files() -> Iterator[None]:
    """Turns what the system says of a file or folder, like that it may not be read, into one sentence."""
    try:
        yield
    except OSError as error:
        where, reason = str(error.filename or "data.path"), error.strerror or str(error)
        remedy = remedy_for(error, "Correct it.")
        raise InputError(problem(where, reason, "a folder or file that can be read", remedy)) from None


_OPENERS: dict[Kind, Callable[[DataConfig, Tell], Source]] = {
    "folder": open_folder,
    "table": open_table,
    "arrays": open_arrays,
    "tfds": TfdsSource,
}


def load_splits(config: DataConfig, seed: int, tell: Tell = show, classes: ClassOrder = as_they_are) -> Splits:
    """Training, validation and test data as the config says; `seed` draws the validation share.

    classes: the class names, in order, that training data with these names is given: those of a run to resume.
    """
    tell = _once(tell)
    source = open_source(config, tell)
    train = source.load(config.split, "data.split")
    if config.levels is None and train.levels is not None:  # what was guessed of it holds for the others
        source = open_source(replace(config, levels=train.levels), tell)
    train = train.in_classes(classes(train.class_names), "the run", tell)
    validation_split = config.validation_split
    if validation_split is None and config.path is not None and "validation" in source.split_names:
        validation_split = "validation"
    if validation_split:
        validation = source.load(validation_split, "data.validation_split")
        validation = validation.in_classes(train.class_names, train.name, tell)
    elif config.split_as == "keras":
        train, validation = split_as_keras(train, config.validation_fraction, seed)
    else:
        train, validation = split_by_fraction(train, config.validation_fraction, seed, config.stratified)
    test = None
    if config.test_split and (config.test_split != "test" or "test" in source.split_names):
        test = source.load(config.test_split, "data.test_split").in_classes(train.class_names, train.name, tell)
    train, validation, test = _of_one_task(train, validation, test)
    splits = Splits(train, validation, test, source.passed_over)
    _warn_of_duplicates(splits, tell)
    return splits


def _of_one_task(*parts: Dataset | None) -> tuple[Any, ...]:
    """The parts, all with numbers for targets where those of one have fractions, as whole numbers may be amounts."""
    if all(part is None or part.class_names for part in parts):
        return parts
    return tuple(None if part is None else as_targets(part) for part in parts)


def load_splits_intact(config: DataConfig, seed: int, tell: Tell = show, classes: ClassOrder = as_they_are) -> Splits:
    """As `load_splits`, for a run that is resumed: every decoded image is compared with its hash, and all are decoded
    again if one differs.
    """
    splits = load_splits(config, seed, tell, classes)
    stored = [split.images for split in splits.named.values() if isinstance(split.images, StoredImages)]
    damaged = {images.path: images for images in stored if not images.is_intact()}
    for path, images in damaged.items():
        tell(f"{path.parent}: the decoded images are not as they were written; decoding them again")
        images.remove()
    return load_splits(config, seed, tell, classes) if damaged else splits


def _once(tell: Tell) -> Tell:
    """Reports each text the first time only: data may be opened twice."""
    told = set[str]()

    def once(text: str) -> None:
        if text not in told:
            told.add(text)
            tell(text)

    return once


def _warn_of_duplicates(splits: Splits, tell: Tell) -> None:
    """Tells how many held-out images are also trained on, which makes what is measured on them too good."""
    for name, held_out in (("validation", splits.validation), ("test", splits.test)):
        count = num_shared(splits.train, held_out) if held_out is not None else 0
        if held_out is not None and count:
            tell(f"warning: {count:,} of the {len(held_out):,} {name} images are also among the training images")


def skipped_files(splits: Splits) -> list[str]:
    """ "path: reason" of every file that was left out, each once."""
    return sorted({line for split in splits.named.values() for line in split.skipped})


def num_outputs(config: RunConfig, train: Dataset) -> int:
    """How many outputs the loss needs for this data; raises InputError if the two do not go together."""
    loss, classes = config.train.loss, train.num_classes
    if loss == "mean_squared_error":
        if classes or train.labels.ndim != 2:
            got = f"{loss} with {classes} classes" if classes else f"targets of rank {train.labels.ndim}"
            remedy = "Use softmax_cross_entropy for classes, or give engine.fit the numbers: (images, targets)."
            raise InputError(problem("train.loss", got, "float targets [n d]", remedy))
        return train.labels.shape[1]
    if not classes:
        raise InputError(targets_for_classes(train.labels, f"labels of {train.name}", loss))
    if loss == "binary_cross_entropy":
        if classes != 2:
            rule = "2 classes"
            raise InputError(problem("train.loss", f"{loss} with {classes}", rule, "Use softmax_cross_entropy."))
        return 1
    return classes

"""A data config → the splits of a run."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import RunConfig
from engine.console import show
from engine.data.arrays import open_arrays
from engine.data.as_keras import split_as_keras
from engine.data.config import FITTED, DataConfig
from engine.data.dataset import Dataset, Splits, num_shared, split_by_fraction
from engine.data.fitting import channel_statistics
from engine.data.folder import open_folder
from engine.data.images import InputSpec
from engine.data.in_memory import as_targets
from engine.data.labels import targets_for_classes
from engine.data.levels import to_levels
from engine.data.names import Names
from engine.data.options import Kind, check_taken
from engine.data.prepared import is_prepared
from engine.data.ranges import check_like_training, check_not_raw, check_same_range, converting, deep_range, range_of
from engine.data.source import Source
from engine.data.stored import StoredImages
from engine.data.table import is_table_name, open_table
from engine.data.tfds_source import TfdsSource
from engine.errors import InputError, problem, remedy_for, shape_text
from engine.storage import expanded, is_web_address, names_like

ARRAY_ENDINGS = (".npy", ".npz", "-ubyte", "-ubyte.gz")
LEAST_STD = 1e-6  # of a channel that never changes
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


def input_spec(config: DataConfig, dataset: Dataset) -> InputSpec:
    """The input contract of a model trained on `dataset` under `config`; fits mean and std where that is asked for."""
    is_uint8 = dataset.images.dtype == "uint8"
    if config.standardize in FITTED and not is_uint8:
        rule = "uint8 images to fit it on"
        raise InputError(problem("data.standardize", f"{config.standardize} of float inputs", rule, "Leave it out."))
    mean, std = config.mean, config.std
    if config.standardize in ("dataset", "dataset_center"):
        level_mean, level_std = channel_statistics(dataset)
        mean = tuple(float(m) * config.scale for m in level_mean)
    if config.standardize == "dataset":
        std = tuple(max(float(s) * config.scale, LEAST_STD) for s in level_std)
    return InputSpec(
        shape=dataset.input_shape,
        dtype=dataset.images.dtype.name,
        resize=config.resize if config.image_size else None,
        scale=config.scale if is_uint8 else 1.0,
        mean=mean,
        std=std,
        background=config.background,
        per_example=config.standardize == "example",
        center_crop=config.crop_height_width,
        center_example=config.standardize == "example_center",
        whiten=config.standardize in ("whiten", "zca"),
        color=config.color if is_uint8 else None,
        interpolation=config.interpolation,
        antialias=config.antialias,
        levels=config.levels or dataset.levels or deep_range(dataset.value_range),
        max_pixels=config.max_pixels,
        value_range=dataset.value_range if is_uint8 else dataset.extremes,
    )


def check_inputs(dataset: Dataset, spec: InputSpec, whose: str) -> None:
    """Raises InputError, showing both sides, unless a dataset has the shape, type and scale of an input contract."""
    if dataset.input_shape != tuple(spec.shape):
        got, rule = f"images of {shape_text(dataset.input_shape)}", f"{shape_text(spec.shape)}, {whose}"
        remedy = "Use data of that size, or set data.image_size to it."
        if dataset.input_shape[:-1] == tuple(spec.shape)[:-1]:
            remedy = "Use data of as many channels, or set data.color: in arrays np.repeat(images, 3, -1) of grey ones."
        raise InputError(problem(dataset.name, got, rule, remedy))
    dtype = dataset.images.dtype.name
    if dtype != spec.dtype:
        rule = f"{spec.dtype}, {whose}"
        found = range_of(np.asarray(dataset.images), f"{dataset.name} images")
        is_uint8 = spec.dtype == "uint8"
        remedy = to_levels(found) if is_uint8 else converting(spec.dtype, found, spec.value_range)
        raise InputError(problem(dataset.name, f"{dtype} images", rule, remedy))
    if dataset.extremes is not None and spec.value_range is not None:
        check_like_training(dataset.extremes, spec.value_range, f"{dataset.name} images", dtype, len(dataset))
    if dataset.value_range is None and isinstance(dataset.images, np.ndarray):
        check_not_raw(dataset.images, spec.value_range, f"{dataset.name} images")
    check_same_range(dataset.value_range, spec.value_range, dataset.name, "as in training")


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

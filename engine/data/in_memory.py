"""Arrays in memory → Dataset: reads the arrays given to `fit`, `finetune`, `evaluate` and `engine.dataset`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.config.data import Layout
from engine.config.decoding import ValueRange
from engine.config.scoring import Task, takes_numbers, takes_several
from engine.data.arrays.axes import channels_last
from engine.data.arrays.given import plain_array
from engine.data.classes.labels import are_targets, read_classes, read_targets
from engine.data.classes.names import Names, check_printable
from engine.data.classes.reading import classes_of, read_names
from engine.data.classes.several import are_class_shares, normalize_shares, read_several, read_shares
from engine.data.decoded.dataset import Dataset, Splits, fingerprint_of
from engine.data.pictures.ranges import as_uint8, check_not_raw, doubts_of, levels_range, parts_of, range_of, range_text
from engine.errors import InputError, Say, problem
from engine.host.console import tell
from engine.records.custom import Custom
from engine.text import counted

ClassNames = Sequence[str] | Mapping[Any, Any]
Arrays = tuple[Any, Any, Any]  # images, labels, and weights or None


@dataclass(frozen=True)
class Reading:
    """How arrays are read beyond what they say themselves.

    value_range: what is black and what white in images other than uint8, which then become levels.
    usual_range: the same where it is not stated: that of the training images. layout: where the channels are.
    are_targets: the labels are numbers to be predicted, as mean_squared_error needs them; None: as they look.
    are_several: columns of 0 and 1 are several labels a picture, also with one 1 a row; None: as they look.
    of: what errors call these arrays, like "validation ".
    """

    value_range: ValueRange | None = None
    usual_range: ValueRange | None = None
    layout: Layout = "auto"
    are_targets: bool | None = None
    are_several: bool | None = None
    of: str = ""


def dataset(
    images: Any,
    labels: Any,
    class_names: ClassNames | None = None,
    name: str = "arrays",
    *,
    weights: Any = None,
    value_range: ValueRange | None = None,
    layout: Layout = "auto",
) -> Dataset:
    """A Dataset of arrays, of NumPy, JAX, PyTorch or pandas, or lists; what is converted is printed.

    images: [n h w c], [n h w], [n c h w] or vectors [n d]. uint8 is from 0 to 255; other whole numbers and truth values
      become uint8 by their range; floats are fed to the model unchanged, unless `value_range` is given.
    labels: class numbers [n] or [n 1] (also as floats or truth values), texts, or one-hot [n k]; several labels a
      picture, 0 or 1 in columns [n k] or a list of labels for each; or float targets [n] or [n d] of a regression.
    class_names: a list that numbers are indices into, or {label: name}; by default each label that occurs is a class
      of that name, and so is each column of one-hot labels.
    weights: numbers [n] of 0 or more, how much each example counts in the loss and in metrics; None: all the same.
    value_range: what is black and what white, like (0, 4095).
    layout: where the channels are; auto: last, or first where the shape leaves no doubt.
    Raises InputError for anything else, saying what it is taken for.
    """
    return read_dataset((images, labels, weights), class_names, name, Reading(value_range, layout=layout), tell)


def read_dataset(arrays: Arrays, class_names: ClassNames | None, name: str, reading: Reading, say: Say) -> Dataset:
    """As `dataset`, with what is known of the arrays; `say` gets a line for all that is converted."""
    images, labels, weights = arrays
    field = f"{reading.of}weights"
    weights = None if weights is None else _one_axis(plain_array(weights, field))
    return _read_unweighted(images, labels, class_names, name, reading, say).weighted(weights, field)


def _one_axis(values: np.ndarray) -> np.ndarray:
    """[n 1] as [n], as data frames give a column."""
    return values[:, 0] if values.shape[1:] == (1,) else values


def _read_unweighted(
    images: Any, labels: Any, class_names: ClassNames | None, name: str, reading: Reading, say: Say
) -> Dataset:
    if class_names is not None and not isinstance(class_names, Mapping):
        class_names = read_names(class_names)
    pixels, value_range = read_images(images, f"{reading.of}images", reading, say)
    field = f"{reading.of}labels"
    is_open = reading.are_targets is None
    has_several = is_open and read_several(labels, field, reading.are_several, class_names) is not None
    shares = None if has_several else _read_shares(labels, field, class_names, reading)
    has_targets = not has_several and shares is None and are_targets(labels, field) if is_open else reading.are_targets
    if has_targets:
        if class_names is not None:
            raise InputError(
                problem("class_names", "names", f"none, because the {field} are numbers", "Leave them out.")
            )
        targets = read_targets(labels, field)
        _check_counts(pixels, targets, reading)
        return Dataset(pixels, targets, (), name, fingerprint_of(pixels, targets), value_range=value_range)
    several = read_several(labels, field, reading.are_several, class_names)
    several = several or shares
    indices, names = several or _indices(labels, class_names, field)
    _check_counts(pixels, indices, reading)
    if several:
        if reading.are_several and len(names) > 1 and (indices.sum(axis=1) == 1).all():
            say(f"{field}: each has one of {len(names)} labels; trained as several labels a picture, as the loss asks")
        found = {"value_range": value_range, "targets": indices.astype(np.float32)}
        return Dataset(pixels, indices, names, name, fingerprint_of(pixels, indices), **found)
    given = plain_array(labels, field)
    are_counts = given.dtype.kind in "iu" and class_names is None and given.size == len(given)
    targets = read_targets(given, field) if given.dtype.kind == "f" or are_counts else None
    return Dataset(
        pixels, indices, names, name, fingerprint_of(pixels, indices), value_range=value_range, targets=targets
    )


def _read_shares(
    labels: Any, field: str, class_names: ClassNames | None, reading: Reading
) -> tuple[np.ndarray, Names] | None:
    """Soft labels and the names of their classes, where the loss or class names say that these are classes."""
    is_asked = reading.are_targets is False or (reading.are_targets is None and class_names is not None)
    if not is_asked or isinstance(class_names, Mapping):
        return None
    found = read_shares(labels, field)
    if found is None or class_names is None:
        return found
    if len(class_names) != len(found[1]):
        rule = f"{len(found[1])}, one for each column of {field}"
        raise InputError(problem("class_names", f"{len(class_names)} names", rule, "Give as many."))
    names = read_names(class_names)
    check_printable(names, "class_names")
    return found[0], names


def read_images(given: Any, field: str, reading: Reading, say: Say) -> tuple[np.ndarray, ValueRange | None]:
    """(uint8[n h w c] or [n d], or float32[n …]; what was black and white where levels were made of other numbers)."""
    images = _stacked(plain_array(given, field), field)
    if images.dtype.kind not in "buif":
        is_text = images.dtype.kind in "USTO"
        remedy = "Pass pixels. Of files make a table with the columns path and label, and pass its path."
        got = "text" if is_text else images.dtype.name
        raise InputError(problem(field, got, "arrays of pixels", remedy if is_text else "Convert them to numbers."))
    if images.ndim < 2:
        raise InputError(problem(field, f"rank {images.ndim}", "[n h w c], [n h w] or [n d]", "Reshape them."))
    if 0 in images.shape[1:]:
        raise InputError(problem(field, f"shape {images.shape}", "at least one value each", "Check the arrays."))
    images = channels_last(images, field, reading.layout, say)
    stated = reading.value_range if reading.value_range is not None or images.dtype == np.uint8 else reading.usual_range
    if images.dtype == np.uint8 and stated is None:
        check_not_raw(images, reading.usual_range, field)
        if len(images) and images.ndim == 4:
            _say_doubts((0.0, float(images.max())), images.dtype, field, say)
        return images, None
    if images.dtype.kind == "f" and stated is None:
        return _float32(images, field, say), None
    found = levels_range(images, field, stated)
    if found != (0, 255):
        say(f"{field}: {images.dtype} is read as levels, {range_text(found)}")
    return _levels(images, found), found


def unpack_arrays(given: Any, field: str, rule: str) -> Arrays:
    """(images, labels, weights or None) of a tuple or list of these two or three.

    Raises InputError, with what is taken instead, for others.
    """
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise InputError(problem(field, type(given).__name__, rule, "Pass one of these."))
    if all(isinstance(part, tuple) and len(part) == 2 for part in given):
        got = "two pairs, ((x_train, y_train), (x_test, y_test))"
        remedy = "Pass the first, and evaluate on the second: result.evaluate(engine.dataset(x_test, y_test))."
        raise InputError(problem(field, got, rule, remedy))
    return given[0], given[1], given[2] if len(given) == 3 else None


def _stacked(images: np.ndarray, field: str) -> np.ndarray:
    """Images in an array of Python objects as one array of numbers."""
    if images.dtype != object:
        return images
    try:
        return np.array(images.tolist()) if images.ndim > 1 else np.stack([plain_array(one, field) for one in images])
    except ValueError as error:
        raise InputError(problem(field, str(error), "examples of one shape", "Make them equal in size.")) from None


def _float32(images: np.ndarray, field: str, say: Say) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = images.astype(np.float32, copy=False)
    if len(values):
        found = range_of(values, field)
        if values.ndim == 4:
            _say_doubts(found, images.dtype, field, say)
    return values


def _levels(images: np.ndarray, value_range: ValueRange) -> np.ndarray:
    levels = np.empty(images.shape, np.uint8)
    for part in parts_of(images):
        levels[part] = as_uint8(images[part], value_range)
    return levels


def _say_doubts(found: ValueRange, dtype: np.dtype, field: str, say: Say) -> None:
    if doubts := doubts_of(found, dtype):
        say(f"warning: {field}: {doubts}")


def _indices(labels: Any, class_names: ClassNames | None, field: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """int32[n] and the class names: those given, those that come with the labels, or those made of them."""
    read = read_classes(labels, field)
    columns = read.names or ()
    if columns and class_names is None:  # the labels are numbers of columns
        return read.values.astype(np.int32), columns
    is_named = columns != tuple(map(str, range(len(columns))))
    if is_named and set(columns) & set(read_names(tuple(class_names or ()))):
        return classes_of(np.array(columns)[read.values], field, class_names)
    if columns and isinstance(class_names, Sequence) and len(class_names) != len(columns):
        got, rule = f"one-hot {field} of {len(columns)} columns", f"{len(class_names)}, one a class"
        raise InputError(problem(field, got, rule, "Encode all classes, or correct class_names."))
    return classes_of(read.values, field, class_names)


def _check_counts(images: np.ndarray, labels: np.ndarray, reading: Reading) -> None:
    """Raises InputError unless there are as many labels as images, naming the axis that has as many."""
    if len(images) == len(labels):
        return
    got = f"{counted(len(images), f'{reading.of}image')} and {counted(len(labels), 'label')}"
    remedy = "Check how they were read."
    if images.ndim == 4 and images.shape[-1] == len(labels):
        remedy = "If the examples are the last axis: np.moveaxis(images, -1, 0)."
    raise InputError(problem(reading.of.strip() or "arrays", got, "as many of each", remedy))


def as_task(data: Dataset, task: Task) -> Dataset:
    """The dataset with its labels as a task takes them, where they can be; itself where they are so, or cannot.

    Of a regression the floats they were given as; of several labels the class of each; for classes, shares of these
    that were taken for targets.
    """
    if task == "numbers" and data.class_names and data.targets is not None:
        return replace(data, labels=data.targets, class_names=(), targets=None)
    if task == "labels" and data.task == "classes" and data.num_classes > 2:
        labels = (data.class_numbers[:, None] == np.arange(data.num_classes)[None]).astype(np.uint8)
        return replace(data, labels=labels)
    if task == "classes" and data.task == "numbers" and are_class_shares(data.labels):
        names = tuple(map(str, range(data.labels.shape[1])))
        return replace(data, labels=normalize_shares(data.labels), class_names=names, targets=data.labels)
    return data


def fitting(splits: Splits, loss: str | Custom, known: Task | None = None) -> Splits:
    """The splits with labels as a loss takes them, where they can be.

    known: what the run to resume or to start from predicts; if several labels, a class is the one label of its picture.
    """
    if known == "labels" and takes_several(loss) is not False:
        task = "labels"
    elif isinstance(loss, Custom):
        task = splits.train.task
    elif takes_numbers(loss):
        task = "numbers"
    else:
        task = "labels" if takes_several(loss) and splits.train.task == "labels" else "classes"
    named = splits.named
    converted = {name: as_task(part, task) for name, part in named.items()}
    if all(part is named[name] for name, part in converted.items()):
        return splits
    return replace(splits, **converted)

"""A data config → the splits of a run."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.config import RunConfig
from engine.config.data import DataConfig
from engine.config.named import name_of
from engine.config.scoring import loss_facts
from engine.data.arrays.stored import StoredImages
from engine.data.classes.labels import SEVERAL, targets_for_classes
from engine.data.classes.names import Names
from engine.data.decoded.dataset import Dataset, Splits, num_shared, split_by_fraction
from engine.data.in_memory import as_task
from engine.data.kinds import open_source
from engine.data.sources.as_keras import split_as_keras
from engine.errors import InputError, Say, problem
from engine.host.console import show

ClassOrder = Callable[[Names], Names]


def as_they_are(class_names: Names) -> Names:
    """The class order of a new run: that of the data."""
    return class_names


def load_splits(config: DataConfig, seed: int, say: Say = show, classes: ClassOrder = as_they_are) -> Splits:
    """Training, validation and test data as the config says; `seed` draws the validation share.

    classes: the class names, in order, that training data with these names is given: those of a run to resume.
    """
    say = _once(say)
    source = open_source(config, say)
    train = source.load(config.split, "data.split")
    is_guessed = config.levels is None and train.levels is not None
    if is_guessed and config.source is None:  # what was guessed of it holds for the others
        source = open_source(replace(config, levels=train.levels), say)
    train = train.in_classes(classes(train.class_names), "the run", say)
    validation_split = config.validation_split
    if validation_split is None and config.path is not None and "validation" in source.split_names:
        validation_split = "validation"
    if validation_split:
        validation = source.load(validation_split, "data.validation_split")
        validation = validation.in_classes(train.class_names, train.name, say)
    elif config.split_as == "keras":
        train, validation = split_as_keras(train, config.validation_fraction, seed)
    else:
        train, validation = split_by_fraction(train, config.validation_fraction, seed, config.stratified)
    test = None
    if config.test_split and (config.test_split != "test" or "test" in source.split_names):
        test = source.load(config.test_split, "data.test_split").in_classes(train.class_names, train.name, say)
    train, validation, test = _of_one_task(train, validation, test)
    splits = Splits(train, validation, test, source.passed_over)
    _warn_of_duplicates(splits, say)
    return splits


def _of_one_task(*parts: Dataset | None) -> tuple[Any, ...]:
    """The parts, all with numbers for targets where those of one have fractions, as whole numbers may be amounts."""
    if all(part is None or part.class_names for part in parts):
        return parts
    return tuple(None if part is None else as_task(part, "numbers") for part in parts)


def load_splits_intact(config: DataConfig, seed: int, say: Say = show, classes: ClassOrder = as_they_are) -> Splits:
    """As `load_splits`, for a run that is resumed: every decoded image is compared with its hash, and all are decoded
    again if one differs.
    """
    splits = load_splits(config, seed, say, classes)
    stored = [split.images for split in splits.named.values() if isinstance(split.images, StoredImages)]
    damaged = {images.path: images for images in stored if not images.is_intact()}
    for path, images in damaged.items():
        say(f"{path.parent}: the decoded images are not as they were written; decoding them again")
        images.remove()
    return load_splits(config, seed, say, classes) if damaged else splits


def _once(say: Say) -> Say:
    """Reports each text the first time only: data may be opened twice."""
    reported = set[str]()

    def once(text: str) -> None:
        if text not in reported:
            reported.add(text)
            say(text)

    return once


def _warn_of_duplicates(splits: Splits, say: Say) -> None:
    """Reports how many held-out images are also trained on, which makes the scores on them too good."""
    for name, held_out in (("validation", splits.validation), ("test", splits.test)):
        count = num_shared(splits.train, held_out) if held_out is not None else 0
        if held_out is not None and count:
            say(f"warning: {count:,} of the {len(held_out):,} {name} images are also among the training images")


def skipped_files(splits: Splits) -> list[str]:
    """ "path: reason" of every file that was left out, each once."""
    return sorted({line for split in splits.named.values() for line in split.skipped})


def num_outputs(config: RunConfig, train: Dataset) -> int:
    """How many outputs the loss needs for this data; raises InputError if the two do not go together."""
    classes, loss = train.num_classes, name_of(config.train.loss)
    activation = loss_facts(config.train.loss, train.task).activation
    if activation == "linear":
        if classes or train.labels.ndim != 2:
            got = f"{loss} with {classes} classes" if classes else f"targets of rank {train.labels.ndim}"
            remedy = "Use softmax_cross_entropy for classes, or give engine.fit the numbers: (images, targets)."
            raise InputError(problem("train.loss", got, "float targets [n d]", remedy))
        return train.labels.shape[1]
    if not classes:
        raise InputError(targets_for_classes(train.labels, f"labels of {train.name}", loss))
    if train.task == "labels" and activation != "sigmoids":
        got, rule = f"{loss} with several labels a picture", "a loss for these"
        raise InputError(problem("train.loss", got, rule, SEVERAL))
    if activation == "sigmoid":
        if train.labels.ndim == 2:
            got, remedy = f"{loss} with shares of classes (soft labels)", "Use softmax_cross_entropy."
            raise InputError(problem("train.loss", got, "a loss that takes these", remedy))
        if classes != 2:
            rule = "2 classes"
            raise InputError(problem("train.loss", f"{loss} with {classes}", rule, "Use softmax_cross_entropy."))
        return 1
    return classes

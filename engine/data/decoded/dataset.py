"""Dataset and Splits: every source of data is decoded into these."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from engine.config.decoding import ValueRange
from engine.config.scoring import Task
from engine.data.arrays.stored import StoredImages, image_hashes
from engine.data.classes.matching import match
from engine.data.classes.names import Names, names_text
from engine.data.classes.reading import read_names
from engine.data.decoded.groups import draw_groups, number_groups
from engine.data.decoded.shown import ShownDataset, ShownSplits
from engine.data.pictures.ranges import check_like_training, check_same_range, range_of
from engine.errors import InputError, problem, shape_text
from engine.host.console import tell
from engine.text import counted


@dataclass(frozen=True, eq=False)
class Dataset(ShownDataset):
    """Examples with their targets.

    images: uint8[n h w c], in memory or in a file; or float32[n …] for inputs that are not pictures.
    labels: int32[n], indices into class_names; uint8[n k] where pictures have several of the labels class_names, 1 for
      those they have; float32[n k], shares of the classes; or, without class_names, targets float32[n d].
    fingerprint: hash of the content (for a share drawn from it, of the whole), the same on every machine.
    hashes: uint64[n] of each image's content, where they are known.
    skipped: "path: reason" of files left out because they could not be read; of a share set aside, none.
    notes: what reading them guessed, for the user to know.
    levels: what was taken for black and for white in pictures of more than 8 bits that do not say it.
    value_range: (black, white) of the numbers in arrays that the levels were made of; None where they were uint8.
    several_frames: how many pictures hold frames or pages beside the one that is read; of a share set aside, 0.
    targets: float32[n d], the labels as they were given, where numbers were read as class labels; for a regression.
    groups: int32[n], examples of one group (a patient, a burst of pictures) stay together where folds are made.
    weights: float32[n], how much each example counts in the loss and in metrics; None: all the same. Set by `weighted`.
    """

    images: np.ndarray | StoredImages
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    fingerprint: str
    hashes: np.ndarray | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    levels: ValueRange | None = None
    value_range: ValueRange | None = None
    targets: np.ndarray | None = None
    several_frames: int = 0
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None

    def __post_init__(self):
        if len(self.images) == 0:
            raise InputError(problem(self.name, "0 examples", "at least one", "Choose another split or folder."))
        if len(self.images) != len(self.labels):
            counts = f"{counted(len(self.images), 'image')} and {counted(len(self.labels), 'label')}"
            raise InputError(problem(self.name, counts, "as many of each", "Check how they were read."))
        object.__setattr__(self, "class_names", read_names(self.class_names) if self.class_names else ())
        if self.class_names:
            _check_labels(self.name, self.labels, len(self.class_names))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.images.shape[1:])

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 for a regression."""
        return len(self.class_names)

    @property
    def task(self) -> Task:
        """What is predicted of an example: one of the classes, any of the labels, or the numbers of a regression."""
        if not self.class_names:
            return "numbers"
        return "labels" if self.labels.ndim == 2 and self.labels.dtype == np.uint8 else "classes"

    @property
    def class_numbers(self) -> np.ndarray:
        """int[n]: the class of each example, of shares the largest."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(1)

    @property
    def class_counts(self) -> np.ndarray:
        """int64[k]: how many examples each class or label has; empty for a regression."""
        if self.task == "labels":
            return self.labels.sum(0, dtype=np.int64)
        return (
            np.bincount(self.class_numbers, minlength=self.num_classes) if self.class_names else np.zeros(0, np.int64)
        )

    @cached_property
    def extremes(self) -> ValueRange | None:
        """(the least, the largest) value of float32 pictures; None for levels and for vectors."""
        if self.images.dtype == "uint8" or len(self.input_shape) != 3:
            return None
        return range_of(np.asarray(self.images), f"{self.name} images")

    def in_classes(self, class_names: Names, owner: str, say: Callable[[str], None] = tell) -> "Dataset":
        """The same examples with labels as indices into other class names, those of `owner`, matched by name.

        Guesses are reported. Raises InputError for examples of a class that is not among them. A regression, or one
        of a regression, stays as it is.
        """
        if self.class_names == class_names or not (self.class_names and class_names):
            return self
        found = match(self.class_names, class_names, self.name, owner, (self.class_counts > 0).tolist())
        if found.note:
            say(found.note)
        if self.labels.ndim == 1:
            return self.relabelled(found.positions[self.labels], class_names)
        labels, is_known = np.zeros((len(self), len(class_names)), self.labels.dtype), found.positions >= 0
        labels[:, found.positions[is_known]] = self.labels[:, is_known]
        return self.relabelled(labels, class_names)

    def relabelled(self, labels: np.ndarray, class_names: Names) -> "Dataset":
        """The same examples with other labels, indices into `class_names`."""
        fingerprint = self.fingerprint
        if self.hashes is not None and not np.array_equal(labels, self.labels):
            fingerprint = combined_fingerprint(self.input_shape, self.hashes, labels, self.weights)
        return replace(self, labels=labels, class_names=class_names, fingerprint=fingerprint)

    def weighted(self, weights: np.ndarray | None, field: str = "weights") -> "Dataset":
        """The same examples with how much each counts, numbers [n] of 0 or more; raises InputError for others."""
        if weights is None:
            return self
        weights = np.asarray(weights)
        if weights.shape != (len(self),) or weights.dtype.kind not in "biuf":
            got, rule = f"{weights.dtype.name} of {shape_text(weights.shape)}", f"{len(self):,} numbers, one an example"
            raise InputError(problem(field, got, rule, "Give a number of 0 or more for each."))
        bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0) & (weights <= np.finfo(np.float32).max)))
        if len(bad):
            at, rule = f"{field} of example {bad[0]}", "a finite number of 0 or more"
            raise InputError(problem(at, weights[bad[0]], rule, "Correct it; 0 leaves an example out."))
        weights = weights.astype(np.float32)
        if not weights.any():
            raise InputError(problem(field, "0 for every example", "some above 0", "Correct them."))
        return replace(self, weights=weights, fingerprint=weighted_fingerprint(self.fingerprint, weights))

    def grouped(self, groups: Any, field: str = "groups") -> "Dataset":
        """The same examples, those with one value among `groups` [n] (numbers or texts) in one group."""
        return replace(self, groups=number_groups(groups, len(self), field))

    def take(self, indices: np.ndarray, name: str) -> "Dataset":
        """The examples at `indices`, in that order; copied, unless their images are in a file."""
        stored = self.images.take(indices) if isinstance(self.images, StoredImages) else self.images[indices]
        every: dict[str, Any] = {name: getattr(self, name) for name in ("hashes", "targets", "groups", "weights")}
        own = {name: None if of_each is None else of_each[indices] for name, of_each in every.items()}
        return replace(self, images=stored, labels=self.labels[indices], name=name, **own)


@dataclass(frozen=True)
class Splits(ShownSplits):
    """What a run trains, validates and tests on, kept apart; the classes of all are those of `train`, by name.

    passed_over: files and folders that lay there and were not taken for pictures, how many of each kind.
    folds: int32[n], the fold that each example of `train` is in, where each fold validates what the others trained.
    """

    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None
    passed_over: dict[str, int] = field(default_factory=dict)
    folds: np.ndarray | None = None

    @property
    def least_trained(self) -> int:
        """How many examples a member is trained on: all of `train`; of folds, all but the largest fold."""
        return len(self.train) - (0 if self.folds is None else int(np.bincount(self.folds).max()))

    @property
    def are_validated(self) -> bool:
        """Whether there is data to validate on: a split, or each fold in its turn."""
        return self.validation is not None or self.folds is not None

    @property
    def named(self) -> dict[str, Dataset]:
        """Those that there are, by name."""
        every = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}

    def __post_init__(self):
        for name in ("validation", "test"):
            if (other := getattr(self, name)) is not None:
                check_same_kind(self.train, other)
                object.__setattr__(self, name, other.in_classes(self.train.class_names, self.train.name))

    def in_classes(self, class_names: Names, say: Callable[[str], None]) -> "Splits":
        """The same with the classes of all in another order, as `Dataset.in_classes`."""
        train = self.train.in_classes(class_names, "the run", say)
        return self if train is self.train else replace(self, train=train)


def check_same_kind(train: Dataset, other: Dataset) -> None:
    """Raises InputError unless both have images, and targets, of one kind; the message shows both sides."""
    if train.input_shape != other.input_shape:
        ours, theirs = shape_text(train.input_shape), shape_text(other.input_shape)
        remedy = "Bring arrays to one size first; files by --data.image-size."
        raise InputError(problem(other.name, f"images of {theirs}", f"{ours} like {train.name}", remedy))
    if train.images.dtype != other.images.dtype:
        got, rule = f"{other.images.dtype} inputs", f"{train.images.dtype} like {train.name}"
        raise InputError(problem(other.name, got, rule, "Scale and convert both in the same way."))
    if train.extremes is not None and other.extremes is not None:
        check_like_training(other.extremes, train.extremes, f"{other.name} images", other.images.dtype, len(other))
    check_same_range(other.value_range, train.value_range, other.name, f"like {train.name}")
    if "labels" in (train.task, other.task) and train.task != other.task:
        kinds = {"labels": "several labels a picture", "classes": "one class a picture", "numbers": "numbers"}
        got, rule = kinds[other.task], f"{kinds[train.task]} like {train.name}"
        raise InputError(problem(other.name, got, rule, "Use targets of the same kind."))
    if train.task == other.task == "numbers" and train.labels.shape[1:] != other.labels.shape[1:]:
        got, rule = f"targets of {other.labels.shape[1:]}", f"{train.labels.shape[1:]} like {train.name}"
        raise InputError(problem(other.name, got, rule, "Use targets of the same shape."))
    if bool(train.class_names) != bool(other.class_names):
        got = f"{other.num_classes} classes ({names_text(other.class_names)})"
        expected = f"{train.num_classes} like {train.name} ({names_text(train.class_names)})"
        raise InputError(problem(other.name, got, expected, "Use targets of the same kind."))


def split_by_fraction(
    dataset: Dataset, fraction: float, seed: int, stratified: bool = False
) -> tuple[Dataset, Dataset | None]:
    """(the rest, a `fraction` of the examples or, `stratified`, of each class), the same ones for the same seed.

    Of examples in groups, whole groups of at most so many examples.
    The draw uses raw Philox output, which NumPy promises not to change, unlike its shuffles.
    """
    if fraction == 0:
        return dataset, None
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(dataset)), kind="stable")
    groups = [order]
    if stratified and (dataset.task == "labels" or dataset.groups is not None):
        rule = f"off where {'pictures have several labels' if dataset.groups is None else 'groups stay together'}"
        raise InputError(problem("data.stratified", stratified, rule, "Leave it out."))
    if dataset.groups is not None:
        groups[0], fraction = draw_groups(dataset.groups, order, fraction)
    if stratified and dataset.class_names:
        by_class = order[np.argsort(dataset.class_numbers[order], kind="stable")]
        groups = np.split(by_class, np.cumsum(dataset.class_counts)[:-1])
    counts = [round(len(group) * fraction) for group in groups]
    if not 0 < sum(counts) < len(dataset):
        rule = f"a share that leaves both sides some of the {len(dataset)} examples of {dataset.name}"
        raise InputError(problem("data.validation_fraction", fraction, rule, "Give another share, or 0."))
    chosen = np.sort(np.concatenate([group[:count] for group, count in zip(groups, counts, strict=True)]))
    rest = np.setdiff1d(order, chosen)  # sorted
    share = replace(dataset.take(chosen, f"{dataset.name} (validation share)"), skipped=(), several_frames=0)
    return dataset.take(rest, dataset.name), share


def num_shared(first: Dataset, second: Dataset) -> int:
    """How many examples of `second` have an image that is also in `first`, byte for byte; 0 if that is not known."""
    if first.hashes is None or second.hashes is None:
        return 0
    return int(np.isin(second.hashes, first.hashes).sum())


def fingerprint_of(images: np.ndarray, labels: np.ndarray) -> str:
    """A hash of shape, images and labels in example order."""
    return combined_fingerprint(images.shape[1:], image_hashes(images), labels)


def combined_fingerprint(
    input_shape: tuple[int, ...], hashes: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> str:
    """The fingerprint of images whose hashes are known."""
    digest = hashlib.sha256(repr(tuple(input_shape)).encode())
    digest.update(hashes.astype("<u8").tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    return weighted_fingerprint(digest.hexdigest()[:32], weights)


def weighted_fingerprint(fingerprint: str, weights: np.ndarray | None) -> str:
    """The fingerprint of examples that have weights, from that without them."""
    if weights is None:
        return fingerprint
    return hashlib.sha256(fingerprint.encode() + weights.tobytes()).hexdigest()[:32]


def _check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            got, rule = f"labels of {labels.shape[1]} columns", f"{num_classes}, one for each class name"
            raise InputError(problem(name, got, rule, "Correct the labels."))
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        worst = low if low < 0 else high
        at = int(np.flatnonzero(labels == worst)[0])
        rule = f"0 to {num_classes - 1} for {num_classes} classes"
        raise InputError(problem(f"{name} label of example {at}", worst, rule, "Correct the labels."))

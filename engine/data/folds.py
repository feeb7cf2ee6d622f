"""Cross-validation: which fold each example is in, and the data of a fold."""

from dataclasses import replace

import numpy as np

from engine.config import RunConfig
from engine.config.data import FITTED
from engine.data.classes.names import names_text
from engine.data.decoded.dataset import Dataset, Splits
from engine.errors import InputError, problem


def assign_folds(labels: np.ndarray, num_folds: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """int32[n]: the fold of each example, a pure function of the arguments.

    labels: int[n] of classes, of which each fold gets the same number of examples, to within one, as each fold does of
      all; or float[n …] of a regression, which are drawn without regard to them.
    groups: int[n], examples of one group are in one fold; then the largest groups are placed first, each where it
      leaves the numbers of examples of every class most alike.
    The draw uses raw Philox output, which NumPy promises not to change, unlike its shuffles.
    """
    draws = np.random.Philox(key=seed).random_raw(len(labels))
    order = np.argsort(draws, kind="stable")
    classes = labels if labels.ndim == 1 and labels.dtype.kind in "iu" else np.zeros(len(labels), np.int32)
    if groups is not None:
        return _place_groups(classes, num_folds, order, groups)
    folds = np.empty(len(labels), np.int32)
    # Dealt in turn, class after class: so class counts and sizes of folds differ by one at most.
    folds[order[np.argsort(classes[order], kind="stable")]] = np.arange(len(labels)) % num_folds
    return folds


def _place_groups(classes: np.ndarray, num_folds: int, order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The same where whole groups are placed, the largest first, of equal ones that which `order` has first."""
    names, first, places = np.unique(groups[order], return_index=True, return_inverse=True)
    counts = np.zeros((len(names), classes.max(initial=0) + 1))  # [groups k]
    np.add.at(counts, (places, classes[order]), 1)
    per_class = np.maximum(counts.sum(axis=0), 1)
    filled, fold_of = np.zeros((num_folds, counts.shape[1])), np.empty(len(names), np.int32)
    for group in np.lexsort((first, -counts.sum(axis=1))):
        # What the sum of squared shares grows by: the least where the classes of this group are rarest so far.
        growth = ((2 * filled + counts[group]) * counts[group] / per_class**2).sum(axis=1)
        fold_of[group] = np.lexsort((filled.sum(axis=1), growth))[0]
        filled[fold_of[group]] += counts[group]
    folds = np.empty(len(groups), np.int32)
    folds[order] = fold_of[places]
    return folds


def divide_in_folds(config: RunConfig, splits: Splits) -> tuple[Splits, list[str]]:
    """(the splits for `train.folds`, a line for all that a user should know); as they are without folds.

    All folds: the training split as a whole, with the fold of each of its examples. One, `train.fold`: the others to
    train on, and itself for validation.
    """
    train, whole, notes = config.train, splits.train, []
    if train.folds is None:
        return splits, []
    _check_count(whole, train.folds)
    folds = assign_folds(
        whole.class_numbers if whole.task == "classes" else whole.labels, train.folds, train.seed, whole.groups
    )
    if splits.validation is not None:
        notes.append(f"the {len(splits.validation):,} validation images are not used: each fold validates")
    if config.data.standardize in FITTED and train.fold is None:
        notes.append(f"warning: data.standardize {config.data.standardize} is fitted on all folds together")
    notes += _fold_notes(whole, folds, train.folds)
    if train.fold is None:
        return Splits(whole, None, splits.test, splits.passed_over, folds), notes
    rest, held_out = np.flatnonzero(folds != train.fold), np.flatnonzero(folds == train.fold)
    validation = take_fold(whole, held_out, f"{whole.name} (fold {train.fold})")
    return Splits(whole.take(rest, whole.name), validation, splits.test, splits.passed_over), notes


def take_fold(whole: Dataset, examples: np.ndarray, name: str) -> Dataset:
    """The examples as a dataset of their own, which counts no files that were skipped."""
    return replace(whole.take(examples, name), skipped=(), several_frames=0)


def _check_count(whole: Dataset, num_folds: int) -> None:
    count, of = len(whole), "examples"
    if whole.groups is not None:
        count, of = len(np.unique(whole.groups)), "groups"
    if count < num_folds:
        rule = f"at most {count:,}, the {of} of {whole.name}"
        raise InputError(problem("train.folds", num_folds, rule, f"Give {count} or fewer, but at least 2."))


def _fold_notes(whole: Dataset, folds: np.ndarray, num_folds: int) -> list[str]:
    """A line for classes that a fold lacks, and one for those that a member is not trained on."""
    if not whole.class_names:
        return []
    counts = np.zeros((num_folds, whole.num_classes), int)
    if whole.task == "labels":
        np.add.at(counts, folds, whole.labels)
    else:  # not a row of k marks for each example
        np.add.at(counts, (folds, whole.class_numbers), 1)
    has_any, notes = counts.sum(axis=0) > 0, []
    lacking = (counts == 0) & has_any
    alone = (counts == counts.sum(axis=0)) & has_any
    if lacking.any():
        names = [whole.class_names[k] for k in np.flatnonzero(lacking.any(axis=0))]
        notes.append(
            f"warning: {int(lacking.any(axis=1).sum())} of {num_folds} folds have no examples of {names_text(names)},"
            " so they are validated without"
        )
    if alone.any():
        names = [whole.class_names[k] for k in np.flatnonzero(alone.any(axis=0))]
        notes.append(
            f"warning: all examples of {names_text(names)} are in one fold, whose member cannot learn what it is"
            " validated on"
        )
    return notes

"""The files and the validation share of Keras's image_dataset_from_directory, the same ones in the same order.

Its listing (keras/src/utils/dataset_utils.py of Keras 3, index_directory) takes hidden and system folders in and few
suffixes; its share is the end of a list that NumPy's RandomState shuffles, which NumPy promises not to change.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.data.classes.names import composed, names_text
from engine.data.decoded.dataset import Dataset
from engine.data.sources.class_folders import Classes
from engine.data.sources.walk import NOT_FOLLOWED, ImageFile, PassedOver, file_at, is_hidden, suffix_kind
from engine.errors import InputError, problem, remedy_for

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def class_folders(folder: Path, left_out: set[str]) -> dict[str, str]:
    """The folders of the classes by class name, in order; also empty ones, as in Keras.

    left_out: names of folders that are no classes.
    """
    entries = sorted(name for name in os.listdir(folder) if not name.startswith(".") and os.path.isdir(folder / name))
    return {composed(name): name for name in entries if composed(name) not in left_out}


def list_files(folder: Path, folders: dict[str, str], follow_links: bool, passed: PassedOver) -> Classes:
    """The files of each class in Keras's order; what it does not list is counted in `passed`."""
    listed: Classes = {}
    for name, directory in folders.items():
        start = os.path.join(folder, directory)
        groups = sorted(_directories(start, follow_links, passed), key=lambda group: group[0])
        listed[name] = [file for below, files in groups for file in _listed(below, files, f"{name}/", start, passed)]
    return listed


def hidden_among(classes: Classes) -> int:
    """How many of the files are, or lie in, what this package passes over as hidden or belonging to a system."""
    names = (file.name.split("/") for files in classes.values() for file in files)
    return sum(any(map(is_hidden, parts)) for parts in names)


def split_as_keras(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """(training, validation) of a listed folder, in the order of Keras's file_paths."""
    if fraction == 0:
        return dataset, None
    order, count = np.arange(len(dataset)), int(fraction * len(dataset))
    np.random.RandomState(seed).shuffle(order)
    if count == 0:
        rule = f"a share that leaves both sides some of the {len(dataset)} examples of {dataset.name}"
        raise InputError(problem("data.validation_fraction", fraction, rule, "Give another share, or 0."))
    share = replace(dataset.take(order[-count:], f"{dataset.name} (validation share)"), skipped=(), several_frames=0)
    return dataset.take(order[:-count], dataset.name), share


def _directories(start: str, follow_links: bool, passed: PassedOver) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """(path, files) of a folder and all below it, as os.walk finds them, but without loops."""
    todo, seen = [start], set[tuple[int, int]]()
    while todo:
        directory = todo.pop()
        try:
            about = os.stat(directory)
            with os.scandir(directory) as entries:
                inside = list(entries)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            remedy = remedy_for(error, "Correct it.")
            raise InputError(problem(directory, reason, "a folder that can be read", remedy)) from None
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        folders = [entry for entry in inside if os.path.isdir(entry.path)]
        for entry in folders:
            if follow_links or not entry.is_symlink():
                todo.append(entry.path)
            else:
                passed.add(NOT_FOLLOWED, entry.name)
        yield directory, [entry for entry in inside if entry not in folders]


def _listed(
    directory: str, entries: list[os.DirEntry[str]], top: str, start: str, passed: PassedOver
) -> Iterator[ImageFile]:
    below = composed(os.path.relpath(directory, start)).replace(os.sep, "/")
    prefix = top if below == "." else f"{top}{below}/"
    for entry in sorted(entries, key=lambda entry: entry.name):
        name = prefix + composed(entry.name)
        if entry.name.lower().endswith(SUFFIXES):
            yield file_at(entry.path, name)
        else:
            passed.add(suffix_kind(entry.name), name)


def listing_note(name: str, classes: Classes) -> str:
    """What is odd about a listing, for the user; empty if nothing is."""
    notes = []
    if count := hidden_among(classes):
        notes.append(f"{count:,} hidden or system files")
    if empty := [class_name for class_name, files in classes.items() if not files]:
        notes.append(f"classes without files ({names_text(empty)})")
    return f"{name}: listed as Keras does, with {' and '.join(notes)}" if notes else ""

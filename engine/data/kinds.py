"""The kinds of data that a DataConfig can name: one entry in KINDS each."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine.config.data import DataConfig
from engine.data.own import open_own
from engine.data.sources.array_files import ARRAY_ENDINGS, holds_arrays, open_arrays
from engine.data.sources.folder import open_folder
from engine.data.sources.source import Source
from engine.data.sources.table import TABLE_ENDINGS, holds_tables, open_table
from engine.data.sources.tfds import TfdsSource
from engine.data.sources.tfds_prepared import is_prepared
from engine.errors import InputError, Say, problem, remedy_for
from engine.host.console import show
from engine.host.storage import expanded, is_web_address, names_like


@dataclass(frozen=True)
class Kind:
    """A kind of data.

    title: what messages call it. open: config → Source, with a line for all that is guessed.
    holds: whether a directory, `data.path`, holds such data. endings: of files that `data.path` may name instead.
    options: the fields of DataConfig that are for this kind, and perhaps for some others, but not for all.
    """

    title: str
    open: Callable[[DataConfig, Say], Source]
    holds: Callable[[Path], bool] = lambda path: False
    endings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


# A directory is of the first kind that recognizes it.
KINDS: dict[str, Kind] = {
    "own": Kind("a source of your own", open_own, options=("layout",)),
    "tfds": Kind("tfds data", TfdsSource, options=("image_feature", "label_feature", "data_dir", "manual_dir")),
    "prepared": Kind("prepared tfds data", TfdsSource, is_prepared, options=("image_feature", "label_feature")),
    "table": Kind(
        "a table", open_table, holds_tables, TABLE_ENDINGS,
        ("path_column", "label_column", "label_separator", "weight_column", "group_column", "image_directory",
         "suffix", "encoding", "on_bad_file"),
    ),
    "arrays": Kind("arrays", open_arrays, holds_arrays, ARRAY_ENDINGS, ("layout",)),
    "folder": Kind("a folder of images", open_folder, Path.is_dir, (), ("follow_links", "split_as", "on_bad_file")),
}  # fmt: skip
# Options of different kinds that say the same.
COUNTERPARTS = {"image_feature": "path_column", "label_feature": "label_column"}
COUNTERPARTS |= {other: name for name, other in COUNTERPARTS.items()}


def open_source(config: DataConfig, say: Say = show) -> Source:
    """The data that a config names: its function, the data at `path`, by what lies there, or the tfds builder `name`.

    Raises InputError if there is none, or if the config has options that this kind of data would ignore.
    """
    kind = find_kind(config)
    check_taken(config, kind)
    with _unreadable_as_errors():
        return kind.open(config, say)


def find_kind(config: DataConfig) -> Kind:
    """The kind of data that a config names; raises InputError if it is none that is known."""
    if config.source is not None:
        return KINDS["own"]
    if config.path is None:
        return KINDS["tfds"]
    path = expanded(config.path)
    if not os.path.exists(path):  # and not Path.exists, which raises for names that are too long
        near = ", ".join(str(other) for other in names_like(path))
        remedy = f"Did you mean {near}?" if near else "Correct the path; relative ones start at the working directory."
        if is_web_address(path):
            remedy = "Download it first, and give the path of the file."
        raise InputError(problem("data.path", path, "a folder or file that exists", remedy))
    if path.is_dir():
        with _unreadable_as_errors():
            return next(kind for kind in KINDS.values() if kind.holds(path))
    if not path.is_file():
        raise InputError(problem("data.path", f"{path}, a pipe or device", "a folder or file", "Correct the path."))
    for kind in KINDS.values():
        if path.name.lower().endswith(kind.endings):
            return kind
    known = [f"{kind.title} ({', '.join(kind.endings)})" for kind in KINDS.values() if kind.endings]
    rule = ", ".join(["a folder of images", *known, "or data that tfds prepared"])
    raise InputError(problem("data.path", path, rule, "Name one of these."))


def check_taken(config: DataConfig, kind: Kind) -> None:
    """Raises InputError naming every option that this kind of data would ignore."""
    problems = []
    for name in _find_ignored(config, kind):
        other = COUNTERPARTS.get(name)
        remedy = f"Set --data.{other.replace('_', '-')} instead." if other in kind.options else "Leave it out."
        rule = f"no such option with {kind.title}, which has nothing that it could choose"
        problems.append(problem(f"data.{name}", getattr(config, name), rule, remedy))
    if problems:
        raise InputError(*problems)


def without_ignored(config: DataConfig, given: dict[str, Any]) -> DataConfig:
    """The config without options that were not `given` for its data but came with other data, and are not for it."""
    ignored, defaults = _find_ignored(config, find_kind(config)), DataConfig()
    return replace(config, **{name: getattr(defaults, name) for name in ignored if name not in given})


def _find_ignored(config: DataConfig, kind: Kind) -> list[str]:
    of_some = {name for each in KINDS.values() for name in each.options} - {*kind.options}
    return [f.name for f in fields(DataConfig) if f.name in of_some and getattr(config, f.name) != f.default]


@contextlib.contextmanager
def _unreadable_as_errors() -> Iterator[None]:
    """Turns what the system reports of a file or folder, like that it may not be read, into an InputError."""
    try:
        yield
    except OSError as error:
        where, reason = str(error.filename or "data.path"), error.strerror or str(error)
        remedy = remedy_for(error, "Correct it.")
        raise InputError(problem(where, reason, "a folder or file that can be read", remedy)) from None

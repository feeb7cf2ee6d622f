"""The directory of a run: what it may be, and what lies in it. Nothing of an earlier run is overwritten silently."""

import json
import os
import shutil
from pathlib import Path

from engine.checkpoint import Record, choose_step, find_steps, read_record
from engine.config import RunConfig
from engine.errors import InputError, problem
from engine.records import differences

FILES = (
    "config.json", "history.csv", "curves.png", "log.txt", "result.json", "predictions.png", "example.png",
    "checkpoints",
)  # fmt: skip
# Where data lies and how long a compiled call takes change nothing that a run computes.
FREE_FIELDS = ("data.data_dir", "data.manual_dir", "data.cache_dir", "plan.chunk_steps", "name")


def open_run(path: Path, config: RunConfig, resume: bool, overwrite: bool) -> Record | None:
    """Makes sure that `path` can take a run of `config`; the record to go on from if it is to be resumed.

    Raises InputError if the path is a file, cannot be written, holds other things, or holds a run and neither
    `resume` nor `overwrite` is set, or a run of another config to resume. A run that was stopped before it had
    saved anything is nothing to lose and does not count.
    """
    if path.exists() and not path.is_dir():
        raise InputError(problem("run_dir", f"{path}, a file", "a directory", "Choose another with --run-dir."))
    present, record = [name for name in FILES if (path / name).exists()], None
    if overwrite:
        _check_writable(path)
        _remove(path, present)
    elif find_steps(path):
        record = _resumable(path, config, resume)
    elif "history.csv" in present:
        remedy = "Put the checkpoints back, add --overwrite, or choose another --run-dir."
        got = f"{path}, which holds a run without its checkpoints"
        raise InputError(problem("run_dir", got, "a new directory", remedy))
    elif path.is_dir() and any(entry.name not in FILES and entry.name[0] != "." for entry in path.iterdir()):
        got = f"{path}, which holds other files"
        raise InputError(problem("run_dir", got, "an empty or new directory", "Choose another with --run-dir."))
    _check_writable(path)
    return record


def write_config(path: Path, config: RunConfig) -> None:
    """Leaves the config in a run's directory."""
    write_atomically(path / "config.json", json.dumps(config.to_json(), indent=2) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file in one go: a reader, or a kill, sees the old text or the new."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _resumable(path: Path, config: RunConfig, resume: bool) -> Record:
    """The last record of the run in `path`, if it may be resumed with this config."""
    record = read_record(path, choose_step(path, "last"))
    changes = _changes(record.config, config)
    if not resume:
        state = "a run of another config" if changes else _progress(record)
        remedy = "Add --resume to go on with it, --overwrite to start anew, or choose another --run-dir."
        raise InputError(_with(changes, problem("run_dir", f"{path}, which holds {state}", "a new directory", remedy)))
    if changes:
        remedy = "Give the same settings, or choose another --run-dir."
        got = f"{path}, which holds a run of another config"
        raise InputError(_with(changes, problem("run_dir", got, "the config it was started with", remedy)))
    return record


def _changes(stored: RunConfig, given: RunConfig) -> list[str]:
    """Fields that differ and matter; the number of epochs does not while no schedule depends on it."""
    free = [*FREE_FIELDS, "train.epochs"] if given.optim.schedule in ("constant", "step") else FREE_FIELDS
    lines = differences(stored.to_json(), given.to_json())
    return [line for line in lines if line.split(":")[0] not in free]


def _progress(record: Record) -> str:
    epochs = f"{record.epochs_done} of {record.config.train.epochs} epochs, step {record.step:,}"
    return f"a finished run ({epochs})" if record.is_complete else f"an unfinished run ({epochs})"


def _with(changes: list[str], message: str) -> str:
    return "\n".join([message, *(f"  {line}" for line in changes)])


def _remove(path: Path, names: list[str]) -> None:
    for name in names:
        target = path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()


def _check_writable(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        got = f"{path} ({error.strerror})"
        raise InputError(problem("run_dir", got, "a directory that can be written", "Choose another.")) from None

"""The directory of a run: which one can be used, and its files. An earlier run is never overwritten silently."""

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from engine.checkpoints.changes import CHANGEABLE_FIELDS, check_changeable, find_changes, in_terms_of
from engine.checkpoints.record import Record
from engine.checkpoints.saving import set_damaged_aside
from engine.checkpoints.steps import check_location, choose_step, find_steps, read_record, step_directories
from engine.config import RunConfig
from engine.errors import InputError, Say, ignore, problem
from engine.host.console import tell
from engine.host.storage import check_can_write, expanded, open_own, remove, write_atomically
from engine.records import Difference
from engine.text import counted, one_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FILES = (
    "config.json", "history.csv", "curves.png", "log.txt", "result.json", "predictions.png", "example.png",
    "skipped.txt", "checkpoints", "damaged", "ensemble.csv", "folds.csv", "sweep.csv", "uncertainty.csv",
    "reliability.png", "confusion.png", "report.html", "tensorboard", "wandb",
)  # fmt: skip


def open_run(
    path: Path,
    config: RunConfig,
    resume: bool,
    overwrite: bool,
    say: Say = ignore,
    allow_change: Iterable[str] = (),
) -> Record | None:
    """Checks that `path` can be used for a run of `config`; returns the record to resume from, if any.

    Removes nothing: with `overwrite`, `clear_run` is called once everything else is known to work. With `resume`,
    damaged checkpoints are moved aside and reported to `say`. allow_change: fields that may differ, like
    optim.learning_rate.
    Raises InputError if the path is a file, cannot be written or contains other files; if it contains a run and neither
    `resume` nor `overwrite` is set; or if the run to resume has another config. A run stopped before its first save
    counts as empty.
    """
    if resume and overwrite:
        raise InputError(problem("overwrite", "both it and resume", "one of them", "Leave one out."))
    if (allowed := check_changeable(allow_change)) and not resume:
        raise InputError(problem("allow_change", "it without resume", "both or none", "Add --resume."))
    _check_place(path)
    record = None
    if step_directories(path):
        record = None if overwrite else _resumable(path, config, resume, say, allowed)
    elif (path / "result.json").exists() and not overwrite:
        remedy = "Put the checkpoints back, add --overwrite, or choose another --run-dir."
        got = f"{path}, which contains a run without its checkpoints"
        raise InputError(problem("run_dir", got, "a new directory", remedy))
    elif any(entry.name not in FILES and entry.name[0] != "." for entry in path.iterdir()):
        got = f"{path}, which contains other files"
        raise InputError(problem("run_dir", got, "an empty or new directory", "Choose another with --run-dir."))
    return record


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """The expanded path of a run's directory, locked for this process.

    Raises InputError naming the process that has locked it already. The system releases the lock when the process
    ends, so a killed process leaves no stale lock. A file system without locks is reported.
    """
    path = expanded(path)
    _check_place(path)
    if fcntl is None:
        yield path
        return
    lock = path / ".lock"
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_opened_lock(lock))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(file.fileno()), lock.stat())
        except (BlockingIOError, PermissionError, FileNotFoundError):
            is_ours = False
        except OSError as error:  # of some network file systems
            tell(f"{path}: its file system has no locks ({error.strerror}): let no other run use it at the same time")
            is_ours = True
        if not is_ours:  # locked, or just released and removed
            file.seek(0)
            got = f"{path}, in which {file.read() or 'another process'} is training"
            remedy = "Wait for it, or choose another with --run-dir."
            raise InputError(problem("run_dir", got, "a directory of its own", remedy))
        stack.callback(lock.unlink, missing_ok=True)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield path


def _opened_lock(lock: Path) -> IO[str]:
    try:
        return open_own(lock, "a+")
    except OSError as error:
        got, rule = f"{lock} ({error.strerror})", "a file of this run, or none"
        raise InputError(problem("run_dir", got, rule, "Remove it, or choose another with --run-dir.")) from None


def make_numbered(base: Path) -> Path:
    """A new directory beside others, base-1, base-2, …, of the first number after all that are there."""
    base = expanded(base)
    base.parent.mkdir(parents=True, exist_ok=True)
    ends = (entry.name.removeprefix(f"{base.name}-") for entry in base.parent.iterdir())
    number = max((int(end) for end in ends if end.isascii() and end.isdigit() and len(end) < 10), default=0) + 1
    while True:
        with contextlib.suppress(FileExistsError):  # another process took it
            (path := base.parent / f"{base.name}-{number}").mkdir()
            return path
        number += 1


def clear_run(path: Path) -> None:
    """Removes the files of a run, and nothing else."""
    for name in FILES:
        remove(path / name)


def write_config(path: Path, config: RunConfig) -> None:
    """Writes the config into a run's directory."""
    write_atomically(path / "config.json", json.dumps(config.to_json(), indent=2) + "\n")


def write_skipped(path: Path, lines: list[str]) -> None:
    """Writes a list of the skipped data files, if there are any."""
    if lines:
        write_atomically(path / "skipped.txt", "\n".join(map(one_line, lines)) + "\n")


def _resumable(path: Path, config: RunConfig, resume: bool, say: Say, allowed: frozenset[str]) -> Record:
    """The last undamaged record of the run in `path`, if it can be resumed with this config."""
    newest = int(step_directories(path)[-1].name)
    if resume:
        set_damaged_aside(path, say)
    if not find_steps(path):
        got, rule = f"{path}, whose checkpoints are all damaged", "a run with one that is not"
        raise InputError(problem("run_dir", got, rule, "Restore a copy of it, or start from scratch with --overwrite."))
    record = read_record(path, choose_step(path, "last"))
    if record.step < newest:
        say(f"resuming from step {record.step:,}: {newest - record.step:,} steps are lost and trained again")
    changes = find_changes(record.config, in_terms_of(record, config, allowed))
    if not resume:
        state = "a run of another config" if changes else _progress(record)
        remedy = "Add --resume to continue it, --overwrite to start from scratch, or choose another --run-dir."
        got = f"{path}, which contains {state}"
        raise InputError(problem("run_dir", got, "a new directory", remedy), *_lines(changes))
    if changes := [change for change in changes if change.field not in allowed]:
        names = " ".join(change.field.replace("_", "-") for change in changes)
        change_them = f"To change them from here on, add --allow-change {names}. "
        are_changeable = all(change.field in CHANGEABLE_FIELDS for change in changes)
        remedy = f"{change_them * are_changeable}Give the same settings, or choose another --run-dir."
        got = f"{path}, which contains a run of another config"
        raise InputError(problem("run_dir", got, "the config it was started with", remedy), *_lines(changes))
    return record


def _progress(record: Record) -> str:
    epochs = f"{record.epochs_done} of {counted(record.config.train.epochs, 'epoch')}, step {record.step:,}"
    return f"a finished run ({epochs})" if record.is_complete else f"an unfinished run ({epochs})"


def _lines(changes: list[Difference]) -> list[str]:
    return [f"  {change.text()}" for change in changes]


def _check_place(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(problem("run_dir", f"{path}, a file", "a directory", "Choose another with --run-dir."))
    check_location(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_can_write(path)
    except OSError as error:
        got = f"{path} ({error.strerror})"
        raise InputError(problem("run_dir", got, "a directory that can be written", "Choose another.")) from None

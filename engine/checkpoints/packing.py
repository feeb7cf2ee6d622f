"""Packed runs: one file with everything needed to use a run and to resume it. Opening it is safe.

It is a zip of uncompressed entries: the arrays are compressed already, and a file whose content cannot be larger than
itself is not a zip bomb. The same run packs to the same bytes.
"""

import contextlib
import io
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from engine.checkpoints.checksums import SUMS
from engine.checkpoints.record import Record
from engine.checkpoints.run_directory import FILES
from engine.checkpoints.steps import check_step, checkpoints_of, choose_step, read_record
from engine.errors import InputError, problem, remedy_for, renamed
from engine.host.archives import check_directory_size
from engine.host.storage import check_file_place, new_directory, replaced

SUFFIX = ".engine"
MOST_ENTRIES = 10_000  # a packed run of one process has about forty
MOST_DEPTH = 8
LONGEST_NAME = 200
FOR_TRAINING = "optimizer"
MADE_AT = "commit_success.txt"  # Orbax's; records an absolute path of the saving machine; left out for privacy
# Names without a dot are directories. A page is not packed: a stranger's would run scripts where it is opened.
RUN_FILES = tuple(name for name in FILES if "." in name and not name.endswith(".html"))
# Names that Windows reserves for devices, with any suffix.
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
ZIP64 = b"\1\0"  # start of the extra field that an entry of 4 GiB needs
EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can store


def pack(path: Path, out: Path, inference_only: bool = False, overwrite: bool = False) -> list[int]:
    """Writes a run (a directory or a packed file) to the file `out`, atomically; returns the steps packed.

    inference_only: without what only further training needs: optimizer state, and the last step if it is not the best.
    Raises InputError if there is no complete checkpoint or a damaged one, if `out` cannot be written, or if it exists
    and `overwrite` is False.
    """
    _check_out(out, overwrite)
    with opened(path) as run:
        steps = sorted({choose_step(run, which) for which in (["best"] if inference_only else ["best", "last"])})
        for step in steps:
            check_step(run, step)
        try:
            with replaced(out, "w+b") as file:
                _write(file, _content(run, steps, inference_only))
                with zipfile.ZipFile(file) as archive:
                    _checked(out, archive.infolist(), file.seek(0, os.SEEK_END))  # otherwise it could not be opened
        except FileNotFoundError as error:
            got, rule = f"no {error.filename} any more", "a run that stays as it is meanwhile"
            raise InputError(problem(str(path), got, rule, "Pack it again.")) from None
        except OSError as error:
            got = f"{out} ({error.strerror})"
            raise InputError(problem("out", got, "a place that can be written", "Choose another.")) from None
    return steps


def run_of(path: Path) -> Path:
    """The run's directory, given that directory or the one of its checkpoints."""
    return checkpoints_of(path).parent


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The directory of a run: `path` itself or, for a packed file, a temporary one with its content.

    Raises InputError, naming the entry, for a file that `pack` cannot have written; errors about the content of the
    temporary directory name the packed file.
    """
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as scratch:
        directory = Path(scratch).resolve()
        _extract_all(path, directory)
        try:
            yield directory
        except InputError as error:
            raise renamed(error, str(directory), str(path)) from error


def record_of(path: Path, step: int | str = "best") -> Record:
    """The record of a run, a directory or packed file; `step` as in `choose_step`."""
    with opened(path) as directory:
        return read_record(directory, choose_step(directory, step))


def unpack(path: Path, out: Path) -> None:
    """Unpacks a packed file into a new directory `out`, atomically. InputError as in `opened`, or if `out` exists."""
    if not path.is_file():
        got = f"{path}, {'a directory' if path.is_dir() else 'which does not exist'}"
        raise InputError(problem("file", got, "a packed run", "Check the path."))
    if os.path.lexists(out) or not out.parent.is_dir():
        got = f"{out}, which exists" if os.path.lexists(out) else f"{out}, below no directory"
        raise InputError(problem("out", got, "a new directory in one that exists", "Choose another with --out."))
    try:
        with new_directory(out) as directory:
            _extract_all(path, directory)
    except OSError as error:
        got = f"{out} ({error.strerror})"
        raise InputError(problem("out", got, "a place that can be written", "Choose another.")) from None


def _extract_all(path: Path, directory: Path) -> None:
    """Writes all entries below a directory. Names, kinds and sizes are checked before the first byte is written."""
    try:
        check_directory_size(path, "a packed run")
        with zipfile.ZipFile(path) as archive:
            entries = _checked(path, archive.infolist(), path.stat().st_size)
            for entry in entries:
                _extract(path, archive, entry, directory / entry.filename)
    except InputError:
        raise
    except (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        got, rule = f"a file that cannot be read as one ({error})", "the directory of a run, or one packed"
        remedy = remedy_for(error, "Check the path, or pack the run again.")
        raise InputError(problem(str(path), got, rule, remedy)) from None


def _checked(path: Path, entries: list[zipfile.ZipInfo], size: int) -> list[zipfile.ZipInfo]:
    """The entries of a file of that size; raises InputError naming the first that a run cannot have."""
    if len(entries) > MOST_ENTRIES:
        raise _refused(path, f"{len(entries):,} entries", f"at most {MOST_ENTRIES:,}")
    seen: set[str] = set()
    for entry in entries:
        if rule := _broken_rule(entry):
            raise _refused(path, f"the entry {entry.orig_filename!r}", rule)
        name = entry.filename.lower()
        if name in seen:  # or the same on a file system that ignores case
            raise _refused(path, f"the entry {entry.orig_filename!r} twice", "each once")
        seen.add(name)
    for name in seen:
        for parent in PurePosixPath(name).parents:
            if str(parent) in seen:
                raise _refused(path, f"the entry {name!r} below the file {str(parent)!r}", "files in directories")
    if sum(entry.file_size for entry in entries) > size:
        raise _refused(path, "entries that are larger together than the file", "each with bytes of its own")
    return entries


def _broken_rule(entry: zipfile.ZipInfo) -> str | None:
    """The rule that an entry breaks; None if it breaks none."""
    mode, parts = entry.external_attr >> 16, PurePosixPath(entry.filename).parts
    if entry.orig_filename != entry.filename or not _is_of_run(parts, entry.filename):
        return "names of files that a run has"
    is_file = stat.S_IFMT(mode) in (0, stat.S_IFREG) and not entry.external_attr & (
        stat.FILE_ATTRIBUTE_DIRECTORY | stat.FILE_ATTRIBUTE_REPARSE_POINT | stat.FILE_ATTRIBUTE_DEVICE
    )
    if not is_file:
        return "files, and no links, directories or devices"
    is_encrypted = entry.flag_bits & 0x1
    if is_encrypted or entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        return "entries stored as they are, neither compressed nor encrypted"
    if entry.comment or entry.extra[:2] not in (b"", ZIP64):  # a wrong length there would hide the following entries
        return "entries without notes of their own"
    return None


def _is_of_run(parts: tuple[str, ...], name: str) -> bool:
    """Whether a run may have a file of this name, on any system: `config.json`, `checkpoints/8/record/metadata`."""
    if not parts or "/".join(parts) != name or len(parts) > MOST_DEPTH or len(name) > LONGEST_NAME:
        return False
    if not all(re.fullmatch(r"\w([\w.-]*[\w-])?", part, re.ASCII) and not DEVICE.fullmatch(part) for part in parts):
        return False
    if parts[0] != "checkpoints":
        return len(parts) == 1 and name in RUN_FILES
    return len(parts) > 2 and re.fullmatch(r"[0-9]{1,18}", parts[1]) is not None


def _extract(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Writes one entry; zipfile verifies its checksum at the last byte."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, EOFError) as error:
        raise _refused(path, f"the entry {entry.filename!r} damaged ({error})", "the bytes packed") from None
    except OSError as error:
        got, rule = f"{target.parent} ({error.strerror})", f"room for the content of {path}"
        raise InputError(problem("directory", got, rule, "Free some, or set TMPDIR to another place.")) from None


def _refused(path: Path, got: str, rule: str) -> InputError:
    return InputError(
        problem(str(path), got, rule, "Open only what `engine pack` wrote; a newer one needs its engine.")
    )


def _content(run: Path, steps: list[int], inference_only: bool) -> dict[str, Path]:
    """Name in the packed file → file, for everything that is packed."""
    directory = checkpoints_of(run)
    found = {name: run_of(run) / name for name in RUN_FILES if (run_of(run) / name).is_file()}
    for step in steps:
        for file in (directory / str(step)).rglob("*"):
            inner = file.relative_to(directory)
            is_left_out = file.name == MADE_AT or (inference_only and inner.parts[1] == FOR_TRAINING)
            if file.is_file() and not is_left_out:
                found[f"checkpoints/{inner.as_posix()}"] = file
    return found


def _write(file: IO[bytes], content: dict[str, Path]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, source in sorted(content.items()):
            entry = zipfile.ZipInfo(name, EARLIEST_DATE)
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # as made on Unix
            with _bytes_of(name, source, content) as (read, entry.file_size), archive.open(entry, "w") as sink:
                shutil.copyfileobj(read, sink)


@contextlib.contextmanager
def _bytes_of(name: str, source: Path, content: dict[str, Path]) -> Iterator[tuple[IO[bytes], int]]:
    """(a file to read, its size): the file itself; of a checksum list, the lines of the files that are packed."""
    if source.name != SUMS:
        with source.open("rb") as file:
            yield file, source.stat().st_size
        return
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    place = name.removesuffix(SUMS)
    kept = "".join(line for line in lines if place + line.rstrip().split("  ", 1)[-1] in content).encode()
    yield io.BytesIO(kept), len(kept)


def _check_out(out: Path, overwrite: bool) -> None:
    check_file_place(out, "out", SUFFIX)
    if out.exists() and not overwrite:
        raise InputError(problem("out", f"{out}, which exists", "a new file", "Add --overwrite, or another --out."))

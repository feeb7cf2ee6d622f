"""Files written where other users may write too: no planted link is followed, and no reader sees half a file.

Names of temporary files are unpredictable and created exclusively, so no other user can prepare one.
"""

import contextlib
import difflib
import errno
import os
import re
import secrets
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from engine.errors import InputError, problem

MOST_BESIDE = 10_000
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows lacks it, and there not every user may create links


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` replaced by the home directory; unchanged, so that it does not exist, if that is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # containers run processes of users that the system does not know
        return Path(path)


def names_like(path: Path, most: int = 3) -> list[Path]:
    """Folders and files next to a missing (or mistaken) path whose names are similar to its own.

    Only the first MOST_BESIDE entries are compared; none if that folder cannot be read.
    """
    with contextlib.suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in islice(entries, MOST_BESIDE) if not entry.name.startswith(".")]
        by_folded = {name.casefold(): name for name in sorted(names)}
        near = difflib.get_close_matches(path.name.casefold(), sorted(by_folded), n=most, cutoff=0.7)
        return [path.with_name(by_folded[name]) for name in near]
    return []


def private_directory(path: Path) -> Path:
    """A directory of this user alone, created if missing; raises InputError if others can change it."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = os.lstat(path)
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        reason = "which others can change"
    except OSError as error:
        is_ours, reason = False, error.strerror or "which cannot be made"
    if not is_ours:
        got, remedy = f"no home directory, and {path} ({reason})", "Set ENGINE_CACHE_DIR to a directory of your own."
        raise InputError(problem("ENGINE_CACHE_DIR", got, "a place for caches", remedy))
    return path


def at_home(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The path itself, or below the home directory if it starts with ~ and nothing of that name exists here."""
    return expanded(path) if os.fspath(path).startswith("~") and not os.path.lexists(path) else path


def is_web_address(path: str | os.PathLike[str]) -> bool:
    """Whether a supposed path is an address like https://…, which Path writes with one slash."""
    return re.match(r"(https?|ftp|s3|gs|file):/", str(path), re.IGNORECASE) is not None


@contextlib.contextmanager
def replaced(path: Path, mode: str = "wb", **how: Any) -> Iterator[IO[Any]]:
    """A new file to write to that takes the place of `path` when the block ends well, in one go and safe from a crash.

    A reader, or a kill, sees the old content or the new. A link at `path` is replaced itself, and not what it points
    to. mode, how: as of `open`.
    """
    descriptor, scratch = tempfile.mkstemp(prefix=".", suffix=f".{path.name[-100:]}", dir=path.parent)
    try:
        with open(descriptor, mode, **how) as file:
            os.chmod(scratch, 0o666 & ~_umask())  # mkstemp makes it unreadable for others
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def check_file_place(path: Path, field: str, *endings: str) -> None:
    """Raises InputError unless a file can be made at `path`: with one of the endings, as `check_place`.

    endings: like ".png"; none where any name will do.
    """
    if os.path.isdir(path) or not path.name:
        rule = f"the name of a file, like {path / ('out' + (endings or ('',))[0])}"
        raise InputError(problem(field, f"{path}, a directory", rule, "Add a name."))
    if endings and path.suffix.lower() not in endings:
        rule = f"a name that ends in {', '.join(endings[:-1])}{' or ' * (len(endings) > 1)}{endings[-1]}"
        raise InputError(problem(field, path, rule, f"Name it {path.stem or 'out'}{endings[0]}."))
    check_place(path, field, "a file")


def check_place(path: Path, field: str, kind: str) -> None:
    """Raises InputError unless `kind` can be made at `path`, or take the place of a file or directory there.

    That is in a directory that exists and can be written. Devices and pipes are not replaced.
    """
    parent = path.parent
    if not os.path.isdir(parent):
        in_the_way = next((place for place in path.parents if os.path.exists(place) and not os.path.isdir(place)), None)
        remedy = f"Make it first: mkdir -p {shlex.quote(str(parent))}"
        if in_the_way is not None:
            remedy = f"Choose another: {in_the_way} is a file."
        raise InputError(problem(field, path, f"{kind} in a directory that exists", remedy))
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # names may be too long
        check_can_write(parent)
    except OSError as error:
        got, remedy = f"{path} ({error.strerror})", "Choose another name or directory."
        raise InputError(problem(field, got, f"{kind} that can be written", remedy)) from None
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise InputError(problem(field, f"{path}, a pipe or device", kind, "Choose another name."))


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by a text, atomically."""
    with replaced(path, "w", encoding="utf-8", errors="backslashreplace") as file:  # names of files may be no text
        file.write(text)


@contextlib.contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """A new directory beside `path`, of this user's alone, which is removed with all that is left in it."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}-", dir=path.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A new directory beside `path` to fill, which gets that name when the block ends well; else it is removed.

    Raises OSError where something lies at `path` by then.
    """
    with scratch_beside(path) as scratch:
        yield scratch
        scratch.chmod(0o777 & ~_umask())
        scratch.rename(path)


@contextlib.contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """A path to write a file or a directory to, which takes the place of `path` when the block ends well."""
    with scratch_beside(path) as scratch:
        made = scratch / path.name
        yield made
        if path.is_dir():  # a directory cannot be renamed over another
            path.rename(scratch / f"{path.name}.old")
        made.replace(path)


def open_own(path: Path, mode: str) -> IO[str]:
    """A text file to read and append to, created if missing; raises OSError for a link or anything but a file.

    mode: "a" or "a+".
    """
    flags = (os.O_RDWR if "+" in mode else os.O_WRONLY) | os.O_APPEND | os.O_CREAT | NO_LINKS
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # a hard link to a file elsewhere
            raise OSError(errno.EPERM, "a link, or no file", str(path))
        return open(descriptor, mode, encoding="utf-8", errors="backslashreplace")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: Path) -> None:
    """Raises OSError if a path is not a regular file: a pipe or device would be read without end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def check_can_write(directory: Path) -> None:
    """Raises OSError if no file can be created in a directory."""
    tempfile.TemporaryFile(prefix=".", dir=directory).close()


def random_name() -> str:
    """An unpredictable name, for a file that is created exclusively."""
    return f".{secrets.token_hex(16)}"


def remove(path: Path) -> None:
    """Removes a file, a link or a whole directory, if it exists; never what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask; read without changing it if the system allows that."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)  # no other way to read it
    os.umask(mask)
    return mask


def cache_directory(given: Path | None = None) -> Path:
    """The directory of this machine's caches: `given`, $ENGINE_CACHE_DIR or the user's cache folder."""
    chosen = given or os.environ.get("ENGINE_CACHE_DIR")
    if chosen:
        return expanded(chosen)
    return users_cache_directory()


def users_cache_directory() -> Path:
    """Our part of the user's own cache folder; for a user without a home directory, a folder in /tmp."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given) / "engine"
    try:
        return Path.home() / ".cache" / "engine"
    except RuntimeError:
        return private_directory(Path(tempfile.gettempdir()) / f"engine-{os.geteuid()}")

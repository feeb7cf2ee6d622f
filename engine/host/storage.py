"""Files written where others may write too: no link that somebody laid is followed, and nothing is seen half written.

Names of scratch files cannot be foretold and are created exclusively, so nobody can lie in wait at one.
"""

import contextlib
import difflib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from engine.errors import InputError, problem

MOST_BESIDE = 10_000
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has none, nor links that everybody may make


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home directory for `~`; as it is, and so of no directory, where that home is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # containers run processes of users that the system does not know
        return Path(path)


def names_like(path: Path, most: int = 3) -> list[Path]:
    """Folders and files beside a path that has not been found (or that was not meant so) whose names are like its own.

    Of the first MOST_BESIDE there; none where that folder cannot be read.
    """
    with contextlib.suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in islice(entries, MOST_BESIDE) if not entry.name.startswith(".")]
        by_folded = {name.casefold(): name for name in sorted(names)}
        near = difflib.get_close_matches(path.name.casefold(), sorted(by_folded), n=most, cutoff=0.7)
        return [path.with_name(by_folded[name]) for name in near]
    return []


def private_directory(path: Path) -> Path:
    """A directory of this user's alone, made if there is none; raises InputError if it is not theirs alone."""
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
    """The path itself, or below the home directory where it starts with ~ and nothing of that name lies here."""
    return expanded(path) if os.fspath(path).startswith("~") and not os.path.lexists(path) else path


def is_web_address(path: str | os.PathLike[str]) -> bool:
    """Whether what should be a path is an address like https://…, which Path writes with one slash."""
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
            os.chmod(scratch, 0o666 & ~_umask())  # mkstemp keeps others from reading
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file in one go by a text."""
    with replaced(path, "w", encoding="utf-8", errors="backslashreplace") as file:  # names of files may be no text
        file.write(text)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A new directory beside `path` to fill, which gets that name when the block ends well; else it is removed.

    Raises OSError where something lies at `path` by then.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=path.parent))
    try:
        yield scratch
        scratch.chmod(0o777 & ~_umask())
        scratch.rename(path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def open_own(path: Path, mode: str) -> IO[str]:
    """A text file to read and append to, made if there is none; raises OSError for a link or anything but a file.

    mode: "a" or "a+".
    """
    flags = (os.O_RDWR if "+" in mode else os.O_WRONLY) | os.O_APPEND | os.O_CREAT | NO_LINKS
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # what has two names is somebody's elsewhere
            raise OSError(errno.EPERM, "a link, or no file", str(path))
        return open(descriptor, mode, encoding="utf-8", errors="backslashreplace")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: Path) -> None:
    """Raises OSError for what lies at a path but is no file: a pipe or device would be read without end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def check_can_write(directory: Path) -> None:
    """Raises OSError where no file can be made in a directory."""
    tempfile.TemporaryFile(prefix=".", dir=directory).close()


def random_name() -> str:
    """A name that nobody can foretell, for a file that is made exclusively."""
    return f".{secrets.token_hex(16)}"


def remove(path: Path) -> None:
    """Removes a file, a link or a whole directory, if it is there; nothing that a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    """The process's own; asked of the system without changing it where that can be."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)  # no other way to ask
    os.umask(mask)
    return mask


def cache_directory(given: Path | None = None) -> Path:
    """Where this machine keeps what can be computed again: `given`, $ENGINE_CACHE_DIR or the user's cache folder."""
    chosen = given or os.environ.get("ENGINE_CACHE_DIR")
    if chosen:
        return expanded(chosen)
    return users_cache_directory()


def users_cache_directory() -> Path:
    """The part of the user's own cache folder that is ours; of a user without a home, a folder of theirs in /tmp."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given) / "engine"
    try:
        return Path.home() / ".cache" / "engine"
    except RuntimeError:
        return private_directory(Path(tempfile.gettempdir()) / f"engine-{os.geteuid()}")

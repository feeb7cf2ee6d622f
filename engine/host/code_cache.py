"""Caches of machine code: kernels that we compiled, programs that XLA compiled. One rule for all of them.

Code is loaded only if three conditions hold. Its directory belongs to this user, and along its whole path only they and
root can write to or replace it. The file is a regular file of theirs that no other user may write. Its checksum, stored
after the content and covering the file name too, is correct. Directories are opened one inside the other and checked by
descriptor, so what was checked is what is used.
"""

import contextlib
import ctypes
import functools
import hashlib
import hmac
import logging
import os
import shutil
import stat
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePath

from engine.host.storage import NO_LINKS, cache_directory, random_name, users_cache_directory

MOST_LINKS = 40  # on the way to a directory, as in Linux
DIGEST_BYTES = 32
ABANDONED_SECONDS = 3600  # after this time no process is still writing the file
CAN_CHECK = hasattr(os, "geteuid") and os.open in os.supports_dir_fd  # Windows has other owners and rights
OPEN = NO_LINKS | getattr(os, "O_CLOEXEC", 0)
# Search permission is enough for parent directories, if the system separates it from read permission.
SEARCH = getattr(os, "O_PATH", os.O_RDONLY)
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Distrusted(OSError):
    """A directory or file that another user may have changed."""


class CodeDirectory:
    """A directory of code, from `open_code_directory`; closed at the end of a `with` block, or never."""

    def __init__(self, path: Path, descriptor: int):
        self.path, self._descriptor = path, descriptor

    def __enter__(self) -> "CodeDirectory":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def read(self, name: str) -> bytes | None:
        """What `write` stored under a name; None if it is missing, incomplete, or was accessible to other users."""
        with contextlib.suppress(OSError), self._opened(name) as descriptor:
            return _checked(name, descriptor)
        return None

    def load(self, name: str) -> ctypes.CDLL | None:
        """The library that `write` stored under a name, loaded until the process ends; None as in `read`."""
        with contextlib.suppress(OSError), self._opened(name) as descriptor:
            if _checked(name, descriptor) is None:
                return None
            if not Path("/proc/self/fd").is_dir():
                return ctypes.CDLL(str(self.path / name))  # no other user can change this path
            # Never closed: the loader takes a reused descriptor number for the same library.
            return ctypes.CDLL(f"/proc/self/fd/{os.dup(descriptor)}")
        return None

    def write(self, name: str, content: bytes) -> None:
        """Stores code under a name, atomically."""
        scratch = random_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN
        try:
            with open(os.open(scratch, flags, 0o600, dir_fd=self._descriptor), "wb") as file:
                file.write(content)
                file.write(_digest(name, content))
                file.flush()
                os.fsync(file.fileno())
            os.rename(scratch, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch, dir_fd=self._descriptor)
            raise

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory to compile in. Removes those that killed processes left."""
        self._remove_abandoned()
        with tempfile.TemporaryDirectory(prefix=".", dir=self.path) as directory:
            yield Path(directory)

    def can_execute(self) -> bool:
        """Whether the file system allows loading libraries."""
        return not os.fstatvfs(self._descriptor).f_flag & getattr(os, "ST_NOEXEC", 0)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | OPEN, dir_fd=self._descriptor)
        try:
            status = os.fstat(descriptor)
            is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if not is_plain or status.st_uid != os.geteuid() or status.st_mode & WRITABLE_BY_OTHERS:
                raise Distrusted(f"{self.path / name} may belong to another user")
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove_abandoned(self) -> None:
        for entry in os.scandir(self._descriptor):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.name[0] != "." or time.time() - status.st_mtime < ABANDONED_SECONDS:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(entry.name, dir_fd=self._descriptor)
                else:
                    os.unlink(entry.name, dir_fd=self._descriptor)


def find_code_directory(name: str, given: Path | None = None, is_executed: bool = False) -> CodeDirectory | None:
    """The directory of that name in the cache or, if that cannot be trusted, in this user's own cache folder.

    None if neither can be trusted. Either case is reported once.
    is_executed: libraries will be loaded from there, which not every file system allows.
    """
    if not CAN_CHECK:
        return None
    problems: list[str] = []
    for base in dict.fromkeys((cache_directory(given), users_cache_directory())):
        try:
            directory = open_code_directory(base / name)
        except OSError as error:
            problems.append(str(error) if isinstance(error, Distrusted) else f"{base / name}: {error.strerror}")
            continue
        if is_executed and not directory.can_execute():
            problems.append(f"{directory.path}: nothing there can be executed")
            os.close(directory._descriptor)
            continue
        if problems:
            say_once(f"compiled code is cached in {directory.path}, because of {problems[0]}")
        return directory
    say_once(f"compiled code is not cached: {'; '.join(problems)}. Set ENGINE_CACHE_DIR to a directory of your own.")
    return None


def open_code_directory(path: Path) -> CodeDirectory:
    """A directory that only this user and root can write to or replace; created, with its parents, if it is missing.

    It must not be a link. Its parents may be links that only this user or root can have created.
    Raises Distrusted, naming the directory at fault, or another OSError.
    """
    real, parts, num_links = Path("/"), deque(Path(os.path.abspath(path)).parts[1:]), 0
    descriptor = os.open("/", SEARCH | os.O_DIRECTORY | OPEN)
    try:
        while parts:
            _check_directory(real, os.fstat(descriptor), is_last=False)
            part = parts.popleft()
            target = _link_target(real, part, descriptor) if parts else None
            if target is not None:
                num_links += 1
                if num_links > MOST_LINKS:
                    raise Distrusted(f"{real / part} leads in a circle")
                parts.extendleft(reversed([part for part in target.parts if part != target.anchor]))
                if not target.is_absolute():
                    continue
                inner, real = os.open("/", SEARCH | os.O_DIRECTORY | OPEN), Path("/")
            else:
                inner = _open_inside(real, part, descriptor, is_last=not parts)
                real = real.parent if part == ".." else real / part
            os.close(descriptor)
            descriptor = inner
        _check_directory(real, os.fstat(descriptor), is_last=True)
    except BaseException:
        os.close(descriptor)
        raise
    return CodeDirectory(real, descriptor)


@functools.cache
def say_once(text: str) -> None:
    """Logs a warning once per process; on stderr, unless logging is configured otherwise."""
    logging.getLogger("engine").warning(text)


def _open_inside(parent: Path, name: str, descriptor: int, is_last: bool) -> int:
    """The descriptor of a directory in an open one; created if it is missing."""
    flags = (os.O_RDONLY if is_last else SEARCH) | os.O_DIRECTORY | OPEN
    with contextlib.suppress(FileNotFoundError):
        return _open_no_link(parent, name, flags, descriptor)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700 if is_last else 0o755, dir_fd=descriptor)
    return _open_no_link(parent, name, flags, descriptor)


def _open_no_link(parent: Path, name: str, flags: int, descriptor: int) -> int:
    try:
        return os.open(name, flags, dir_fd=descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            raise Distrusted(f"{parent / name}, a link") from None
        raise OSError(error.errno, error.strerror, str(parent / name)) from None


def _link_target(parent: Path, name: str, descriptor: int) -> PurePath | None:
    """What a name in an open directory points to; None if it is not a link."""
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(status.st_mode):
        return None
    if not _is_trusted_owner(status.st_uid) or _is_open_to_others(os.fstat(descriptor)):
        raise Distrusted(f"{parent / name}, a link that others may have laid")
    return PurePath(os.readlink(name, dir_fd=descriptor))


def _check_directory(path: Path, status: os.stat_result, is_last: bool) -> None:
    """Raises Distrusted if others can change the content of a directory, or replace it.

    Parent directories may be sticky, like /tmp: there only its owner can replace an entry.
    """
    is_owned = status.st_uid == os.geteuid() if is_last else _is_trusted_owner(status.st_uid)
    if not is_owned:
        raise Distrusted(f"{path}, which belongs to another user")
    if _is_open_to_others(status) and (is_last or not status.st_mode & stat.S_ISVTX):
        raise Distrusted(f"{path}, where others can write")


def _is_open_to_others(status: os.stat_result) -> bool:
    is_group_others = status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid, os.geteuid())
    return bool(status.st_mode & stat.S_IWOTH or is_group_others)


def _is_trusted_owner(uid: int) -> bool:
    return uid in (0, os.geteuid()) or uid == _unmapped_root()


@functools.cache
def _is_own_group(gid: int, uid: int) -> bool:
    """Whether a group has one user alone: many systems create one for each, with a umask that lets the group write."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


@functools.cache
def _unmapped_root() -> int | None:
    """The user that root's files seem to belong to in a container that does not map root; None elsewhere."""
    try:
        mapped = [line.split() for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()]
        if any(int(inside) == 0 for inside, _, _ in mapped):
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _checked(name: str, descriptor: int) -> bytes | None:
    """The content of a file before the checksum at its end; None if the checksum is wrong."""
    with open(descriptor, "rb", closefd=False) as file:
        whole = file.read()
    content, digest = whole[:-DIGEST_BYTES], whole[-DIGEST_BYTES:]
    return content if hmac.compare_digest(digest, _digest(name, content)) else None


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=hashlib.sha256(name.encode()).digest()).digest()

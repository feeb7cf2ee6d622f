"""Disks that fill up and directories that cannot be written, even by root: mounts, where they are permitted."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


class NotPermitted(Exception):
    """This process may not mount."""


@contextlib.contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[None]:
    """A disk in memory of that size at `path`; raises NotPermitted where mounting is not."""
    path.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path))
    with _unmounted(path):
        yield


def enlarge(path: Path) -> None:
    """Gives a small disk room for all that a run leaves."""
    _mount("-o", "remount,size=256m", str(path))


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """The directory as one of a disk that is mounted for reading only; raises NotPermitted where mounting is not."""
    _mount("--bind", str(path), str(path))
    with _unmounted(path):
        _mount("-o", "remount,ro,bind", str(path))
        yield


@contextlib.contextmanager
def _unmounted(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotPermitted(getattr(error, "stderr", "") or str(error)) from None

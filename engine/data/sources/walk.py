"""Which pictures lie below a folder: the one walk for training, predicting, evaluating and surveying."""

import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from engine.data.classes.names import composed
from engine.data.pictures.images import SUFFIXES, is_picture_name
from engine.data.sources.split_names import split_roles
from engine.errors import InputError, problem, remedy_for
from engine.host.console import warn
from engine.host.storage import at_home
from engine.text import one_line

# What systems lay beside people's files; in lower case, and whatever starts with a dot.
SYSTEM_NAMES = {
    "__macosx", "@eadir", "@tmp", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "found.000", "__pycache__",
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
}  # fmt: skip
HIDDEN = "hidden or system"
LINKED_TWICE = "linked folders that are read elsewhere"
NOT_FOLLOWED = "linked folders (data.follow-links off)"
DEAD_LINKS = "links to nothing"
NO_SUFFIX = "without a suffix"
OTHER_SUFFIXES = "of other suffixes"
SHOWN_KINDS = 8
LONGEST_SUFFIX = 12
SHOWN_NAME = 60


class ImageFile(NamedTuple):
    """A file as it was found: equal values mean that it has not changed since it was decoded.

    name: its path below the folder or table that it was found in, with slashes.
    """

    path: str
    name: str
    size_bytes: int
    mtime_ns: int


@dataclass
class PassedOver:
    """What a walk did not take for a picture: how many of each kind, and the first of each.

    A folder counts once, whatever is in it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        """One more of a kind."""
        self.counts[kind] += 1
        self.first[kind] = min(name, self.first.get(kind, name))

    def text(self) -> str:
        """`40 .heic (a.heic first), 1 hidden or system (@eaDir)`, the most frequent first; empty if there is none."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{count:,} {kind}{self._named(kind, count)}" for kind, count in ranked[:SHOWN_KINDS]]
        more = sum(count for _, count in ranked[SHOWN_KINDS:])
        return ", ".join([*shown, *([f"{more:,} of other kinds"] if more else [])])

    def _named(self, kind: str, count: int) -> str:
        name = one_line(self.first[kind])
        name = name if len(name) <= SHOWN_NAME else f"{name[: SHOWN_NAME // 2]}…{name[-SHOWN_NAME // 2 :]}"
        return f" ({name} first)" if count > 1 else f" ({name})"


@dataclass(frozen=True)
class Found:
    """The pictures below a folder, in order of their names, and what else was there."""

    files: list[ImageFile]
    passed: PassedOver


class _Folder(NamedTuple):
    below: str  # its name below the root, with a slash at its end; "" for the root
    path: str


def walk(root: str | PathLike[str], follow_links: bool = True) -> Found:
    """All image files at any depth below a folder.

    Hidden and system files and folders are passed over. Linked folders are read after all others, so that each folder
    is read once in a split, under its own name where it has one below the root; this ends loops too. Links to nothing
    and pipes that are named like pictures count as such, which decoding will name. Names are composed (NFC), so that
    macOS and Linux agree. Raises InputError for a folder that cannot be read.
    """
    start = _Folder("", "" if str(root) == "." else str(root))
    files, passed, links = list[ImageFile](), PassedOver(), list[_Folder]()
    seen, todo = _Seen(start), [start]
    while todo or links:
        if not todo:
            todo.append(heapq.heappop(links))
        folder = todo.pop()
        if not seen.is_new(folder):
            passed.add(LINKED_TWICE, folder.below.rstrip("/"))
            continue
        for entry in _entries(folder.path):
            path, name = os.path.join(folder.path, entry.name), folder.below + composed(entry.name)
            if is_hidden(entry.name):
                passed.add(HIDDEN, name)
            elif not is_folder(entry):
                _take_file(entry, path, name, files, passed)
            elif not entry.is_symlink():
                todo.append(_Folder(f"{name}/", path))
            elif follow_links:
                heapq.heappush(links, _Folder(f"{name}/", path))
            else:
                passed.add(NOT_FOLLOWED, name)
    return Found(sorted(files, key=lambda file: (file.name, file.path)), passed)


def picture_files(
    paths: Iterable[str | PathLike[str]], say: Callable[[str], None] = warn, follow_links: bool = True
) -> list[str]:
    """The files named, and in place of each folder all image files below it, in order of their names.

    Files passed over in a folder are reported to `say` in one line. Texts and not Paths, because a million Paths take
    three times the memory.
    """
    files: list[str] = []
    for path in paths:
        if not str(path).strip():  # or it would be the working directory
            raise InputError(problem("pictures", repr(str(path)), "a path", "Name a file or folder."))
        path = Path(at_home(path))
        if not path.is_dir():
            files.append(str(path))
            continue
        found = walk(path, follow_links)
        if not found.files:
            rule = "image files below it (" + " ".join(sorted(SUFFIXES)) + ")"
            got = f"a folder with {found.passed.text()}" if found.passed.counts else "an empty folder"
            raise InputError(problem(str(path), got, rule, "Check the path."))
        if found.passed.counts:
            say(passed_over_text(str(path), found.passed))
        files += [file.path for file in found.files]
    return files


def passed_over_text(where: str, passed: PassedOver) -> str:
    """The one line that says what was passed over."""
    return f"{where}: passed over {passed.text()}"


class _Seen:
    """The folders that were read, by device and inode; for each split, since one may be a link to another."""

    def __init__(self, root: _Folder):
        # A link to a folder above would lead back here, and to all that lies beside.
        real = Path(os.path.realpath(root.path or "."))
        self._above = {_identity(root)} | {_identity(_Folder("", str(folder))) for folder in real.parents}
        self._of_split: dict[str, set[tuple[int, int]]] = {}

    def is_new(self, folder: _Folder) -> bool:
        """Whether the folder was not read before; from now on it was."""
        top, identity = folder.below.split("/", 1)[0], _identity(folder)
        seen = self._of_split.setdefault(top if split_roles([top]) else "", set())
        if identity in seen or (folder.below and identity in self._above):
            return False
        seen.add(identity)
        return True


def _identity(folder: _Folder) -> tuple[int, int]:
    try:
        about = os.stat(folder.path or ".")
    except OSError as error:
        raise InputError(_unreadable(folder.path, error)) from None
    return about.st_dev, about.st_ino


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path or ".") as entries:
            found = list(entries)
    except OSError as error:  # or it would look like a folder without images
        raise InputError(_unreadable(path, error)) from None
    return found


def _unreadable(path: str, error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return problem(path or ".", reason, "a folder that can be read", remedy_for(error, "Correct it."))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over for its name, as those are that systems lay beside people's files."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _take_file(entry: os.DirEntry[str], path: str, name: str, files: list[ImageFile], passed: PassedOver) -> None:
    if is_picture_name(entry.name):
        files.append(file_at(path, name))
    elif entry.is_symlink() and not os.path.exists(path):
        passed.add(DEAD_LINKS, name)
    else:
        passed.add(suffix_kind(entry.name), name)


def file_at(path: str, name: str) -> ImageFile:
    """A file as it lies there; of a link to nothing the link, and what may not be read, which decoding will name."""
    try:
        try:
            about = os.stat(path)  # asked once: of a million files that takes seconds
        except OSError:
            about = os.lstat(path)
    except OSError:  # in a folder whose names may be read, and not its files
        return ImageFile(path, name, -1, 0)
    return ImageFile(path, name, about.st_size, about.st_mtime_ns)


def suffix_kind(name: str) -> str:
    """What a file that is no picture is counted as."""
    suffix = os.path.splitext(name)[1].lower()
    if not suffix:
        return NO_SUFFIX
    return suffix if len(suffix) <= LONGEST_SUFFIX and suffix.isprintable() else OTHER_SUFFIXES

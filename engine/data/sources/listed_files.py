"""File names as tables have them → files: of other systems, in another case, without a suffix, in another folder."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.config.data import DataConfig
from engine.data.classes.names import composed, names_text
from engine.data.pictures.images import SUFFIXES, is_picture_name
from engine.data.sources.walk import ImageFile, is_hidden
from engine.errors import InputError, problem
from engine.host.storage import expanded, is_web_address
from engine.text import one_line

SAMPLE_NAMES = 50
NAMED_FILES = 10
SEPARATORS = "with / for \\"
ANOTHER_FORM = "in another case or Unicode form"
WITH_SUFFIX = "with a suffix added"
BELOW = "by the end of their paths"
AT_HOME = "in the home directory (~)"


class Finder:
    """Finds the files that a table names below one folder, and counts how they had to be read."""

    def __init__(self, base: Path, suffix: str | None = None, is_given: bool = False):
        """is_given: the folder was named, so that the ends of other machines' absolute paths are looked for in it."""
        self.base, self._suffix, self._is_given = str(base), suffix or "", is_given
        self.counts: Counter[str] = Counter()
        self._listings: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> str | None:
        """The path of the file that a name stands for; None if there is none."""
        if is_web_address(name):
            return None
        path = os.path.join(self.base, name + self._suffix)
        if os.path.exists(path):
            return path
        if name.startswith("~") and os.path.exists(path := expanded(name + self._suffix)):
            self.counts.update([AT_HOME])
            return str(path)
        kinds = [SEPARATORS] if "\\" in name else []
        parts = [part for part in re.split(r"[/\\]", name + self._suffix) if part not in ("", ".")]
        starts = [0]
        if _is_absolute(name):
            starts = list(range(1, len(parts))) if self._is_given else []
            kinds = [BELOW]
        for start in starts:
            if (found := self._among(parts[start:])) is not None:
                self.counts.update({*kinds, *found[1]})
                return found[0]
        return None

    def _among(self, parts: Sequence[str]) -> tuple[str, list[str]] | None:
        """(the path that the parts lead to, in how far they had to be read otherwise)."""
        path, kinds = self.base, list[str]()
        for number, part in enumerate(parts, 1):
            exact = os.path.join(path, part)
            if os.path.exists(exact):
                path = exact
                continue
            alike = self._alike(path, part)
            if not alike and number == len(parts) and not self._suffix and not is_picture_name(part):
                alike = [name for suffix in SUFFIXES for name in self._alike(path, part + suffix)]
                kinds.append(WITH_SUFFIX)
            else:
                kinds.append(ANOTHER_FORM)
            if len(alike) > 1:
                got, rule = f"{part!r} for {names_text(sorted(alike))} in {path}", "names that stand for one file"
                raise InputError(problem("data.suffix", got, rule, "Set --data.suffix, or write the names in full."))
            if not alike:
                return None
            path = os.path.join(path, alike[0])
        return path, kinds

    def _alike(self, directory: str, part: str) -> list[str]:
        """The entries of a folder whose names differ from a part in case and Unicode form alone."""
        if directory not in self._listings:
            listing: dict[str, list[str]] = {}
            for name in _entries(directory):
                listing.setdefault(composed(name).casefold(), []).append(name)
            self._listings[directory] = listing
        return self._listings[directory].get(composed(part).casefold(), [])


def finder_for(table: Path, names: Sequence[str], config: DataConfig) -> Finder:
    """A finder below the folder that the config names, or below the one in which the first names are found.

    That is the folder of the table, else the working directory, else one folder beside the table. Raises InputError
    if the folder named is none, or if names are found in several folders beside the table.
    """
    if config.image_directory is not None:
        return Finder(_given_directory(config.image_directory, table.parent), config.suffix, is_given=True)
    beside = Finder(table.parent, config.suffix)
    sample = list(dict.fromkeys(names[:SAMPLE_NAMES]))
    if any(beside.find(name) for name in sample):
        return Finder(table.parent, config.suffix)
    folders = [table.parent / name for name in sorted(_entries(str(table.parent))) if not is_hidden(name)]
    for group in ([Path()], [folder for folder in folders if folder.is_dir()]):
        holding = [folder for folder in group if any(Finder(folder, config.suffix).find(name) for name in sample)]
        if len(holding) > 1:
            got = f"{table} with {names_text(sample)}, which are in {names_text(map(str, holding))}"
            raise InputError(problem("data.image_directory", got, "one folder", "Name it with --data.image-directory."))
        if holding:
            return Finder(holding[0], config.suffix)
    return Finder(table.parent, config.suffix)


def image_file(path: str | None, name: str, base: str) -> ImageFile:
    """A file as it lies there; one that does not is found out when it is decoded."""
    path = path or (name if is_web_address(name) else os.path.join(base, name))
    try:
        about = os.stat(path)
    except (OSError, ValueError):  # or a name with a NUL
        return ImageFile(path, name, -1, 0)
    return ImageFile(path, name, about.st_size, about.st_mtime_ns)


def check_there(table: Path, missing: Sequence[str], count: int, finder: Finder) -> None:
    """Raises InputError naming the first files that are not there, with what may be meant."""
    if not missing:
        return
    skip = "" if len(missing) == count else ", or skip them: --data.on-bad-file skip"
    num_web = sum(map(is_web_address, missing))
    if num_web == len(missing):
        got, rule = f"{num_web:,} of {count:,} files that are web addresses", "files on this machine"
        remedy = f"Download them, and write their paths into the table{skip}."
    else:
        web = f" ({num_web:,} of them web addresses, which must be downloaded first)" if num_web else ""
        got = f"{len(missing):,} of {count:,} files that are not there{web}"
        rule = f"paths that start at {finder.base or '.'}"
        remedy = f"Correct them, or set --data.image-directory or --data.suffix{skip}."
    lines = [f"  {one_line(name)}" for name in missing[:NAMED_FILES]]
    more = [f"  … and {len(missing) - NAMED_FILES:,} more"] if len(missing) > NAMED_FILES else []
    text = problem(str(table), got, rule, remedy)
    raise InputError("\n".join([text, *lines, *more]))


def _given_directory(given: Path, beside: Path) -> Path:
    """The folder that the config names, from the working directory or else from beside the table."""
    given = expanded(given)
    for folder in (given, beside / given):
        if folder.is_dir():
            return folder
    rule = "a folder, from the working directory or from beside the table"
    raise InputError(problem("data.image_directory", given, rule, "Correct it."))


def _is_absolute(name: str) -> bool:
    return os.path.isabs(name) or re.match(r"[A-Za-z]:[/\\]|\\\\", name) is not None


def _entries(directory: str) -> Iterable[str]:
    try:
        return os.listdir(directory or ".")
    except (OSError, ValueError):  # no folder, or one that may not be read: nothing is found in it
        return []

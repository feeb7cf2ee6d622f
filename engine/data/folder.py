"""A folder of images, one sub-folder a class, perhaps divided into splits above that → Source.

Files are told from before by their names, sizes and times and not by what they hold, so that a second start of many
files takes one directory scan.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.data.config import DataConfig
from engine.data.dataset import Dataset, names_text
from engine.data.files import ImageFile, load_files
from engine.data.images import SUFFIXES, is_picture_name
from engine.data.source import split_title
from engine.errors import InputError, problem

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}
SPLIT_ORDER = ("train", "validation", "test")
LAYOUT = "one folder a class, like {name}/cat/1.jpg and {name}/dog/2.jpg, or these below {name}/train and {name}/test"

# Files by class, in the order they are read in.
Classes = dict[str, list[ImageFile]]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class FolderSource:
    """Image files by split and class."""

    name: str
    splits: dict[str, Classes]
    config: DataConfig
    tell: Tell

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it has; "train" where it is not divided."""
        return tuple(self.splits)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the training split in order; of all splits where it has none."""
        chosen = [self.splits["train"]] if "train" in self.splits else list(self.splits.values())
        return tuple(sorted({name for classes in chosen for name in classes}))

    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field` if there is no such split, or if it has classes of its own."""
        name = split_title(self.name, self.splits, split, field)
        classes, names = self.splits[split], self.class_names
        odd = [class_name for class_name in names if not class_name.isprintable()]
        if odd:  # bytes that are no text, or a line break: no table, picture or record could show it
            raise InputError(problem(name, f"a class named {odd[0]!a}", "a printable name", "Rename that folder."))
        more = tuple(sorted(set(classes) - set(names)))
        if more:
            got, rule = f"classes that train lacks ({names_text(more)})", f"those of train ({names_text(names)})"
            raise InputError(problem(name, got, rule, "Rename or remove these folders, or add them to train."))
        files = [(file, k) for k, class_name in enumerate(names) for file in classes.get(class_name, ())]
        return load_files([file for file, _ in files], [k for _, k in files], names, name, self.config, self.tell)


def open_folder(config: DataConfig, tell: Tell) -> FolderSource:
    """The folder at `config.path`, its files found but not read; raises InputError if they are not laid out so."""
    assert config.path is not None
    root = config.path.expanduser()
    tops = _by_folder(find_images(root), 0)
    if set(map(_split_of, tops)) - {""} <= set(SPLIT_ORDER) and set(tops) - {""}:
        splits = _divided(root, tops, tell)
    else:
        splits = {"train": _classes(root, tops, tell)}
        _check_several(root, splits["train"], 0)
        _tell_of_splits(root, tuple(splits["train"]), tell)
    return FolderSource(name_of(root), splits, config, tell)


def name_of(path: Path) -> str:
    """What reports call the data at a path: its last part, with � for what is no text."""
    name = Path(os.path.abspath(path)).name or "root"
    return "".join(letter if letter.isprintable() else "�" for letter in name)


def find_images(root: Path) -> list[ImageFile]:
    """All image files at any depth below a folder, in order of their names; linked folders too, but no loops.

    Hidden files and folders and __MACOSX are passed over. Names are composed (NFC), so that macOS and Linux agree.
    """
    return sorted(_walk(str(root), "", frozenset()), key=lambda file: (file.name, file.path))


def _walk(directory: str, below: str, above: frozenset[tuple[int, int]]) -> Iterator[ImageFile]:
    """`above`: the folders on the way here, by device and inode; one of them again is a loop."""
    try:
        about = os.stat(directory)
        identity = (about.st_dev, about.st_ino)
        if identity in above:
            return
        with os.scandir(directory) as entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    continue
                if _is_folder(entry):
                    yield from _walk(entry.path, f"{below}{_composed(entry.name)}/", above | {identity})
                elif is_picture_name(entry.name) and (entry.is_symlink() or entry.is_file()):
                    yield _found(entry, below)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(problem(directory, reason, "a folder that can be read", "Correct it.")) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _found(entry: os.DirEntry[str], below: str) -> ImageFile:
    try:
        about = entry.stat()
    except OSError:  # a link to nothing or to itself, which decoding will name
        about = entry.stat(follow_symlinks=False)
    return ImageFile(entry.path, below + _composed(entry.name), about.st_size, about.st_mtime_ns)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _split_of(folder: str) -> str:
    return SPLITS.get(folder.lower(), folder)


def _by_folder(files: list[ImageFile], depth: int) -> Classes:
    """The files by the part of their names at a depth, in order; "" for those that lie there in no folder."""
    found: Classes = {}
    for file in files:
        parts = file.name.split("/", depth + 1)
        found.setdefault(parts[depth] if len(parts) > depth + 1 else "", []).append(file)
    return dict(sorted(found.items()))


def _divided(root: Path, tops: Classes, tell: Tell) -> dict[str, Classes]:
    """Files by split and class, for folders that are all named like splits."""
    splits: dict[str, Classes] = {}
    loose = tops.pop("", [])
    for top in sorted(tops, key=lambda top: (SPLIT_ORDER.index(_split_of(top)), top)):
        split, classes = _split_of(top), _by_folder(tops[top], 1)
        if split in splits:
            both = " and ".join(other for other in tops if _split_of(other) == split)
            rule = f"one folder for the {split} split"
            raise InputError(problem("data.path", f"{both} in {root}", rule, "Rename or remove the other."))
        if set(classes) == {""} and split != "train" and len(tops) > 1:
            tell(f"{root / top}: its images lie in no class folders; this split is left out")
        else:
            splits[split] = _classes(root / top, classes, tell)
    if not splits:
        raise InputError(_layout_problem(root, "no class folders"))
    if "train" in splits:
        _check_several(root, splits["train"], 1)
    _tell_of_loose(root, loose, tell)
    return splits


def _classes(folder: Path, found: Classes, tell: Tell) -> Classes:
    """The class folders among what was found in a folder; tells what else is there, so that nothing is lost unseen."""
    loose = found.pop("", [])
    if not found:
        got = f"{len(loose):,} images and no folders of them" if loose else "no images"
        raise InputError(_layout_problem(folder, got))
    _tell_of_loose(folder, loose, tell)
    with os.scandir(folder) as entries:
        folders = {_composed(entry.name) for entry in entries if not _is_hidden(entry.name) and entry.is_dir()}
    if empty := tuple(sorted(folders - set(found))):
        tell(f"{folder}: no images in {names_text(empty)}, left out")
    return found


def _tell_of_loose(folder: Path, loose: list[ImageFile], tell: Tell) -> None:
    if loose:
        tell(f"{folder}: left out {len(loose):,} images that lie in no class folder, {loose[0].name} first")


def _tell_of_splits(root: Path, classes: tuple[str, ...], tell: Tell) -> None:
    splits = tuple(name for name in classes if _split_of(name) in SPLIT_ORDER)
    if splits:
        others = names_text(tuple(name for name in classes if name not in splits))
        tell(f"{root}: {names_text(splits)} are taken for classes and not for splits, because of {others} beside them")


def _check_several(root: Path, classes: Classes, depth: int) -> None:
    """Raises InputError for a single class, of which nothing can be learnt."""
    if len(classes) > 1:
        return
    ((name, files),) = classes.items()
    folder = root / files[0].name.split("/")[0] / name if depth else root / name
    has_folders = any(file.name.count("/") > depth + 1 for file in files)
    remedy = f"If the classes are in there, set --data.path {folder}." if has_folders else "Add other classes."
    raise InputError(problem("data.path", f"{root} with 1 class folder, {name}", "at least 2", remedy))


def _layout_problem(folder: Path, got: str) -> str:
    endings = " ".join(sorted(SUFFIXES))
    rule = LAYOUT.format(name=name_of(folder))
    return problem("data.path", f"{folder} with {got}", rule, f"Sort the files ({endings}) so.")

"""A folder of images, one sub-folder a class, perhaps divided into splits above that → Source.

Files are recognised by their names, sizes and times, not by their content, so a second start takes one directory scan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.config.data import DataConfig
from engine.data.classes.names import Names, check_printable, composed, names_text, ordered
from engine.data.decoded.dataset import Dataset
from engine.data.sources import as_keras
from engine.data.sources.class_folders import Classes, lay_out, layout_problem, name_of
from engine.data.sources.files import load_files
from engine.data.sources.source import Source, split_title
from engine.data.sources.walk import ImageFile, PassedOver, passed_over_text, walk
from engine.errors import InputError, problem, unknown
from engine.host.collecting import without_collecting
from engine.host.storage import expanded

Tell = Callable[[str], None]


@dataclass(frozen=True)
class FolderSource(Source):
    """Image files by split and class.

    unlabelled: folders named like splits whose pictures have no classes. passed: what was not taken for a picture.
    """

    name: str
    splits: dict[str, Classes]
    config: DataConfig
    tell: Tell
    unlabelled: dict[str, Path] = field(default_factory=dict)
    passed: PassedOver = field(default_factory=PassedOver)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it has; "train" where it is not divided."""
        return tuple(self.splits)

    @property
    def passed_over(self) -> dict[str, int]:
        """How many files and folders were not taken for pictures, by kind."""
        return dict(self.passed.counts)

    def image_files(self) -> dict[str, list[str]]:
        """Paths of the image files by split, in the order of the examples."""
        return {
            split: [file.path for name in sorted(classes) for file in classes[name]]
            for split, classes in self.splits.items()
        }

    def load(self, split: str, field: str) -> Dataset:
        """One split with the classes it has; raises InputError naming `field` if there is no such split."""
        if split in self.unlabelled and split not in self.splits:
            got = f"{split!r} ({self.unlabelled[split]}), whose images lie in no class folders"
            raise InputError(problem(field, got, "a split with labels", "Sort them into folders, or predict them."))
        name = split_title(self.name, self.splits, split, field)
        classes, names = self.splits[split], self.listed_names(split)
        check_printable(classes, name, "Rename that folder.")
        index = {class_name: k for k, class_name in enumerate(names)}
        # Files in the order of the folders' names as text, whatever the order of the classes: older runs resume.
        order = names if self.config.split_as == "keras" else sorted(set(classes) & set(names))
        files = [file for class_name in order for file in classes.get(class_name, ())]
        labels = [index[class_name] for class_name in order for _ in classes.get(class_name, ())]
        return load_files(files, labels, names, name, self.config, self.tell)

    def listed_names(self, split: str) -> Names:
        """The classes of a split in order: its own, or those that the config lists, which some split must have."""
        classes, listed = self.splits[split], self.config.class_names
        if listed is None:
            return tuple(classes) if self.config.split_as == "keras" else ordered(classes)
        known = {name for split_classes in self.splits.values() for name in split_classes}
        names = tuple(map(composed, listed))
        for name in names:
            if name not in known:
                raise InputError(unknown("data.class_names", name, ordered(known)))
        others = {name: len(files) for name, files in classes.items() if name not in names}
        if others:
            count = f"left out {sum(others.values()):,} images of classes that are not in data.class-names"
            self.tell(f"{self.name}: {count} ({names_text(ordered(others))})")
        return names


@without_collecting()
def open_folder(config: DataConfig, tell: Tell) -> FolderSource:
    """The folder at `config.path`, its files found but not read; raises InputError if they are not laid out so."""
    assert config.path is not None
    root = expanded(config.path)
    is_as_keras = config.split_as == "keras"
    follow_links = config.follow_links == "on" or (config.follow_links is None and not is_as_keras)
    found = walk(root, follow_links or is_as_keras)
    if not is_as_keras:
        _tell_passed(root, found.passed, tell)
    if not found.files:
        raise InputError(layout_problem(root, "no images"))
    tell_empty = (lambda text: None) if is_as_keras else tell  # Keras takes empty folders for classes
    layout, passed = lay_out(root, found.files, tell, tell_empty), found.passed
    if is_as_keras:
        passed = PassedOver()
        for split, folder in layout.folders.items():
            left_out = _held(root, folder, found.files) - set(layout.splits[split])
            layout.splits[split] = _as_keras(folder, left_out, follow_links, passed, tell)
        _tell_passed(root, passed, tell)
    return FolderSource(name_of(root), layout.splits, config, tell, layout.unlabelled, passed)


def _tell_passed(root: Path, passed: PassedOver, tell: Tell) -> None:
    if passed.counts:
        tell(passed_over_text(name_of(root), passed))


def _held(root: Path, folder: Path, files: list[ImageFile]) -> set[str]:
    """The folders right in a folder that hold images."""
    prefix = "".join(f"{part}/" for part in folder.relative_to(root).parts)
    below = [file.name.removeprefix(prefix) for file in files if file.name.startswith(prefix)]
    return {name.split("/")[0] for name in below if "/" in name}


def _as_keras(folder: Path, left_out: set[str], follow_links: bool, passed: PassedOver, tell: Tell) -> Classes:
    """The files below the folder of a split as Keras lists them, but for folders that are no classes."""
    folders = as_keras.class_folders(folder, left_out)
    classes = as_keras.list_files(folder, folders, follow_links, passed)
    if note := as_keras.listing_note(str(folder), classes):
        tell(note)
    return classes

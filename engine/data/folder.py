"""A folder of images, one sub-folder a class, perhaps divided into splits above that → Source.

Files are told from before by their names, sizes and times and not by what they hold, so that a second start of many
files takes one directory scan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.class_folders import Classes, lay_out, layout_problem, name_of
from engine.data.config import DataConfig
from engine.data.dataset import Dataset
from engine.data.files import load_files
from engine.data.names import check_printable, ordered
from engine.data.source import split_title
from engine.data.walk import PassedOver, passed_over_text, walk
from engine.errors import InputError, problem
from engine.storage import expanded

Tell = Callable[[str], None]


@dataclass(frozen=True)
class FolderSource:
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

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the training split in order; of all splits where it has none."""
        chosen = [self.splits["train"]] if "train" in self.splits else list(self.splits.values())
        return ordered(name for classes in chosen for name in classes)

    def load(self, split: str, field: str) -> Dataset:
        """One split with the classes it has; raises InputError naming `field` if there is no such split."""
        if split in self.unlabelled and split not in self.splits:
            got = f"{split!r} ({self.unlabelled[split]}), whose images lie in no class folders"
            raise InputError(problem(field, got, "a split with labels", "Sort them into folders, or predict them."))
        name = split_title(self.name, self.splits, split, field)
        classes = self.splits[split]
        check_printable(classes, name, "Rename that folder.")
        names = ordered(classes)
        # Files in the order of the folders' names as text, whatever the order of the classes: runs of before resume.
        index = {class_name: k for k, class_name in enumerate(names)}
        files = [(file, index[class_name]) for class_name in sorted(classes) for file in classes[class_name]]
        return load_files([file for file, _ in files], [k for _, k in files], names, name, self.config, self.tell)


def open_folder(config: DataConfig, tell: Tell) -> FolderSource:
    """The folder at `config.path`, its files found but not read; raises InputError if they are not laid out so."""
    assert config.path is not None
    root = expanded(config.path)
    found = walk(root)
    if found.passed.counts:
        tell(passed_over_text(name_of(root), found.passed))
    if not found.files:
        raise InputError(layout_problem(root, "no images"))
    layout = lay_out(root, found.files, tell)
    return FolderSource(name_of(root), layout.splits, config, tell, layout.unlabelled, found.passed)

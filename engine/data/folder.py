"""A folder of images, one sub-folder a class, perhaps divided into splits above that → Source.

Files are told from before by their names, sizes and times and not by what they hold, so that a second start of many
files takes one directory scan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.class_folders import Classes, lay_out, layout_problem, name_of
from engine.data.config import DataConfig
from engine.data.dataset import Dataset, names_text
from engine.data.files import load_files
from engine.data.source import split_title
from engine.data.walk import PassedOver, passed_over_text, walk
from engine.errors import InputError, problem

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
        return tuple(sorted({name for classes in chosen for name in classes}))

    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field` if there is no such split, or if it has classes of its own."""
        if split in self.unlabelled and split not in self.splits:
            got = f"{split!r} ({self.unlabelled[split]}), whose images lie in no class folders"
            raise InputError(problem(field, got, "a split with labels", "Sort them into folders, or predict them."))
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
    found = walk(root)
    if found.passed.counts:
        tell(passed_over_text(name_of(root), found.passed))
    if not found.files:
        raise InputError(layout_problem(root, "no images"))
    layout = lay_out(root, found.files, tell)
    return FolderSource(name_of(root), layout.splits, config, tell, layout.unlabelled, found.passed)

"""The interface of every kind of data, before any of it is decoded."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

from engine.data.decoded.dataset import Dataset
from engine.errors import InputError, unknown


class Source(ABC):
    """Data that has splits, of which `load` decodes one, or maps what was decoded before.

    name: what reports and messages call it.
    """

    name: str

    @property
    @abstractmethod
    def split_names(self) -> tuple[str, ...]:
        """The splits it has; "train" where it is not divided."""

    @abstractmethod
    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field`, the setting that names the split, if there is none."""

    @property
    def passed_over(self) -> dict[str, int]:
        """How many files and folders beside the data were not taken for it, by kind."""
        return {}

    @property
    def has_open_sizes(self) -> bool:
        """Whether images are known to differ in size, or to be allowed to, without a look at any."""
        return False

    def image_files(self) -> dict[str, list[str]]:
        """Paths of the image files by split, in the order of the examples; none for data that is no files of images."""
        return {}


def visible_entries(folder: Path) -> list[Path]:
    """What lies right in a folder and is not hidden."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def split_title(source_name: str, splits: Collection[str], split: str, field: str) -> str:
    """What a split is called: the source's name, and its own where there are several; InputError if there is none."""
    if split not in splits:
        raise InputError(unknown(field, split, splits))
    return f"{source_name} {split}" if len(splits) > 1 else source_name

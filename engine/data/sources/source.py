"""What every kind of data is opened as, before any of it is decoded."""

from collections.abc import Collection
from typing import Protocol

from engine.data.decoded.dataset import Dataset
from engine.errors import InputError, unknown


class Source(Protocol):
    """Data that has splits. `load` decodes one of them, or maps what was decoded before.

    field: the setting that errors about the split name, like data.test_split.
    """

    @property
    def name(self) -> str:
        """What reports and messages call it."""
        ...

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it has; "train" where it is not divided."""
        ...

    @property
    def passed_over(self) -> dict[str, int]:
        """How many files and folders beside the data were not taken for it, by kind."""
        ...

    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field` if there is no such split."""
        ...


def split_title(source_name: str, splits: Collection[str], split: str, field: str) -> str:
    """What a split is called: the source's name, and its own where there are several; InputError if there is none."""
    if split not in splits:
        raise InputError(unknown(field, split, splits))
    return f"{source_name} {split}" if len(splits) > 1 else source_name

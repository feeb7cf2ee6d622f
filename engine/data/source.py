"""What every kind of data is opened as, before any of it is decoded."""

from typing import Protocol

from engine.data.dataset import Dataset


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

    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field` if there is no such split."""
        ...

"""Data of the user's own: a function that is named in the config → Source."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset, Splits, fingerprint_of
from engine.data.in_memory import Reading, read_dataset, unpack_arrays
from engine.data.pictures.images import fit_images
from engine.data.sources.class_order import in_listed_order
from engine.data.sources.source import Source, split_title
from engine.errors import InputError, Say, problem

RULE = "a function that returns Splits, a Dataset, (images, labels), also with weights, or a Source"


@dataclass(frozen=True)
class OwnSource(Source):
    """The datasets that a function returned, by split."""

    name: str
    splits: Mapping[str, Dataset]
    config: DataConfig
    say: Say

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that the function returned; "train" for a single dataset."""
        return tuple(self.splits)

    def load(self, split: str, field: str) -> Dataset:
        """One split, in the size and colours of the config; raises InputError naming `field` if there is none."""
        title = split_title(self.name, self.splits, split, field)
        dataset = _fit(replace(self.splits[split], name=title), self.config)
        return in_listed_order(dataset, self.config.class_names, split != self.config.split, self.say)


def open_own(config: DataConfig, say: Say) -> Source:
    """What the function of `config.source` returns, which is called here and so runs its module's code."""
    assert config.source is not None
    given, name = config.source.make("data.source"), config.source.name
    if isinstance(given, Source):
        return given
    if isinstance(given, Splits):
        return OwnSource(name, given.named, config, say)
    if not isinstance(given, Dataset):
        arrays = unpack_arrays(given, "data.source", RULE)
        usual = config.levels if isinstance(config.levels, tuple) else None
        given = read_dataset(arrays, None, name, Reading(None, usual, config.layout), say)
    return OwnSource(name, {"train": given}, config, say)


def _fit(dataset: Dataset, config: DataConfig) -> Dataset:
    """The dataset with its pictures in the size and colours of the config, where it has any."""
    if config.image_size is None and config.color is None:
        return dataset
    if dataset.images.dtype != np.uint8 or len(dataset.input_shape) != 3:
        got, rule = f"{dataset.name} of other arrays", "pictures, uint8[n h w c], to be resized"
        raise InputError(problem("data.image_size", got, rule, "Leave out data.image_size and data.color."))
    images = fit_images(np.asarray(dataset.images[:]), config)
    if images.shape[1:] == dataset.input_shape:
        return dataset
    return replace(dataset, images=images, hashes=None, fingerprint=fingerprint_of(images, dataset.labels))

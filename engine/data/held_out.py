"""Data named by a path or a tfds name, read to score a model that was trained on other data."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

from engine.config.data import DataConfig
from engine.config.decoding import ColorMode, Levels
from engine.data.decoded.dataset import Dataset
from engine.data.kinds import KINDS, find_kind, open_source, without_ignored
from engine.data.locate import located
from engine.errors import Say


def load_held_out(
    place: str | PathLike[str],
    known: DataConfig,
    levels: Levels,
    color: ColorMode | None,
    say: Say,
    splits: Sequence[str] = ("test", "validation"),
) -> Dataset:
    """The data at a path or of a tfds name, decoded as in training; of several splits the first of these, reported.

    known: the settings of the training data. levels, color: how their pictures were read where these do not say it.
    Raises InputError for what cannot be read.
    """
    own = located(place, replace(known, path=None, source=None, class_names=None))
    source = open_source(decoded_as_in_training(without_ignored(own, {}), known, levels, color), say)
    names = source.split_names
    split = next((split for split in splits if split in names), names[0])
    if len(names) > 1:
        say(f"{place}: the {split} split is used, of {', '.join(names)}")
    return source.load(split, "data.split")


def decoded_as_in_training(
    config: DataConfig, known: DataConfig, levels: Levels, color: ColorMode | None
) -> DataConfig:
    """The data with colours, black and white as they were in training, whatever would be guessed of it.

    The run's own data is so by itself: with the settings that the run opened it with, it is in the decoded cache.
    """
    is_own = (config.path, config.name) == (known.path, known.name)
    if is_own and find_kind(config) in (KINDS["arrays"], KINDS["own"]):
        return config
    return replace(config, levels=known.levels or levels, color=known.color if is_own else known.color or color)

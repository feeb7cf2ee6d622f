"""Data named by a path or a tfds name, read to score a model that was trained on other data."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

from engine.config import RunConfig
from engine.config.data import DataConfig
from engine.config.decoding import ColorMode, Levels
from engine.data.classes.names import Names
from engine.data.decoded.dataset import Dataset
from engine.data.folds import divide_in_folds
from engine.data.kinds import KINDS, find_kind, open_source, without_ignored
from engine.data.load import load_splits
from engine.data.locate import located
from engine.errors import InputError, Say, problem


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


def load_scored(
    run: RunConfig, data: DataConfig, split: str | None, trained_on: tuple[Names, str], say: Say
) -> Dataset:
    """What a run's model is evaluated on, of its own data or of others; `split` None: test, else validation, reported.

    Where a run's own data has no validation split, that is the share that was set aside, or of one member of a
    cross-validation its fold.
    run: the config that it was trained with. trained_on: (class names, fingerprint) of the training data.
    Raises InputError if there is no such data.
    """
    own, source = run.data, open_source(data, say)
    names, is_own = source.split_names, (data.path, data.name, data.source) == (own.path, own.name, own.source)
    named = {"test": own.test_split, "validation": own.validation_split} if is_own else {}
    has_share = is_own and (own.validation_fraction > 0 or run.train.folds is not None)
    known = [each for each in ("test", "validation") if each in names or named.get(each) not in (None, each)]
    chosen = split or next(iter([*known, *(["validation"] if has_share else [])]), None)
    if chosen is None and is_own:
        rule = "a test or validation split, or a share that was set aside"
        raise InputError(problem("data.split", f"none, of {', '.join(names)}", rule, f"Add --data.split {names[0]}."))
    chosen = chosen or names[0]
    if split is None:
        say(f"{source.name}: {chosen} is used, of {', '.join(names)}")
    if chosen == "validation" and chosen not in known and has_share:
        return _load_share(run, data, trained_on, say)
    try:
        return source.load(named.get(chosen) or chosen, "data.split")
    except InputError as error:
        if not has_share or error.field != "data.split":
            raise
        rule = f"{error.rule}, or validation, the share that the run set aside"
        raise InputError(problem("data.split", error.got, rule, "Add --data.split validation.")) from None


def _load_share(run: RunConfig, data: DataConfig, trained_on: tuple[Names, str], say: Say) -> Dataset:
    """The share of the training split that the run did not train on."""
    if run.train.folds is not None and run.train.fold is None:
        rule = "one member, each of which has a fold of its own"
        remedy = "Add --member 0 or another; folds.csv in the run's directory has the scores of all."
        raise InputError(problem("data.split", "validation of all folds", rule, remedy))
    class_names, fingerprint = trained_on
    config = replace(data, test_split=None, class_names=run.data.class_names)
    loaded = load_splits(config, run.train.seed, say, lambda names: class_names or names)
    if loaded.train.fingerprint != fingerprint:
        rule = f"the data that the run was trained on ({fingerprint[:12]}), of which this share was set aside"
        got = f"content {loaded.train.fingerprint[:12]}"
        raise InputError(problem("data.split validation", got, rule, "Restore that data, or name another split."))
    splits, _ = divide_in_folds(run, loaded)
    assert splits.validation is not None
    return splits.validation


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

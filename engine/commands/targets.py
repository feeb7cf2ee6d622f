"""What commands are given, found: runs, steps, and data by name or path."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, Positional, Suppress, arg

from engine.config.data import BadFileRule, DataConfig, Standardization
from engine.errors import InputError
from engine.records import check_whole

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier

Flag = Annotated[bool, FlagCreatePairsOff]
RunDirectory = Annotated[Path, Positional, arg(metavar="RUN")]
NameOrPath = Annotated[str, Positional, arg(metavar="NAME|PATH")]


@dataclass(frozen=True)
class ShownData(DataConfig):
    """Where the images come from and how they are divided and decoded."""

    # Given as NAME|PATH, or of no consequence for levels from 0 to 255.
    name: Annotated[str, Suppress] = DataConfig.name
    path: Annotated[Path | None, Suppress] = None
    scale: Annotated[float, Suppress] = DataConfig.scale
    mean: Annotated[tuple[float, ...] | None, Suppress] = None
    std: Annotated[tuple[float, ...] | None, Suppress] = None
    standardize: Annotated[Standardization | None, Suppress] = None
    whiten_epsilon: Annotated[float, Suppress] = DataConfig.whiten_epsilon
    center_crop: Annotated[str | None, Suppress] = None
    zca_epsilon: Annotated[float, Suppress] = DataConfig.zca_epsilon


@dataclass(frozen=True)
class PictureData(ShownData):
    """Where the image comes from and how it is decoded."""

    validation_split: Annotated[str | None, Suppress] = None
    validation_fraction: Annotated[float, Suppress] = DataConfig.validation_fraction
    stratified: Annotated[bool, Suppress] = False
    test_split: Annotated[str | None, Suppress] = DataConfig.test_split
    on_bad_file: Annotated[BadFileRule, Suppress] = DataConfig.on_bad_file


Thresholds = tuple[tuple[str, float], ...]


def restore_with(run: Path, step: str, trust: bool, member: int | None, thresholds: Thresholds) -> "Classifier":
    """The classifier of a run, with other thresholds of some labels."""
    from engine.inference.restore import restore

    classifier = restore(run, step_of(step), trust, member)
    return classifier.with_thresholds(dict(thresholds)) if thresholds else classifier


def find_own_classes(trust: bool) -> None:
    """Lets a trusted run import its author's own code from the working directory, as `python -m` would."""
    if trust:
        sys.path.insert(0, str(Path.cwd()))


def check_seed(seed: int) -> None:
    """Raises InputError unless a run may have this seed."""
    if problems := check_whole("seed", seed, 0, "Give any such number.", below=2**32):
        raise InputError(problems[0])


def step_of(text: str) -> int | str:
    """A step as `choose_step` takes it: a number, best or last."""
    return int(text) if text.isascii() and text.isdigit() else text

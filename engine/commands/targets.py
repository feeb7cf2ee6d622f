"""What commands are given, found: experiments, runs, steps, and data by name or path."""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

from tyro.conf import FlagCreatePairsOff, Positional, Suppress, arg

from engine.checks import check_whole
from engine.data.config import BadFileRule, DataConfig, Standardization
from engine.data.tfds_source import data_directory
from engine.errors import InputError, problem
from engine.storage import expanded

Flag = Annotated[bool, FlagCreatePairsOff]
RunDirectory = Annotated[Path, Positional, arg(metavar="RUN")]
NameOrPath = Annotated[str, Positional, arg(metavar="NAME|PATH")]
Config = TypeVar("Config", bound=DataConfig)


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


def located(source: str, data: Config) -> Config:
    """`data` at the path that `source` is, if there is one or it looks like one; else of the tfds name it is."""
    if not source.strip():
        rule = "a tfds name, like fashion_mnist_12k, or a path"
        raise InputError(problem("NAME|PATH", repr(source), rule, "Name the data to look at."))
    if _is_path(source, data):
        return replace(data, path=Path(source))
    return replace(data, name=source)


def _is_path(source: str, data: DataConfig) -> bool:
    """Names of tfds may have a version (mnist:3.0.1) and, where they are prepared, a configuration (name/config)."""
    path = expanded(source)
    if path.exists():
        return True
    base, _, version = source.partition(":")
    if re.fullmatch(r"\d+\.\d+\.\d+", version) or (data_directory(data) / base).is_dir():
        return False
    return "/" in source or "\\" in source or path.suffix != ""


def find_own_classes(trust: bool) -> None:
    """Lets a trusted run import its model class from the working directory, as `python -m` would."""
    if trust:
        sys.path.insert(0, str(Path.cwd()))


def check_seed(seed: int) -> None:
    """Raises InputError unless a run may have this seed."""
    if problems := check_whole("seed", seed, 0, "Give any such number.", below=2**32):
        raise InputError(problems[0])


def step_of(text: str) -> int | str:
    """A step as `choose_step` takes it: a number, best or last."""
    return int(text) if text.isascii() and text.isdigit() else text

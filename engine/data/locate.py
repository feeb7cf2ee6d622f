"""Data by one word, as people write it: a path, or the name of a tfds dataset."""

import os
import re
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TypeVar

from engine.config.data import DataConfig
from engine.data.sources.tfds import data_directory
from engine.errors import InputError, problem
from engine.host.storage import expanded

Config = TypeVar("Config", bound=DataConfig)


def located(source: str | PathLike[str], data: Config, field: str = "data") -> Config:
    """`data` at the path that `source` is, if there is one or it looks like one; else of the tfds name it is."""
    text = os.fsdecode(source)
    if not text.strip():
        rule = "a tfds name, like fashion_mnist_12k, or a path"
        raise InputError(problem(field, repr(text), rule, "Name the data to read."))
    if not isinstance(source, str) or _is_path(text, data):
        return replace(data, path=Path(text))
    return replace(data, name=text)


def _is_path(source: str, data: DataConfig) -> bool:
    """Names of tfds may have a version (mnist:3.0.1) and, where they are prepared, a configuration (name/config)."""
    path = expanded(source)
    if path.exists():
        return True
    base, _, version = source.partition(":")
    if re.fullmatch(r"\d+\.\d+\.\d+", version) or (data_directory(data) / base).is_dir():
        return False
    return "/" in source or "\\" in source or path.suffix != ""

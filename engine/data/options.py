"""Which options each kind of data takes; those that it would ignore are refused."""

from dataclasses import fields, replace
from typing import Any, Literal

from engine.config.data import DataConfig
from engine.errors import InputError, problem

Kind = Literal["folder", "table", "arrays", "tfds"]
TITLES = {"folder": "a folder of images", "table": "a table", "arrays": "arrays", "tfds": "tfds data"}
# Fields that not every kind of data takes, with those that do.
TAKEN_BY: dict[str, tuple[Kind, ...]] = {
    "image_feature": ("tfds",),
    "label_feature": ("tfds",),
    "data_dir": ("tfds",),
    "manual_dir": ("tfds",),
    "path_column": ("table",),
    "label_column": ("table",),
    "image_directory": ("table",),
    "suffix": ("table",),
    "encoding": ("table",),
    "layout": ("arrays",),
    "follow_links": ("folder",),
    "split_as": ("folder",),
    "on_bad_file": ("folder", "table"),
}
COUNTERPARTS = {
    ("image_feature", "table"): "path_column",
    ("label_feature", "table"): "label_column",
    ("path_column", "tfds"): "image_feature",
    ("label_column", "tfds"): "label_feature",
}


def check_taken(config: DataConfig, kind: Kind) -> None:
    """Raises InputError naming every option that this kind of data would ignore."""
    problems = []
    for name in _ignored(config, kind):
        other = COUNTERPARTS.get((name, kind))
        remedy = f"Set {_option(other)} instead." if other else "Leave it out."
        rule = f"no such option with {TITLES[kind]}, which has nothing that it could choose"
        problems.append(problem(f"data.{name}", getattr(config, name), rule, remedy))
    if problems:
        raise InputError(*problems)


def without_ignored(config: DataConfig, kind: Kind, given: dict[str, Any]) -> DataConfig:
    """The config without options that were not `given` for this data but came with other data, and are not for it."""
    defaults = DataConfig()
    return replace(config, **{n: getattr(defaults, n) for n in _ignored(config, kind) if n not in given})


def _ignored(config: DataConfig, kind: Kind) -> list[str]:
    defaults = {field.name: field.default for field in fields(DataConfig)}
    is_at_path = config.path is not None
    taken = {name: kind in kinds for name, kinds in TAKEN_BY.items()}
    if is_at_path:
        taken |= {"data_dir": False, "manual_dir": False}
    return [name for name, is_taken in taken.items() if not is_taken and getattr(config, name) != defaults[name]]


def _option(name: str) -> str:
    return f"--data.{name.replace('_', '-')}"

"""Configs → the options that give them, for the commands that are suggested."""

from dataclasses import fields
from typing import Any


def options_of(config: Any, default: Any, prefix: str) -> list[str]:
    """`["--data.image-size", "180x180"]`: the words for every field of `default` that `config` has otherwise."""
    words: list[str] = []
    for field in fields(default):
        value = getattr(config, field.name)
        if value != getattr(default, field.name):
            words += _option(f"--{prefix}.", field.name.replace("_", "-"), value)
    return words


def _option(prefix: str, name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [prefix + (name if value else f"no-{name}")]
    values = value if isinstance(value, tuple) else (value,)
    return [prefix + name, *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]

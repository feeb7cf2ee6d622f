"""Checks of config values: every problem of a config is told at once, each with field, value, rule and remedy."""

import contextlib
from collections.abc import Callable
from typing import Any

from engine.errors import InputError, problem
from engine.records import check_types


def check(name: str, value: object, holds: bool, rule: str, remedy: str) -> list[str]:
    """No problem if the rule holds, else the one."""
    return [] if holds else [problem(name, value, rule, remedy)]


def check_whole(name: str, value: int, least: int, remedy: str, below: int | None = None) -> list[str]:
    """No problem for a whole number of at least `least`, and below `below`."""
    rule = f"a whole number of at least {least}" + (f" and below {below}" if below else "")
    return check(name, value, value >= least and (below is None or value < below), rule, remedy)


def check_all(config: Any, where: str, range_problems: Callable[[], list[str]]) -> None:
    """Raises InputError with the first problem of every field, of its type or, where types allow to tell, its range."""
    problems = check_types(config, where)
    with contextlib.suppress(TypeError):
        problems += range_problems()
    first = {text.split(":")[0]: text for text in reversed(problems)}
    if first:
        raise InputError("\n".join(reversed(first.values())))

"""Untrusted JSON, read within limits on size, number of values, depth and the size of each number.

Time and memory are linear in the size of the file.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from engine.errors import InputError, problem, remedy_for

MOST_BYTES = 64 * 2**20
MOST_VALUES = 4_000_000  # a history of 10,000 epochs with 400 numbers each; about 100 bytes of memory per value
MOST_DEPTH = 64
LARGEST_WHOLE = 2**63


def read_json(path: Path, rule: str, remedy: str) -> Any:
    """The value in a JSON file. Raises InputError, in one line, if it is not JSON or exceeds a limit."""
    try:
        value = parse_json(_read(path))
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise InputError(problem(str(path), _reason(error), rule, remedy_for(error, remedy))) from None
    return value


def parse_json(text: str) -> Any:
    """The value of a JSON text; raises ValueError or RecursionError if it is not JSON or exceeds a limit."""
    if (count := sum(map(text.count, ",[{"))) > MOST_VALUES:
        raise ValueError(f"some {count:,} values, of at most {MOST_VALUES:,}")
    value = json.loads(text, parse_int=_whole, parse_constant=_no_number)
    _check_depth(value)
    return value


def shown(value: Any, most: int = 80) -> str:
    """A value as an error shows it: its repr, shortened if it is large or deep."""
    if isinstance(value, str):
        return repr(value[:most]) + ("…" if len(value) > most else "")
    if isinstance(value, (list, tuple, dict)):
        name = "an object" if isinstance(value, dict) else "a list"
        return repr(value) if _is_small(value) else f"{name} of {len(value):,} values"
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _is_small(value: Any) -> bool:
    inner = [*value, *(value.values() if isinstance(value, dict) else ())]
    kinds = (str, int, float, type(None))
    return len(inner) <= 8 and all(isinstance(one, kinds) and len(str(one)) < 24 for one in inner)


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no file")
        content = file.read(min(status.st_size, MOST_BYTES) + 1)  # read allocates the number of bytes it is given
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES // 2**20} MiB")
    return content.decode("utf-8")


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) >= LARGEST_WHOLE:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return number


def _no_number(name: str) -> float:
    return float(name)  # NaN and Infinity, which fields reject by name


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > MOST_DEPTH:
            raise ValueError(f"values more than {MOST_DEPTH} deep in each other")
        containers = [one for one in level if isinstance(one, (list, dict))]
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
        depth += 1


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "values too deep in each other"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

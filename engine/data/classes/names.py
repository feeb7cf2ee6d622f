"""Class names: their order, their form, and what of them can be shown."""

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

from engine.errors import InputError, problem
from engine.text import one_line

Names = tuple[str, ...]
SHOWN = 4
LONGEST_NAME = 1_000  # of a folder 255 bytes
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?", re.ASCII)


def names_text(names: Iterable[str]) -> str:
    """The first few names."""
    every = tuple(names)
    return ", ".join(map(one_line, every[:SHOWN])) + (", …" if len(every) > SHOWN else "")


def number_of(name: str) -> Decimal | None:
    """The number that a name is, like 10, 001 or 2.5; None for other names."""
    return Decimal(name) if _NUMBER.fullmatch(name) else None


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are numbers."""
    return all(_NUMBER.fullmatch(name) for name in names)


def ordered(names: Iterable[str]) -> Names:
    """Each name once, in the order of a new run's outputs: 1, 2, 10 if all of them are numbers, else as text."""
    distinct = set(names)
    if are_numbers(distinct):
        return tuple(sorted(distinct, key=lambda name: (Decimal(name), name)))
    return tuple(sorted(distinct))


def composed(name: str) -> str:
    """A name in the composed form (NFC), so that what macOS and Linux write is the same class."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_printable(names: Iterable[str], where: str, remedy: str = "Rename that class.") -> None:
    """Raises InputError for a name that no line can show: empty, with line breaks or control characters, or no text."""
    for name in names:
        if not name.strip() or one_line(name) != name:
            raise InputError(problem(where, f"a class named {name[:80]!a}", "a printable name", remedy))
        if len(name) > LONGEST_NAME:
            got, rule = f"a class name of {len(name):,} letters", f"at most {LONGEST_NAME:,}"
            raise InputError(problem(where, got, rule, remedy))

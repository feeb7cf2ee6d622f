"""Matches the classes of two sides by name, in any order. Guesses are reported."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from engine.data.classes.names import Names, are_numbers, composed, names_text, number_of
from engine.errors import InputError, problem

SHOWN = 3


@dataclass(frozen=True)
class Match:
    """Where the classes of one side stand on the other.

    positions: int32[classes of the one side]: its index on the other; -1 for a class without examples that it lacks.
    note: what was guessed, for the user; empty if all names are the same.
    """

    positions: np.ndarray
    note: str = ""


def match(theirs: Names, ours: Names, where: str, owner: str, used: Sequence[bool] | None = None) -> Match:
    """Finds each of `theirs` among `ours`: by name, else by a name that differs only in case, Unicode form or zeros.

    Only if no name is found, and one side has numbers from 0 for names, as classes have that were never named: by
    index. used: which of `theirs` have examples; the others may be missing. where, owner: what errors and notes call
    the two sides. Raises InputError, showing both sides, if a class that has examples is not found.
    """
    wanted = [name for name, is_used in zip(theirs, used or [True] * len(theirs), strict=True) if is_used]
    exact = {composed(name): k for k, name in enumerate(ours)}
    found = {name: exact[composed(name)] for name in theirs if composed(name) in exact}
    loose = _alike([name for name in theirs if name not in found], ours, set(found.values()))
    if not (found or loose) and wanted:
        by_index = _by_index(theirs, wanted, ours)
        if by_index is not None:
            return Match(_positions(theirs, by_index), _index_note(by_index, ours, where, owner))
    found |= loose
    missing = [name for name in wanted if name not in found]
    if missing:
        got, rule = f"classes that {owner} lacks ({names_text(missing)})", f"those of {owner} ({names_text(ours)})"
        raise InputError(problem(where, got, rule, _remedy(missing, theirs, ours)))
    return Match(_positions(theirs, found), _alike_note(loose, ours, where))


def same_classes(theirs: Names, ours: Names) -> bool:
    """Whether both sides have the same names, in whatever order, or such as differ in form alone."""
    if len(theirs) != len(ours):
        return False
    rest = set(map(composed, theirs)) ^ set(map(composed, ours))
    return not rest or (not unlike_in_form(theirs) and set(map(_loosely, theirs)) == set(map(_loosely, ours)))


def unlike_in_form(names: Names) -> list[Names]:
    """Groups of names that differ only in case, Unicode form or leading zeros."""
    groups: dict[str | Decimal, list[str]] = {}
    for name in names:
        groups.setdefault(_loosely(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _positions(theirs: Names, found: dict[str, int]) -> np.ndarray:
    return np.array([found.get(name, -1) for name in theirs], np.int32)


def _loosely(name: str) -> str | Decimal:
    """What names have in common that differ only in case, Unicode form, blanks, digits or leading zeros."""
    text = " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
    number = number_of(text if text.isascii() else "".join(str(unicodedata.decimal(sign, sign)) for sign in text))
    return text if number is None else number


def _alike(names: Sequence[str], ours: Names, taken: set[int]) -> dict[str, int]:
    """Those names that one of ours, not yet taken, is like, if that is so of one only on either side."""
    if not names:
        return {}
    of_theirs, of_ours = Counter(map(_loosely, names)), Counter(map(_loosely, ours))
    free = {_loosely(name): k for k, name in enumerate(ours) if k not in taken}
    keys = {name: _loosely(name) for name in names}
    return {name: free[key] for name, key in keys.items() if key in free and of_theirs[key] == of_ours[key] == 1}


def _by_index(theirs: Names, wanted: Sequence[str], ours: Names) -> dict[str, int] | None:
    """Matched by index; None where that is no sense."""
    if all(re.fullmatch(r"0|[1-9]\d{0,8}", name) for name in theirs) and not are_numbers(ours):
        found = {name: int(name) for name in theirs if int(name) < len(ours)}
        return found if set(wanted) <= set(found) else None
    are_unnamed = ours == tuple(map(str, range(len(ours))))
    if are_unnamed and len(theirs) == len(ours) and not all(map(_is_numeral, theirs)):
        return {name: k for k, name in enumerate(theirs)}
    return None


def _is_numeral(name: str) -> bool:
    """Whether a name is a number in any form, like 1e0, which is no index where it has no counterpart."""
    try:
        return float(name) is not None
    except ValueError:
        return False


def _index_note(found: dict[str, int], ours: Names, where: str, owner: str) -> str:
    shown = ", ".join(f"{name} is taken for {ours[k]}" for name, k in list(found.items())[:SHOWN])
    more = ", …" if len(found) > SHOWN else ""
    whose = owner if are_numbers(ours) else where
    return f"warning: {where}: classes are compared by index, because those of {whose} have no names: {shown}{more}"


def _alike_note(loose: dict[str, int], ours: Names, where: str) -> str:
    if not loose:
        return ""
    shown = ", ".join(f"{name} is taken for {ours[k]}" for name, k in list(loose.items())[:SHOWN])
    more = f" and {len(loose) - SHOWN:,} more" if len(loose) > SHOWN else ""
    return f"warning: {where}: class names that differ only in form: {shown}{more}"


def _remedy(missing: Sequence[str], theirs: Names, ours: Names) -> str:
    if are_numbers(theirs):
        if not are_numbers(ours):
            names = f"class_names={{{missing[0]}: {ours[0]!r}, …}}"
            return f"Name the labels as there, in Python engine.dataset(images, labels, {names})."
        return "Number the labels as there, or leave these examples out."
    return "Rename these classes as there, or leave their examples out."

"""The one error a user sees for their own mistake, and how it is worded."""

import difflib
from collections.abc import Callable, Iterable

from engine.text import one_line, printable

Say = Callable[[str], None]  # where messages go: a reporter, a list, print
ALLOW = "Allow yourself to read it (chmod u+r, of a folder u+rx), or ask its owner to."


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, why and what to do instead.

    The message is fit for a terminal, whatever the names in it hold.
    """

    def __init__(self, message: str = ""):
        super().__init__(printable(message))


def problem(field: str, got: object, expected: str, remedy: str) -> str:
    """The wording of every error: `field: got VALUE; expected RULE. Do THIS.`"""
    return one_line(f"{field}: got {got}; expected {expected}. {remedy}")


def unknown(field: str, name: object, known: Iterable[str], remedy: str = "") -> str:
    """The wording for a name that is not in a table: lists the known ones and names the nearest."""
    names = list(known)
    nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = remedy or (f"Did you mean {nearest[0]!r}?" if nearest else "Choose one of these.")
    return problem(field, repr(name), "one of " + ", ".join(names), hint)


def remedy_for(error: BaseException, otherwise: str) -> str:
    """What helps where a file or folder cannot be read: `otherwise`, unless it is that this user may not read it."""
    return ALLOW if isinstance(error, PermissionError) else otherwise


def shape_text(shape: Iterable[int]) -> str:
    """`28×28×1` for (28, 28, 1)."""
    return "×".join(str(size) for size in shape)

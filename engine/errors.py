"""The one error a user sees for their own mistake, and how it is worded."""

import difflib
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.text import one_line, printable

Say = Callable[[str], None]  # where messages go: a reporter, a list, print


def ignore(text: str) -> None:
    """Drops a message: for callers that report nothing."""


ALLOW = "Allow yourself to read it (chmod u+r, of a folder u+rx), or ask its owner to."


PARTS = ("field", "got", "rule", "remedy")


class Problem(str):
    """One sentence about what cannot be used, and its parts: field, got, rule, remedy. Made by `problem`."""

    field: str
    got: str
    rule: str
    remedy: str


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, why and what to do instead.

    problems: all that were found at once, a line each. field, got, rule, remedy: of the first of these that `problem`
    worded, else None. The message is fit for a terminal, whatever the names in it hold.
    """

    def __init__(self, *problems: str):
        super().__init__(printable("\n".join(problems)))
        self.problems = problems
        first = next((one for one in problems if isinstance(one, Problem)), None)
        self.field, self.got, self.rule, self.remedy = (getattr(first, part, None) for part in PARTS)


def problem(field: str, got: object, expected: str, remedy: str) -> Problem:
    """The wording of every error: `field: got VALUE; expected RULE. Do THIS.` A layer leaves its field to `within`."""
    worded = Problem(one_line(f"{field}: got {got}; expected {expected}. {remedy}".removeprefix(": ")))
    worded.field, worded.got, worded.rule, worded.remedy = field, str(got), expected, remedy
    return worded


def renamed(error: InputError, before: str, after: str) -> InputError:
    """The same problems with another name (of a file) in them."""
    return _changed(error, lambda part: part.replace(before, after), PARTS)


def within(place: str, error: InputError) -> InputError:
    """The same problems, each after the place where it was found: `place: field: got VALUE; …`."""
    return _changed(error, lambda part: f"{place}: {part}".removesuffix(": "), ("field",))


def _changed(error: InputError, change: Callable[[str], str], names: tuple[str, ...]) -> InputError:
    def change_one(text: str) -> str:
        if not isinstance(text, Problem):
            return change(text)
        return problem(*(change(part) if name in names else part for name in PARTS for part in [getattr(text, name)]))

    return InputError(*map(change_one, error.problems))


MOST_LISTED = 60  # known names in a message; large models have hundreds of layers


def unknown(field: str, name: object, known: Iterable[str], remedy: str = "") -> Problem:
    """The wording for a name that is not in a table: lists the known ones and names the nearest."""
    names = list(known)
    nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = remedy or (f"Did you mean {nearest[0]!r}?" if nearest else "Choose one of these.")
    listed = (
        ", ".join(names)
        if len(names) <= MOST_LISTED
        else f"{len(names):,} names: {', '.join(names[:3])}, … {names[-1]}"
    )
    return problem(field, repr(name), f"one of {listed}", hint)


def remedy_for(error: BaseException, otherwise: str) -> str:
    """What helps where a file or folder cannot be read: `otherwise`, unless it is that this user may not read it."""
    return ALLOW if isinstance(error, PermissionError) else otherwise


def shape_text(shape: Iterable[int]) -> str:
    """`28×28×1` for (28, 28, 1)."""
    return "×".join(str(size) for size in shape)


def error_text(error: BaseException) -> str:
    """`ValueError: its first line (mine.py, line 12)`: an error in code of the user's own, and where it was raised.

    The line is the innermost outside of this package, of installed ones and of Python itself.
    """
    text = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}".removesuffix(": ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{text} ({_line_text(frames[-1].filename, frames[-1].lineno)})" if frames else text


def defined_at(function: Any) -> str:
    """` (mine.py, line 3)`: where a function or class of the user's own is defined; empty if that is not known."""
    try:
        file, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
    except (TypeError, OSError):
        return ""
    return f" ({_line_text(file, line)})" if file and _is_users(file) else ""


def _line_text(file: str, line: int | None) -> str:
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}, line {line}"


def _is_users(file: str) -> bool:
    path, places = Path(file), (str(Path(__file__).parent), sysconfig.get_path("stdlib"))
    is_installed = {"site-packages", "dist-packages"} & set(path.parts)
    is_python = path.suffix == ".py" and not file.startswith("<")  # compiled modules name sources that are not here
    return is_python and not (is_installed or any(path.is_relative_to(place) for place in places))

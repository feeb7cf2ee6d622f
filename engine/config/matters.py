"""What the fields of a config matter for, said once, beside each: `Annotated[int, NOTHING]`.

What a section of RunConfig says holds for all fields of the section that do not say otherwise.
"""

import dataclasses
import functools
from enum import Flag, auto
from typing import Any, get_args, get_type_hints

Path = tuple[str, ...]  # of a field: its name, behind that of its section


class Matters(Flag):
    """RESULT: what a run computes; it is resumed only with the value that it was started with.

    PROGRAM: what may be compiled; runs of one process share programs only if their values are equal.
    PLAN: what is fastest; a plan is made for one value. SCHEDULE: RESULT and PROGRAM, if a learning rate depends on it.
    CHANGEABLE: may have another value from the step on at which a run is resumed, if that is allowed.
    """

    NOTHING = 0
    RESULT = auto()
    PROGRAM = auto()
    PLAN = auto()
    SCHEDULE = auto()
    CHANGEABLE = auto()


NOTHING, RESULT, PROGRAM, PLAN, SCHEDULE, CHANGEABLE = Matters(0), *Matters


@functools.cache
def read_marks(kind: type) -> dict[Path, Matters]:
    """What each field of a config class matters for; a section whose fields say nothing of their own is one entry.

    Raises TypeError for a field that does not say it.
    """
    marks: dict[Path, Matters] = {}
    for name, (section, mark) in _fields(kind).items():
        if mark is None:
            raise TypeError(f"{kind.__name__}.{name} does not say what it matters for")
        own = _fields(section) if dataclasses.is_dataclass(section) else {}
        if any(inner is not None for _, inner in own.values()):
            marks |= {(name, each): mark if inner is None else inner for each, (_, inner) in own.items()}
        else:
            marks[name,] = mark
    return marks


def _fields(kind: Any) -> dict[str, tuple[Any, Matters | None]]:
    """Name → (type, mark) of each field of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for name in (field.name for field in dataclasses.fields(kind)):
        marks = [each for each in getattr(hints[name], "__metadata__", ()) if isinstance(each, Matters)]
        found[name] = (get_args(hints[name])[0] if marks else hints[name], marks[0] if marks else None)
    return found

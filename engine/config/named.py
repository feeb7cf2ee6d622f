"""Values of a config that are names in a table, or code of the user's own."""

from collections.abc import Iterable, Mapping
from typing import Any

from tyro.constructors import PrimitiveConstructorSpec

from engine.errors import unknown
from engine.records import LONGEST_NAME
from engine.records.custom import Custom


def option(table: Iterable[str], elsewhere: Mapping[str, str] = {}) -> PrimitiveConstructorSpec:
    """How such a value is written on the command line: a name, or module:name of a class or function of one's own.

    elsewhere: as of name_problems.
    """
    names = list(table)

    def read(texts: list[str]) -> str | Custom:
        if ":" in texts[0]:
            return Custom(texts[0])
        if texts[0] not in names:
            # Reported with the option's name.
            raise ValueError(unknown("name", texts[0][:LONGEST_NAME], names, _hint(texts[0], elsewhere)))
        return texts[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}|MODULE:NAME",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, str | Custom),
        str_from_instance=lambda value: [name_of(value)],
    )


def name_problems(field: str, value: Any, table: Iterable[str], elsewhere: Mapping[str, str] = {}) -> list[str]:
    """The problem of a name that is not in the table; code of one's own is checked when it is used.

    elsewhere: names that other libraries have for the same, in small letters without underscores → ours.
    """
    names = list(table)
    if isinstance(value, Custom) or value in names:
        return []
    return [unknown(field, value[:LONGEST_NAME], names, _hint(value, elsewhere))]


def _hint(value: str, elsewhere: Mapping[str, str]) -> str:
    ours = elsewhere.get(value.lower().replace("_", ""))
    return f"Here that is {ours!r}." if ours else ""


def name_of(value: str | Custom) -> str:
    """The name itself, or the import path of code of one's own."""
    return value.path if isinstance(value, Custom) else value

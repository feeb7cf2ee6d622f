"""Values of a config that are names in a table, or code of the user's own."""

from collections.abc import Iterable
from typing import Any

from tyro.constructors import PrimitiveConstructorSpec

from engine.errors import unknown
from engine.records import LONGEST_NAME
from engine.records.custom import Custom


def option(table: Iterable[str]) -> PrimitiveConstructorSpec:
    """How such a value is written on the command line: a name, or module:name of a class or function of one's own."""
    names = list(table)

    def read(texts: list[str]) -> str | Custom:
        if ":" in texts[0]:
            return Custom(texts[0])
        if texts[0] not in names:
            raise ValueError(unknown("name", texts[0][:LONGEST_NAME], names))  # reported with the option's name
        return texts[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}|MODULE:NAME",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, str | Custom),
        str_from_instance=lambda value: [name_of(value)],
    )


def name_problems(field: str, value: Any, table: Iterable[str]) -> list[str]:
    """The problem of a name that is not in the table; code of one's own is checked when it is used."""
    names = list(table)
    return [] if isinstance(value, Custom) or value in names else [unknown(field, value[:LONGEST_NAME], names)]


def name_of(value: str | Custom) -> str:
    """The name itself, or the import path of code of one's own."""
    return value.path if isinstance(value, Custom) else value

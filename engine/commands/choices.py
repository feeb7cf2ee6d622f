"""Options of a recipe's own: the parameters of its `config` that name a choice, like `--stage` of cats_dogs."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from engine.errors import InputError, problem, unknown


@dataclass(frozen=True)
class Choice:
    """A parameter of `config`: its type, a Literal of texts, and the value chosen."""

    name: str
    kind: Any
    value: str

    @property
    def option(self) -> str:
        """`--stage`."""
        return "--" + self.name.replace("_", "-")


def read_choices(make: Callable[..., Any], arguments: Sequence[str]) -> tuple[list[Choice], list[str]]:
    """(the parameters of `make` with the values that the arguments give them, all other arguments)."""
    hints = get_type_hints(make)
    parameters = inspect.signature(make).parameters.values()
    found = [Choice(each.name, hints[each.name], each.default) for each in parameters if _is_choice(each, hints)]
    rest = list(arguments)
    return [_read(choice, rest) for choice in found], rest


def _is_choice(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    return get_origin(hints.get(parameter.name)) is Literal and parameter.default is not parameter.empty


def _read(choice: Choice, arguments: list[str]) -> Choice:
    """The choice that the arguments make, which are taken out of them."""
    known, value = get_args(choice.kind), choice.value
    for index in reversed(range(len(arguments))):
        word, is_joined, joined = arguments[index].partition("=")
        if word != choice.option:
            continue
        taken = arguments[index : index + (1 if is_joined else 2)]
        if not is_joined and len(taken) == 1:
            raise InputError(problem(choice.name, "no value", f"one of {', '.join(known)}", "Add one of them."))
        value = joined if is_joined else taken[1]
        if value not in known:
            raise InputError(unknown(choice.name, value, known))
        del arguments[index : index + len(taken)]
        return Choice(choice.name, choice.kind, value)
    return choice

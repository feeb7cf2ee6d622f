"""Calls in the manner of other libraries, answered in a sentence with what to write here."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import ParamSpec, TypeVar

from engine.config import OptimConfig
from engine.errors import InputError, problem, unknown

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

OF_OPTIMIZERS = sorted({each.name for each in fields(OptimConfig)} - {"name", "learning_rate"})
ELSEWHERE = {
    "validation_data": "validation=(images, labels)",
    "validation_split": "validation=0.2",
    "lr": "learning_rate=0.001",
    "shuffle": "nothing: examples are shuffled in every epoch",
    "sample_weight": "data=(images, labels, weights)",
    "steps_per_epoch": "nothing: an epoch is all of the data",
    "initial_epoch": "run_dir and resume=True",
    "lr_schedule": "optimizer=engine.OptimConfig(schedule=…)",
    "scheduler": "optimizer=engine.OptimConfig(schedule=…)",
    **{name: f"optimizer=engine.OptimConfig({name}=…)" for name in OF_OPTIMIZERS},
    "x": "data=(images, labels)",
    "y": "data=(images, labels)",
}
"""Arguments of Keras's and other libraries' functions → what stands for them here."""


def explains_arguments(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Decorator: an argument that the function does not have is an InputError which says what there is."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*arguments: Arguments.args, **named: Arguments.kwargs) -> Returned:
        try:
            signature.bind(*arguments, **named)
        except TypeError as error:
            raise _problem(function.__name__, signature, arguments, named, str(error)) from None
        return function(*arguments, **named)

    return wrapped


def _problem(name: str, signature: inspect.Signature, arguments: tuple, named: dict, text: str) -> InputError:
    known = list(signature.parameters)
    by_place = [key for key, each in signature.parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    strange = next((key for key in named if key not in known), None)
    if strange is not None:
        hint = f"Here that is {ELSEWHERE[strange]}." if strange in ELSEWHERE else ""
        return InputError(unknown(f"{name} argument", strange, known, hint))
    if len(arguments) > len(by_place):
        rule = f"{len(by_place)}, {' and '.join(by_place)}, and all others by name"
        remedy = f"Images and labels are one: {name}({by_place[0]}, (images, labels))."
        return InputError(problem(name, f"{len(arguments)} arguments by place", rule, remedy))
    return InputError(problem(name, text, f"{' and '.join(by_place)}", "Give both, and each once."))

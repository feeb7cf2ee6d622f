"""The user's own code in a config: a class or a function, stored by its import path and its arguments."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Literal

from engine.errors import InputError, error_text, problem
from engine.records import to_json

NEED_VALUES = (
    "TracerBoolConversionError", "ConcretizationTypeError", "TracerArrayConversionError",
    "TracerIntegerConversionError", "NonConcreteBooleanIndexError",
)  # fmt: skip
"""Errors of JAX where code needs the values of arrays while it is traced."""
NOTEBOOK = "__main__"
"""The module of what is defined in a notebook or at a prompt, and in no file."""
Gives = Literal["logits", "softmax", "sigmoid"]


@dataclass(frozen=True)
class Custom:
    """A class or function of the user's own, called with `arguments` by name; made by `custom`.

    It is stored by its import path, so using a checkpoint that names one imports it, and needs `trust=True`.
    A model is a Flax NNX class, called as `Class(input_shape=…, num_outputs=…, rngs=…, **arguments)`. If its `__call__`
    has a parameter `mask`, it receives there (bool[b]) which examples of a batch are no padding.
    gives: what the outputs of a model are. A loss that takes logits recovers them from probabilities.
    """

    is_layered: ClassVar[bool] = False  # as a model: its layers are known when it is built, and no sooner
    layers: ClassVar[tuple] = ()
    layer_names: ClassVar[tuple[str, ...]] = ()
    named: ClassVar[tuple] = ()

    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    gives: Gives = "logits"

    def __hash__(self) -> int:
        return hash((self.path, json.dumps(self.arguments, sort_keys=True), self.gives))

    def __post_init__(self):
        if self.path.count(":") != 1:
            raise InputError(problem("Custom path", repr(self.path), '"package.module:name"', "Give both parts."))
        try:
            object.__setattr__(self, "arguments", to_json(self.arguments))
        except TypeError as error:
            rule = "numbers, texts, lists and dicts, which a checkpoint can store"
            raise InputError(problem("Custom arguments", str(error), rule, "Build the rest in your code.")) from None

    @property
    def name(self) -> str:
        """The name of the class or function itself."""
        return self.path.split(":")[1].split(".")[-1]

    def with_outputs(self, num_outputs: int) -> "Custom":
        """Itself: a model class receives the number of outputs when it is built."""
        return self

    def with_open_outputs(self) -> "Custom":
        """Itself."""
        return self

    def rows(self, input_shape: tuple[int, ...]) -> list:
        """Of a model, nothing that is known before it is built."""
        return []

    def load(self, where: str = "model") -> Any:
        """Imports the class or function, which runs the code of its module; `where` names the field in errors."""
        module_name, name = self.path.split(":")
        try:
            return reduce(getattr, name.split("."), _import_module(module_name))
        except (ImportError, AttributeError, ValueError) as error:
            advice = f"{error}. Run from the directory that holds it, or install it."
            if module_name == NOTEBOOK:
                advice = f"It was defined in a notebook: define {name} again under this name" + (
                    f", or pass it: engine.restore(path, model={self.name})." if where == "model" else "."
                )
            raise InputError(problem(where, self.path, "an importable class or function", advice)) from None

    def make(self, where: str, *given: Any) -> Any:
        """What the class or function returns for `given` and the stored arguments."""
        return self.guard(where, self.load(where))(*given, **self.arguments)

    def guard(self, where: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the user's own, whose errors become an InputError that names its file and line."""

        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return function(*arguments, **named)
            except InputError:
                raise
            except Exception as error:  # whatever the user's function raises
                rule, remedy = "a function that takes these arguments", "Correct it."
                if type(error).__name__ in NEED_VALUES:
                    rule = "a function that can be compiled, when arrays have shapes and no values"
                    remedy = "Use jnp.where, jax.lax and jax.numpy in place of if, while, float() and NumPy."
                raise InputError(problem(where, f"{self.path}: {error_text(error)}", rule, remedy)) from error

        return call


def custom(target: Callable[..., Any], **arguments: Any) -> Custom:
    """A class or function of your own for a config: a model, an activation, a loss, a metric, an optimizer, a schedule.

    arguments: passed to it by name; numbers, texts, lists and dicts, so that a checkpoint can store them.
    Raises InputError for what cannot be imported again: lambdas, functions within functions, objects without a name.
    """
    module_name, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    rule, remedy = "a class or function that can be imported", "Define it at the top level of a module."
    if not callable(target) or module_name is None or name is None or "<" in name:
        kind = "a lambda" if name and name.endswith("<lambda>") else "a function within another" if name else "no name"
        pass_arguments = "Pass what it depends on as arguments: custom(function, rate=0.1)."
        raise InputError(problem("custom", f"{target!r} ({kind})", rule, f"{remedy} {pass_arguments}"))
    found: Any = sys.modules.get(module_name)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not target:
        got = f"{name}, which is not what {module_name} has under this name"
        raise InputError(problem("custom", got, rule, remedy))
    return Custom(f"{_importable(module_name, name)}:{name}", arguments)


def find_custom(value: Any) -> Iterator[Custom]:
    """Every Custom within a config: the code that using it imports."""
    if isinstance(value, Custom):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from find_custom(item)
    elif is_dataclass(value):
        for each in fields(value):
            yield from find_custom(getattr(value, each.name))


def check_trust(config: Any, where: str, trust: bool, remedy: str = "Pass trust=True (--trust)") -> None:
    """Raises InputError for a stored config that names code of the user's own, unless it is trusted."""
    paths = sorted({each.path for each in find_custom(config)})
    if paths and not trust:
        got, rule = f"code of its author's own ({', '.join(paths)})", "none, or trust"
        raise InputError(problem(where, got, rule, f"{remedy} to import it, which runs its module's code."))


def _import_module(name: str) -> Any:
    """The module of that name; if it is the running script's, that one, which importing would run once more."""
    is_script = name not in sys.modules and name == _script_name()
    return sys.modules["__main__"] if is_script else importlib.import_module(name)


def _script_name() -> str | None:
    """The name by which the running script can be imported; None where there is no file, as in a notebook."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name
    return Path(str(main.__file__)).stem if hasattr(main, "__file__") else None


def _importable(module_name: str, name: str) -> str:
    """The module's name, for a script the one it has when it is imported."""
    if module_name != "__main__":
        return module_name
    return _script_name() or NOTEBOOK

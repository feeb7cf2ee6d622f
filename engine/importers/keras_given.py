"""A layer of Keras as its config describes it, and the settings that many have."""

import re
from typing import Any, NamedTuple

from engine.errors import InputError, problem
from engine.host.json_files import shown
from engine.models import L1L2, Activation
from engine.models.activations import ACTIVATIONS
from engine.models.shapes import Shape

LONGEST_NAME = 80
OWN = "Leave it out, or write such a layer of your own."


class Given(NamedTuple):
    """A layer of Keras to be converted: its class, config and name, the shape that comes to it, Keras's version."""

    kind: str
    config: dict[str, Any]
    name: str
    shape: Shape
    is_before_3: bool
    where: str

    def refuse(
        self, got: str, rule: str, remedy: str = "Leave it out, or write such a layer of your own."
    ) -> InputError:
        """The error about it."""
        return InputError(problem(self.where, f"layer {self.name[:80]!r} ({self.kind[:80]}) {got[:200]}", rule, remedy))

    def require(self, **values: Any) -> None:
        """Raises InputError unless each setting is what it is given as here, or is missing."""
        for setting, value in values.items():
            if (found := self.config.get(setting)) is not None and found != value:
                raise self.refuse(f"with {setting} {shown(found)}", f"{setting} {value!r}, which layers here have")

    def get(self, setting: str, default: Any) -> Any:
        """A setting, with tuples for lists and `default` in place of nothing."""
        value = self.config.get(setting)
        return default if value is None else _tuples(value)

    def number(self, setting: str, default: float) -> float:
        """A setting that is one number, however it was written."""
        value = self.get(setting, default)
        value = value.get("value", value.get("config")) if isinstance(value, dict) else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(f"with {setting} {shown(value)}", "one number")
        return value


def layer_name(name: str) -> str:
    """Keras's name of a layer with the characters that a name may have here."""
    cleaned = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)[:LONGEST_NAME]
    return cleaned if re.match(r"[A-Za-z0-9_]", cleaned) else f"_{cleaned}"[:LONGEST_NAME]


def read_activation(given: Given, setting: str = "activation") -> Activation | None:
    """The activation of a setting, by name; one that is a layer or the user's own function has none."""
    value = given.config.get(setting)
    if (
        isinstance(value, dict)
        and value.get("class_name") == "function"
        and value.get("module") in (None, "keras.activations")
    ):
        value = value.get("config")
    if value is None or value == "linear":
        return None
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise given.refuse(f"with activation {shown(value)}", f"one of {', '.join(ACTIVATIONS)}, by name")
    if value == "hard_sigmoid" and given.is_before_3:
        rule = "that of Keras 3: relu6(x + 3) / 6"
        raise given.refuse("with the hard_sigmoid of Keras 2, 0.2·x + 0.5", rule, "Save the model again by Keras 3.")
    return Activation(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read_regularizer(given: Given) -> L1L2 | None:
    """The penalty on the kernel; those on others are left out."""
    value = given.config.get("kernel_regularizer") or given.config.get("depthwise_regularizer")
    config = value.get("config") if isinstance(value, dict) else None
    if not isinstance(config, dict):
        return None
    amounts = [float(config.get(name) or 0.0) for name in ("l1", "l2")]
    return L1L2(*amounts) if any(amounts) else None

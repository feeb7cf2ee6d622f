"""The order of the parameters of a loss or a metric of the user's own: outputs, then targets, unlike in Keras."""

import inspect
from typing import Any

from engine.errors import InputError, defined_at, problem

TARGETS = {"y_true", "true", "target", "targets", "label", "labels", "truth", "ground_truth"}
OUTPUTS = {"y_pred", "pred", "preds", "output", "outputs", "prediction", "predictions", "logits"}


def check_order(field: str, function: Any) -> None:
    """Raises InputError for a function whose first two parameters are named like targets and outputs."""
    try:
        names = list(inspect.signature(function).parameters)[:2]
    except (TypeError, ValueError):  # of C code, which has no names
        return
    if len(names) == 2 and names[0].lower() in TARGETS and names[1].lower() in OUTPUTS:
        called = getattr(function, "__name__", repr(function))
        got = f"{called}({names[0]}, {names[1]}){defined_at(function)}, in the order of Keras"
        remedy = f"Write def {called}({names[1]}, {names[0]})."
        raise InputError(problem(field, got, "outputs first, then targets", remedy))

"""Whether a loss of the user's own can be trained on: its shape, its type, its gradient, its values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.errors import InputError, defined_at, error_text, problem
from engine.metrics.losses import LossFunction
from engine.records.custom import Custom

NUM_TRIED = 8  # examples


def check_loss(given: Custom, loss: LossFunction, outputs: Any, targets: Any) -> None:
    """Raises InputError, with file and line, for a loss that nothing can be trained on.

    outputs, targets: shapes and types of 2 examples; the loss also runs once on NUM_TRIED examples with logits as
    they are before training.
    """
    where = f"{given.path}{defined_at(given.load('train.loss'))}"
    found = jax.eval_shape(lambda outputs, targets: loss(outputs, targets, 0.0), outputs, targets)
    shape = getattr(found, "shape", None)
    if shape != (2,):
        got = "no array" if shape is None else f"an array {[*shape]}"
        rule, remedy = "one loss an example, [b]", "Leave the mean to the engine."
        raise InputError(problem("train.loss", f"{where}, which gives {got} for 2 examples", rule, remedy))
    if not jnp.issubdtype(found.dtype, jnp.floating):
        got, remedy = f"{where}, which gives {found.dtype}", "Give what has a gradient."
        raise InputError(problem("train.loss", got, "floats", remedy))

    def mean(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.mean(loss(outputs, targets, 0.0))

    given.guard("train.loss", lambda: jax.eval_shape(jax.grad(mean), outputs, targets))()
    _check_finite(where, loss, outputs, targets)


def _check_finite(where: str, loss: LossFunction, outputs: Any, targets: Any) -> None:
    draw, (_, num_outputs) = np.random.default_rng(0), outputs.shape
    tried = draw.normal(size=(NUM_TRIED, num_outputs)).astype(np.float32)
    aims = draw.integers(0, 2, (NUM_TRIED, *targets.shape[1:])).astype(np.float32)  # labels, and numbers too
    if targets.dtype == jnp.int32:
        aims = (np.arange(NUM_TRIED) % num_outputs).astype(np.int32)
    arguments = (jnp.asarray(tried), jnp.asarray(aims), 0.0)
    losses = np.asarray(loss(*arguments))
    if np.isfinite(losses).all():
        return
    where = f"{where}{_find_cause(loss, arguments)}"
    rule = "finite losses" if targets.dtype != jnp.int32 else "finite losses of logits, which are any numbers"
    remedy = "Correct it; jax.nn.log_softmax(outputs) are logarithms of probabilities."
    raise InputError(problem("train.loss", f"{losses[~np.isfinite(losses)][0]} from {where}", rule, remedy))


def _find_cause(loss: LossFunction, arguments: tuple) -> str:
    """The first operation that gives no finite number, and its line; empty if it is not found."""
    try:
        with jax.disable_jit(), jax.debug_nans(True), jax.debug_infs(True):
            loss(*arguments)
    except InputError as error:
        return f": {error_text(error.__cause__)}" if error.__cause__ else ""
    return ""

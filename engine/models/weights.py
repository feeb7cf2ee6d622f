"""Initial values of kernels and penalties on their size: initializers and regularizers by the names of Keras."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.errors import InputError, problem, unknown
from engine.models.shapes import is_number

Initializer = Callable[..., Any]  # (key, shape, dtype) → array of that shape

INITIALIZERS: dict[str, Callable[[Any], Initializer]] = {
    "glorot_uniform": lambda jax: jax.nn.initializers.glorot_uniform(),
    "glorot_normal": lambda jax: jax.nn.initializers.glorot_normal(),
    "he_uniform": lambda jax: jax.nn.initializers.he_uniform(),
    "he_normal": lambda jax: jax.nn.initializers.he_normal(),
    "lecun_uniform": lambda jax: jax.nn.initializers.lecun_uniform(),
    "lecun_normal": lambda jax: jax.nn.initializers.lecun_normal(),
    "orthogonal": lambda jax: jax.nn.initializers.orthogonal(),
    "random_normal": lambda jax: jax.nn.initializers.normal(0.05),
    "random_uniform": lambda jax: partial(jax.random.uniform, minval=-0.05, maxval=0.05),
    "truncated_normal": lambda jax: jax.nn.initializers.truncated_normal(0.05),
    "zeros": lambda jax: jax.nn.initializers.zeros,
    "ones": lambda jax: jax.nn.initializers.ones,
}
"""From the module `jax`, which is imported when a model is built. Numbers are those of Keras."""


_ARE_DRAWN = ContextVar("are_drawn", default=True)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Kernels made in this block are zeros: where only shapes matter, tracing how they are drawn takes longest."""
    token = _ARE_DRAWN.set(False)
    try:
        yield
    finally:
        _ARE_DRAWN.reset(token)


def initializer(name: str) -> Initializer:
    """The function that draws kernels."""
    import jax

    return INITIALIZERS[name if _ARE_DRAWN.get() else "zeros"](jax)


@dataclass(frozen=True)
class L1L2:
    """Adds `l1 × Σ|w| + l2 × Σw²` over a layer's kernels to the training loss, as in Keras."""

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self):
        for name, amount in (("l1", self.l1), ("l2", self.l2)):
            if not is_number(amount) or not 0 <= amount < float("inf"):
                raise InputError(
                    problem(f"regularizer {name}", repr(amount), "a number of 0 or more", "Give 1e-4 or so.")
                )


def l1(amount: float = 0.01) -> L1L2:
    """`amount × Σ|w|`."""
    return L1L2(l1=amount)


def l2(amount: float = 0.01) -> L1L2:
    """`amount × Σw²`, whose gradient is 2 × amount × w."""
    return L1L2(l2=amount)


REGULARIZERS = {"l1": l1(), "l2": l2(), "l1_l2": L1L2(0.01, 0.01)}
"""With the amounts that Keras gives these names."""


def regularizer_of(regularizer: "L1L2 | str | None") -> L1L2 | None:
    """The spec of a regularizer given by name; raises InputError for an unknown one."""
    if regularizer is None or isinstance(regularizer, L1L2):
        return regularizer
    if not isinstance(regularizer, str) or regularizer not in REGULARIZERS:
        remedy = "Give one of these, or l2(1e-4) of engine.models."
        raise InputError(unknown("kernel_regularizer", regularizer, REGULARIZERS, remedy))
    return REGULARIZERS[regularizer]


def check_initializer(name: str) -> None:
    """Raises InputError unless the initializer is known."""
    if name not in INITIALIZERS:
        raise InputError(unknown("kernel_initializer", name, INITIALIZERS))

"""How kernels begin and what their size costs: initializers and regularizers by the names of Keras, as specs."""

from dataclasses import dataclass

from engine.errors import InputError, problem, unknown
from engine.models.shapes import is_number

INITIALIZERS = (
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal",
    "random_normal", "random_uniform", "truncated_normal", "zeros", "ones",
)  # fmt: skip


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

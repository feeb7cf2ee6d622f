"""Activations by the names of Keras, as specs. `models.functions` has what they compute."""

from dataclasses import dataclass

from engine.errors import InputError, problem, unknown
from engine.models.shapes import Untrained, is_number

ACTIVATIONS = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "gelu_tanh", "silu", "swish", "mish",
    "tanh", "sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "softplus", "softsign", "log_sigmoid",
    "exponential", "softmax", "log_softmax",
)  # fmt: skip
MONOTONE = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "tanh", "sigmoid", "hard_sigmoid", "hard_tanh",
    "softplus", "softsign", "log_sigmoid", "exponential",
)  # fmt: skip
"""Those that never fall and act on each value alone: the largest activated is the activation of the largest."""
SLOPES = {"leaky_relu": 0.2, "elu": 1.0, "celu": 1.0}
"""Those with a slope, and what it is by default, as in Keras."""


@dataclass(frozen=True)
class Activation(Untrained):
    """A function of each value by name, as a layer or as the `activation` of one.

    slope: of leaky_relu below 0 (None: 0.2); of elu and celu just below 0, their α (None: 1).
    gelu is the exact one, gelu_tanh its approximation by tanh; softmax and log_softmax are over channels.
    """

    name: str
    slope: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.name not in ACTIVATIONS:
            raise InputError(unknown("activation", self.name, ACTIVATIONS))
        if self.slope is None:
            return
        if self.name not in SLOPES:
            rule = f"none with {self.name}: {', '.join(SLOPES)} have one"
            raise InputError(problem("activation slope", self.slope, rule, "Leave it out."))
        if not is_number(self.slope) or not 0 <= self.slope < float("inf"):
            raise InputError(problem("activation slope", repr(self.slope), "a number of 0 or more", "Give 0.1 or so."))
        if self.name == "celu" and not self.slope:
            raise InputError(problem("activation slope", self.slope, "above 0 with celu", "Use relu."))

    def __str__(self) -> str:
        """As tables show it: `leaky_relu(0.1)`."""
        return self.name if self.slope is None else f"{self.name}({self.slope:g})"

    @property
    def is_monotone(self) -> bool:
        """Whether a max-pool may go before it."""
        return self.name in MONOTONE


def activation_of(activation: str | Activation | None) -> Activation | None:
    """The spec of an activation given by name."""
    return Activation(activation) if isinstance(activation, str) else activation


def check_activation(activation: str | Activation | None) -> None:
    """Raises InputError unless it is known; None is none."""
    if activation is not None and not isinstance(activation, Activation):
        Activation(activation)

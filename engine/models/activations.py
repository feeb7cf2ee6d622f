"""Activations by the names of Keras: what they compute, and what else depends on which one it is, in one table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from engine.errors import InputError, problem, unknown
from engine.models.layer import Layer
from engine.models.shapes import Shape, is_number
from engine.records.custom import Custom

if TYPE_CHECKING:
    import jax


class Kind(NamedTuple):
    """An activation by name.

    load: (the module `jax`, imported when it is used) → the function of [b …], and of the slope if there is one.
    is_monotone: it never falls and acts on each value alone, so that a max-pool may go before it.
    is_fused: the direct kernels compute it in one operation with a convolution.
    slope: by default, as in Keras; None: it has none.
    is_narrow: its values or its gradients end on one side, so that a loss that takes logits hardly learns from it.
    """

    load: Callable[[Any], Callable[..., Any]]
    is_monotone: bool = False
    is_fused: bool = False
    slope: float | None = None
    is_narrow: bool = False


ACTIVATIONS: dict[str, Kind] = {
    "linear": Kind(lambda jax: lambda x: x, is_monotone=True),
    "relu": Kind(lambda jax: jax.nn.relu, is_monotone=True, is_fused=True, is_narrow=True),
    "relu6": Kind(lambda jax: jax.nn.relu6, is_monotone=True, is_narrow=True),
    "leaky_relu": Kind(lambda jax: jax.nn.leaky_relu, is_monotone=True, slope=0.2),
    "elu": Kind(lambda jax: jax.nn.elu, is_monotone=True, slope=1.0),
    "celu": Kind(lambda jax: jax.nn.celu, is_monotone=True, slope=1.0),
    "selu": Kind(lambda jax: jax.nn.selu, is_monotone=True),
    "gelu": Kind(lambda jax: lambda x: jax.nn.gelu(x, approximate=False)),
    "gelu_tanh": Kind(lambda jax: jax.nn.gelu),
    "silu": Kind(lambda jax: jax.nn.silu),
    "swish": Kind(lambda jax: jax.nn.silu),
    "mish": Kind(lambda jax: jax.nn.mish),
    "tanh": Kind(lambda jax: jax.numpy.tanh, is_monotone=True, is_narrow=True),
    "sigmoid": Kind(lambda jax: jax.nn.sigmoid, is_monotone=True),
    "hard_sigmoid": Kind(lambda jax: jax.nn.hard_sigmoid, is_monotone=True, is_narrow=True),
    "hard_silu": Kind(lambda jax: jax.nn.hard_silu),
    "hard_swish": Kind(lambda jax: jax.nn.hard_silu),
    "hard_tanh": Kind(lambda jax: jax.nn.hard_tanh, is_monotone=True, is_narrow=True),
    "softplus": Kind(lambda jax: jax.nn.softplus, is_monotone=True, is_narrow=True),
    "softsign": Kind(lambda jax: jax.nn.soft_sign, is_monotone=True, is_narrow=True),
    "log_sigmoid": Kind(lambda jax: jax.nn.log_sigmoid, is_monotone=True),
    "exponential": Kind(lambda jax: jax.numpy.exp, is_monotone=True, is_narrow=True),
    "softmax": Kind(lambda jax: jax.nn.softmax),
    "log_softmax": Kind(lambda jax: jax.nn.log_softmax),
}
OWN = Kind(lambda jax: lambda x: x)
"""What is known of a user's own function."""


@dataclass(frozen=True)
class Activation(Layer):
    """A function of each value, by name or `custom(function)`, as a layer or as the `activation` of one.

    slope: of leaky_relu below 0 (None: 0.2); of elu and celu just below 0, their α (None: 1).
    gelu is the exact one, gelu_tanh its approximation by tanh; softmax and log_softmax are over channels.
    A function of your own maps [b …] to an array of the same shape.
    name: also of one within another layer, which then answers to it too.
    """

    RECORD_VERSION: ClassVar[int] = 2  # 1: `function` was called name

    function: str | Custom
    slope: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.function, Custom) and self.function not in ACTIVATIONS:
            remedy = "Give a function of your own by engine.custom(function)." if callable(self.function) else ""
            raise InputError(unknown("activation", self.function, ACTIVATIONS, remedy))
        if self.slope is None:
            return
        if self.known.slope is None:
            sloped = ", ".join(name for name, kind in ACTIVATIONS.items() if kind.slope)
            rule = f"none with {self._short_name}: {sloped} have one"
            raise InputError(problem("activation slope", self.slope, rule, "Leave it out."))
        if not is_number(self.slope) or not 0 <= self.slope < float("inf"):
            raise InputError(problem("activation slope", repr(self.slope), "a number of 0 or more", "Give 0.1 or so."))
        if self.function == "celu" and not self.slope:
            raise InputError(problem("activation slope", self.slope, "above 0 with celu", "Use relu."))

    @classmethod
    def upgraded(cls, given: dict[str, Any], version: int) -> dict[str, Any]:
        """The fields of a record of version 1, in today's terms."""
        return {"function" if field == "name" else field: value for field, value in given.items()}

    def __str__(self) -> str:
        """As tables show it: `leaky_relu(0.1)`."""
        return self._short_name if self.slope is None else f"{self._short_name}({self.slope:g})"

    @property
    def _short_name(self) -> str:
        return self.function.name if isinstance(self.function, Custom) else self.function

    @property
    def known(self) -> Kind:
        """What is known of it."""
        return OWN if isinstance(self.function, Custom) else ACTIVATIONS[self.function]

    @property
    def is_by_pixel(self) -> bool:
        """Whether it acts on each pixel by itself, as far as is known: all but a user's own do."""
        return not isinstance(self.function, Custom)

    @property
    def activation(self) -> "Activation":  # type: ignore[override]
        """Itself."""
        return self

    def needed_input(self, shape: Shape, output: Shape) -> Shape:
        """As much as of its output."""
        return output[:2]

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b …] → [b …]."""
        import jax

        if not isinstance(self.function, Custom):
            slope = self.known.slope if self.slope is None else self.slope
            return self.known.load(jax)(x, *(() if slope is None else (slope,)))
        outputs = self.function.make("activation", x)
        if getattr(outputs, "shape", None) != x.shape:
            got = f"{self.function.path}, which makes {getattr(outputs, 'shape', type(outputs).__name__)} of {x.shape}"
            raise InputError(problem("activation", got, "an array of the same shape", "Write a layer for the rest."))
        return outputs

    def without_activation(self) -> None:
        """None."""


def activation_spec(activation: str | Custom | Activation | None) -> Activation | None:
    """The spec of an activation given by name or by a user's own function; raises InputError unless it is one."""
    return activation if activation is None or isinstance(activation, Activation) else Activation(activation)

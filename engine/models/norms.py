"""Specs of layers that normalise or scale channels. See `models.layers`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from engine.errors import InputError, problem
from engine.models.layer import Layer
from engine.models.shapes import Shape, check_count, check_epsilon, check_groups, is_number
from engine.records import ADDED

if TYPE_CHECKING:
    from flax import nnx


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalises each channel by the batch's mean and variance; by their running averages outside training.

    use_scale, use_offset: whether each channel is then multiplied by a trained number (γ) and another added (β).
    """

    takes_mask: ClassVar[bool] = True
    scales_inputs: ClassVar[bool] = True

    momentum: float = 0.99
    epsilon: float = 1e-3
    use_scale: bool = field(default=True, kw_only=True, metadata=ADDED)
    use_offset: bool = field(default=True, kw_only=True, metadata=ADDED)

    def __post_init__(self):
        super().__post_init__()
        if not is_number(self.momentum) or not 0 <= self.momentum < 1:
            raise InputError(problem("BatchNorm momentum", repr(self.momentum), "0 ≤ momentum < 1", "Give 0.99 or so."))
        check_epsilon("BatchNorm epsilon", self.epsilon)

    def num_params(self, shape: Shape) -> int:
        """Scale and offset of each channel; the running averages are not trained and not among them."""
        return (self.use_scale + self.use_offset) * shape[-1]

    def num_statistics(self, shape: Shape) -> int:
        """The running average of mean and variance of each channel."""
        return 2 * shape[-1]


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Normalises the channels of each pixel or token, or the values of a vector, by their own mean and variance."""

    scales_inputs: ClassVar[bool] = True

    epsilon: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        check_epsilon("LayerNorm epsilon", self.epsilon)

    def num_params(self, shape: Shape) -> int:
        """Scale and offset of each channel."""
        return 2 * shape[-1]

    def build(self, shape: Shape, rngs: "nnx.Rngs") -> "nnx.Module":
        """[b … c] → [b … c]."""
        from flax import nnx

        return nnx.LayerNorm(shape[-1], epsilon=self.epsilon, use_fast_variance=False, rngs=rngs)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Normalises each group of neighbouring channels of an example, over all pixels, by their own mean and variance."""

    scales_inputs: ClassVar[bool] = True

    groups: int = 32
    epsilon: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        check_count("GroupNorm groups", self.groups)
        check_epsilon("GroupNorm epsilon", self.epsilon)

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        check_groups(shape[-1], self.groups)
        return shape

    def num_params(self, shape: Shape) -> int:
        """Scale and offset of each channel."""
        return 2 * shape[-1]

    def build(self, shape: Shape, rngs: "nnx.Rngs") -> "nnx.Module":
        """[b … c] → [b … c]."""
        from flax import nnx

        sizes = {"num_groups": self.groups, "epsilon": self.epsilon}
        return nnx.GroupNorm(shape[-1], **sizes, use_fast_variance=False, rngs=rngs)


@dataclass(frozen=True)
class LayerScale(Layer):
    """Multiplies each channel by a trained number, at first `start` (Touvron et al. 2021)."""

    start: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        if not is_number(self.start) or not abs(self.start) < float("inf"):
            raise InputError(problem("LayerScale start", repr(self.start), "a finite number", "Give 1e-6 or so."))

    def num_params(self, shape: Shape) -> int:
        """One number a channel."""
        return shape[-1]

    def needed_input(self, shape: Shape, output: Shape) -> Shape:
        """As much as of its output."""
        return output[:2]

"""Specs of layers of tokens (n, d): n vectors side by side, which a vision transformer makes of an image's patches.

As in Dosovitskiy et al. 2021: Conv(d, 16, 16), Tokens(), ClassToken(), PositionEmbedding(), then blocks of
`residual` with Attention and Dense, LayerNorm, FirstToken(), Dense().
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from engine.errors import InputError, problem, shape_text
from engine.models.layer import Layer
from engine.models.shapes import Shape, check_count, check_image
from engine.models.weights import check_initializer

if TYPE_CHECKING:
    import jax


def _check_tokens(shape: Shape) -> None:
    if len(shape) != 2:
        raise InputError(problem("", shape_text(shape), "tokens n×d", "Put Tokens() before it, after convolutions."))


@dataclass(frozen=True)
class Tokens(Layer):
    """The pixels of an image as tokens, row by row."""

    keeps_values: ClassVar[bool] = True

    def output_shape(self, shape: Shape) -> Shape:
        """(h·w, c)."""
        check_image(shape)
        return (shape[0] * shape[1], shape[2])

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b h w c] → [b hw c]."""
        return x.reshape(x.shape[0], -1, x.shape[3])


@dataclass(frozen=True)
class ClassToken(Layer):
    """One more token before all others, which is trained; at first zeros."""

    def output_shape(self, shape: Shape) -> Shape:
        """(n + 1, d)."""
        _check_tokens(shape)
        return (shape[0] + 1, shape[1])

    def num_params(self, shape: Shape) -> int:
        """The values of a token."""
        return shape[1]


@dataclass(frozen=True)
class PositionEmbedding(Layer):
    """Adds a trained vector to each token by its position; at first normal with a standard deviation of 0.02."""

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged."""
        _check_tokens(shape)
        return shape

    def num_params(self, shape: Shape) -> int:
        """A vector a token."""
        return shape[0] * shape[1]


@dataclass(frozen=True)
class Attention(Layer):
    """Self-attention of `heads` heads among tokens (Vaswani et al. 2017): softmax(q·kᵀ / √(d / heads))·v, projected.

    One product gives q, k and v, in this order, with the heads of each side by side (`qkv`); another follows
    (`projection`). use_bias: of qkv; the projection always has biases.
    """

    has_kernel: ClassVar[bool] = True

    heads: int
    use_bias: bool = True
    kernel_initializer: str = "glorot_uniform"

    def __post_init__(self):
        super().__post_init__()
        check_count("Attention heads", self.heads)
        check_initializer(self.kernel_initializer)

    def output_shape(self, shape: Shape) -> Shape:
        """Unchanged; refuses anything but tokens whose size the heads divide."""
        _check_tokens(shape)
        if shape[1] % self.heads:
            got, rule = shape_text(shape), f"tokens whose size is a multiple of {self.heads}"
            raise InputError(problem("Attention heads", got, rule, "Change one of them."))
        return shape

    def num_params(self, shape: Shape) -> int:
        """Weights and biases of both products."""
        size = shape[1]
        return 4 * size**2 + size + 3 * size * self.use_bias


@dataclass(frozen=True)
class FirstToken(Layer):
    """The first token as a vector: the class token's."""

    pools_values: ClassVar[bool] = True
    ends_trunk: ClassVar[bool] = True

    def output_shape(self, shape: Shape) -> Shape:
        """(d,)."""
        _check_tokens(shape)
        return (shape[1],)

    def apply(self, x: "jax.Array") -> "jax.Array":
        """[b n d] → [b d]."""
        return x[:, 0]

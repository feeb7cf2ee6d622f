"""NNX modules of layers of tokens [b n d]."""

import jax
import jax.numpy as jnp
from flax import nnx

from engine.models.shapes import Shape
from engine.models.tokens import Attention, ClassToken, PositionEmbedding
from engine.models.weights import initializer

EMBEDDING_SPREAD = 0.02


class ClassTokenModule(nnx.Module):
    """A trained token before the others."""

    def __init__(self, layer: ClassToken, shape: Shape, rngs: nnx.Rngs):
        self.token = nnx.Param(jnp.zeros((1, 1, shape[1])))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b n d] → [b n+1 d]."""
        first = jnp.broadcast_to(self.token[...], (x.shape[0], 1, x.shape[2])).astype(x.dtype)
        return jnp.concatenate([first, x], axis=1)


class PositionEmbeddingModule(nnx.Module):
    """A trained vector added to each token."""

    def __init__(self, layer: PositionEmbedding, shape: Shape, rngs: nnx.Rngs):
        drawn = EMBEDDING_SPREAD * jax.random.normal(rngs.params(), (1, *shape), jnp.float32)
        self.embedding = nnx.Param(drawn)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b n d] → [b n d]."""
        return x + self.embedding[...]


class AttentionModule(nnx.Module):
    """Self-attention: one product for q, k and v, one for the projection."""

    def __init__(self, layer: Attention, shape: Shape, rngs: nnx.Rngs):
        size, draw = shape[1], initializer(layer.kernel_initializer)
        self.heads = layer.heads
        self.qkv = nnx.Linear(size, 3 * size, use_bias=layer.use_bias, kernel_init=draw, rngs=rngs)
        self.projection = nnx.Linear(size, size, kernel_init=draw, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b n d] → [b n d]."""
        b, n, d = x.shape
        split = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads)
        q, k, v = (split[:, :, part] for part in range(3))  # [b n h d/h]
        scores = jnp.einsum("bnhd,bmhd->bhnm", q * (d // self.heads) ** -0.5, k)
        mixed = jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), v)
        return self.projection(mixed.reshape(b, n, d))

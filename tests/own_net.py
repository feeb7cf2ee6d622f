"""A model class of a user's own, in a module that says when it was imported."""

import os
from pathlib import Path

import jax
from flax import nnx

if marker := os.environ.get("OWN_NET_IMPORTED"):
    Path(marker).touch()


class OwnNet(nnx.Module):
    """One dense layer of all pixels."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs, scale: float = 1.0):
        self.scale = scale
        self.dense = nnx.Linear(input_shape[0] * input_shape[1] * input_shape[2], num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b k]."""
        return self.dense(x.reshape(x.shape[0], -1) * self.scale)

"""Layers and activations of a user's own, in a module that says when it was imported."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine.errors import InputError, problem
from engine.models import Conv, Layer

if marker := os.environ.get("OWN_NET_IMPORTED"):
    Path(marker).touch()


@dataclass(frozen=True)
class Scale(Layer):
    """Each channel times a factor that is learned."""

    start: float = 1.0
    activation: Any = None

    def __post_init__(self):
        super().__post_init__()
        if self.start <= 0:
            raise InputError(problem("Scale start", self.start, "above 0", "Give 1."))

    def num_params(self, shape: tuple[int, ...]) -> int:
        """A factor for each channel."""
        return shape[-1]

    def build(self, shape: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Module:
        """Its module."""
        return ScaleModule(self.start, shape[-1])


class ScaleModule(nnx.Module):
    """[b … c] → [b … c]."""

    def __init__(self, start: float, channels: int):
        self.factors = nnx.Param(jnp.full(channels, start))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.factors[...].reshape(*(1,) * (x.ndim - 1), -1)


@dataclass(frozen=True)
class Mirror(Layer):
    """Images from right to left, which need all of their input."""

    def apply(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b h w c]."""
        return x[:, :, ::-1]


@dataclass(frozen=True)
class Miscounted(Scale):
    """A layer that says nothing of its parameters."""

    def num_params(self, shape: tuple[int, ...]) -> int:
        """Too few."""
        return 0


@dataclass(frozen=True)
class Noise(Layer):
    """Dropout that does not say that it is random."""

    def build(self, shape: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Module:
        """Its module."""
        return nnx.Dropout(0.5, rngs=rngs)


@dataclass(frozen=True)
class Wider(Layer):
    """A function that gives another shape than it says."""

    def apply(self, x: jax.Array) -> jax.Array:
        """Twice as many channels."""
        return jnp.concatenate([x, x], axis=-1)


@dataclass(frozen=True)
class Undefined(Layer):
    """Neither build nor apply."""


class Undecorated(Layer):
    """No dataclass."""


@dataclass(frozen=True)
class WideConv(Conv):
    """A convolution with another default, built as the one it is derived from."""

    kernel_size: int = 5


def bent(x: jax.Array, slope: float = 0.1) -> jax.Array:
    """A leaky relu."""
    return jnp.where(x > 0, x, slope * x)


def centred(x: jax.Array) -> jax.Array:
    """An activation that needs all pixels of an image."""
    return x - x.mean(axis=(1, 2), keepdims=True)


def halved(x: jax.Array) -> jax.Array:
    """No activation: it gives another shape."""
    return x[:, ::2]

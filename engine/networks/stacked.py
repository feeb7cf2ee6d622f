"""Stacked: modules of one architecture as one module, run by one call."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Stacked(nnx.Module):
    """Members whose arrays are stacked along a leading axis [m …]; each is what `make_member` makes of its seed.

    make_member: (a seed, which is traced) → module, the same architecture for all. seeds: [m].
    mapping: vmap asks them side by side, map one after another, which takes the memory of one.
    out_axis: where the outputs have their axis of members: 0 for [m b k], 1 for [b m k].
    """

    def __init__(
        self,
        make_member: Callable[[jax.Array], nnx.Module],
        seeds: jax.Array | np.ndarray,
        mapping: Literal["vmap", "map"] = "vmap",
        out_axis: int = 0,
    ):
        self.members = nnx.vmap(make_member)(jnp.asarray(seeds))
        self.mapping, self.out_axis = mapping, out_axis

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …], which all members see, → [m b k], or as `out_axis` says."""
        # scan without a carry is Flax's jax.lax.map: it brings the members' states back, batch statistics for one.
        mapped = nnx.vmap if self.mapping == "vmap" else nnx.scan
        return mapped(_ask, in_axes=(0, None), out_axes=self.out_axis)(self.members, x)


def _ask(member: nnx.Module, x: jax.Array) -> jax.Array:
    return member(x)  # type: ignore[operator]


class SameKey(nnx.Rngs):
    """One key for all kernels, of which only the shapes matter: counting takes a third of the time to make a module."""

    def params(self) -> jax.Array:
        """The key."""
        return self["default"].key[...]

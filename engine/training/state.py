"""TrainState: the one pytree that a run carries."""

import operator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from engine.networks.network import Tree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Arrays only: steps done, trained parameters, other model state (batch statistics), optimizer state.

    averaged: the running average of the parameters, if configured; evaluation and saving then use it.
    Keys of random streams are not part of it: they are functions of (seed, stream, step).
    """

    step: jax.Array
    params: Tree
    model_state: Tree
    opt_state: Tree
    averaged: Tree = None

    @property
    def model(self) -> tuple[Tree, Tree]:
        """(parameters, other state) of the model for evaluation and saving."""
        return (self.params if self.averaged is None else self.averaged), self.model_state


def init_state(
    params: Tree, model_state: Tree, optimizer: optax.GradientTransformation, is_averaged: bool = False
) -> TrainState:
    """The state before the first step; the average of the parameters starts as the parameters."""
    averaged = jax.tree.map(jnp.copy, params) if is_averaged else None
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params), averaged)


def make_items(state: TrainState) -> dict[str, Any]:
    """The items of a checkpoint: the model, and what else it takes to continue training."""
    rest = (state.step, state.opt_state)
    return {"model": state.model, "optimizer": rest if state.averaged is None else (*rest, state.params)}


def find_finite(model: Tree, by_member: bool) -> Any:
    """bool[]: whether all numbers of host or device arrays are finite; by_member: bool[m]."""
    leaves = [leaf for leaf in jax.tree.leaves(model) if leaf.dtype.kind == "f"]
    library = jnp if any(isinstance(leaf, jax.Array) for leaf in leaves) else np
    each = (library.isfinite(leaf).all(axis=tuple(range(by_member, leaf.ndim))) for leaf in leaves)
    return reduce(operator.and_, each, np.array(True))


def make_state(model: tuple[Tree, Tree], optimizer: tuple) -> TrainState:
    """The state of which `make_items` made these."""
    (params, model_state), (step, opt_state, *trained) = model, optimizer
    if not trained:
        return TrainState(step, params, model_state, opt_state)
    return TrainState(step, trained[0], model_state, opt_state, params)


def restructured(opt_state: Tree, like: Tree, step: jax.Array) -> Tree:
    """The optimizer state in the structure of one with other settings of the same optimizer.

    Weight decay, last in the chain, has a count of its own: where it is new, that is the steps done.
    """
    leaves, shapes = jax.tree.leaves(opt_state), jax.tree.leaves(like)
    leaves = [*leaves, jnp.copy(step)][: len(shapes)]
    assert [leaf.shape for leaf in leaves] == [shape.shape for shape in shapes]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)

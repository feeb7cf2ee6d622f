"""Local SGD: the devices along `data` train on their own shares of the batches for some steps, then average.

Stich 2019 (arXiv 1805.09767); with the optimizer's momentum averaged too: Yu, Jin and Yang 2019 (arXiv 1905.03817). All
functions are for programs under `Devices.by_member` with `is_local`, where each device computes for itself.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from engine.config.plan import DATA

Carry = tuple[Any, Any, jax.Array]  # state, sums of metrics, bad step


def run_periods(
    step: Callable[[Any, Carry], Carry],
    settle: Callable[[Carry, Carry], Carry],
    carry: Carry,
    first: jax.Array,
    last: jax.Array,
    period: int,
) -> Carry:
    """The carry after the steps from first to before last, averaged after every `period` of them and after the last.

    Periods are counted from step 0, so that a run may be cut into calls wherever one ends.
    step: (number, carry) → carry, of this device. settle: (averaged carry, carry before the period) → what is kept.
    """

    def run_period(place: tuple[jax.Array, Carry]) -> tuple[jax.Array, Carry]:
        start, (state, totals, bad_step) = place
        end = jnp.minimum((start // period + 1) * period, last)
        own = (state, jax.tree.map(jnp.zeros_like, totals), bad_step)
        own_state, added, own_bad_step = lax.fori_loop(start, end, step, own)
        totals_of_all = jax.tree.map(lambda before, new: before + lax.psum(new, DATA), totals, added)
        averaged = (average_states(own_state), totals_of_all, lax.pmin(own_bad_step, DATA))
        return end, settle(averaged, place[1])

    return lax.while_loop(lambda place: place[0] < last, run_period, (first, carry))[1]


def average_states(state: Any) -> Any:
    """The mean over devices of all floating-point arrays, in one message; of step counts, the largest."""
    leaves, structure = jax.tree.flatten(state)
    are_floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    flat, restore = ravel_pytree([leaf for leaf, is_float in zip(leaves, are_floats, strict=True) if is_float])
    means = iter(restore(lax.pmean(flat, DATA)))
    return structure.unflatten(
        [next(means) if is_float else lax.pmax(leaf, DATA) for leaf, is_float in zip(leaves, are_floats, strict=True)]
    )

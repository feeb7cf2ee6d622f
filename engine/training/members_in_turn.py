"""Trains the members of an ensemble one after another, each with the program of a single model.

So a member is bit-identical to its run alone: XLA's code for a step depends on the program around it.
"""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from engine.devices.executables import Executables
from engine.metrics.sums import Metrics
from engine.training.batches import num_batches
from engine.training.feed import DataWindow
from engine.training.program import NEVER, Program
from engine.training.state import TrainState


class OneByOne:
    """The interface of `Program` for an ensemble: `train` takes and returns arrays stacked [m …]."""

    def __init__(self, together: Program, executables: Executables):
        self._together, self._executables = together, executables
        seeds, settings = together.order_seeds.seeds, together.settings
        subsets = together.order_seeds.subsets
        self._num_batches = subsets and [num_batches(count, together.batch_size) for count in subsets.counts.tolist()]
        self._programs = [
            together.alone(
                _of_member(settings, i),
                replace(together.order_seeds, seeds=seeds[i] if isinstance(seeds, tuple) else seeds, subsets=None),
            )
            for i in range(len(settings.seed))
        ]

    def order(self, epoch: int, num_examples: int) -> jax.Array:
        """As `Program.order`."""
        return self._together.order(epoch, num_examples)

    def train(
        self,
        state: TrainState,
        window: DataWindow,
        num_examples: int,
        order: jax.Array,
        first: int,
        count: int,
        totals: Metrics,
        is_active: np.ndarray,
        rate_factor: np.ndarray | None = None,
    ) -> tuple[TrainState, Metrics, np.ndarray]:
        """As `Program.train`."""
        whole, number = (state, totals), len(self._programs)
        has_own_images = order.ndim > 1 and self._together.plan.placement == "streamed"
        bad_steps = np.full(number, NEVER, np.int32)
        for i in np.flatnonzero(is_active):
            images = window.images[i] if has_own_images else window.images
            place = (replace(window, images=images), num_examples, order[i] if order.ndim > 1 else order, first)
            own = None if rate_factor is None else rate_factor[i]
            own_count = min(count, self._num_batches[i] - first) if self._num_batches else count
            if own_count > 0:  # one with fewer examples has trained all of its batches
                part = self._executables.call("member", _of_member, whole, np.int32(i))
                part, bad_steps[i] = self._train_one(self._programs[i], part, place, own_count, own)
                whole = self._executables.call("put", _put_member, whole, part, np.int32(i), donate=(0,))
        state, totals = jax.block_until_ready(whole)
        return state, totals, bad_steps

    def _train_one(
        self,
        program: Program,
        part: tuple,
        place: tuple[DataWindow, int, jax.Array, int],
        count: int,
        rate_factor: np.ndarray | None,
    ) -> tuple[tuple, int]:
        before = jax.tree.map(np.array, part)  # the program overwrites its arguments
        state, totals, bad_step = program.train(part[0], *place, count, part[1], rate_factor=rate_factor)
        if bad_step == NEVER:
            return (state, totals), NEVER
        good = int(bad_step) - 1 - int(before[0].step)
        part = jax.device_put(before)
        if good:  # train again, and stop before the failing step
            state, totals, _ = program.train(part[0], *place, good, part[1], rate_factor=rate_factor)
            part = (state, totals)
        return part, int(bad_step)


def program_of(program: Program, executables: Executables) -> Program | OneByOne:
    """The program itself, or a `OneByOne` if members train one after another on one device."""
    is_outer = program.is_ensemble and program.plan.member_mapping == "outer" and program.devices.is_one
    return OneByOne(program, executables) if is_outer else program


def _of_member(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _put_member(tree: Any, part: Any, index: jax.Array) -> Any:
    """In place. One program for any index: one that takes all members apart is compiled m times as long."""
    return jax.tree.map(lambda leaf, own: leaf.at[index].set(own), tree, part)

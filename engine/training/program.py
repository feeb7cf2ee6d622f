"""Many steps in one compiled call with donated state, for one model or the members of an ensemble."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import lcm
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from engine.augment.apply import augment_batch, example_keys
from engine.config import DataPlacement, Lowering, MemberMapping, PlanConfig
from engine.config.plan import DATA, Plan
from engine.data.weighing import ClassDraws
from engine.devices.executables import Executables
from engine.devices.mesh import ONE_DEVICE, Devices
from engine.kernels.eigen import stalls_in_loops
from engine.keys import step_key
from engine.metrics.sums import Metrics
from engine.networks.network import AnyNetwork, Tree
from engine.training.batches import OrderSeeds, batch_mask, epoch_orders, num_batches
from engine.training.feed import DataWindow
from engine.training.local_steps import run_periods
from engine.training.member_settings import MemberSettings
from engine.training.state import TrainState
from engine.training.step import Batch, Objective, train_step

CHUNK_SECONDS = 1.0
NEVER = np.iinfo(np.int32).max


def choose_plan(
    config: PlanConfig,
    lowering: Lowering,
    platform: str,
    network: AnyNetwork,
    input_shape: tuple[int, ...],
    model: tuple[Tree, Tree],
    placement: DataPlacement = "resident",
) -> Plan:
    """The plan of a run: stepwise on a CPU if a convolution or its gradient would run single-threaded inside a loop.

    model: (params, model_state); only shapes matter.
    """
    is_stepwise = platform == "cpu" and _stalls_in_loops(network, input_shape, model)
    by_rule: MemberMapping = "outer" if platform == "cpu" or config.mode == "safe" else "vmap"
    members = by_rule if config.member_mapping == "auto" else config.member_mapping
    return Plan(lowering, is_stepwise, config.chunk_steps, placement, members, config.mesh)


class Program:
    """The compiled training of a run: of one model, or of an ensemble, whose members' arrays are stacked [m …].

    settings: seeds and hyperparameters of the members. order_seeds: determine the order of the examples.
    tune: (objective, settings of a member) → its objective. devices: where all arguments have been placed.
    steps_ahead: of Record.
    """

    def __init__(
        self,
        objective: Objective,
        plan: Plan,
        settings: MemberSettings,
        order_seeds: OrderSeeds,
        batch_size: int,
        executables: Executables,
        tune: Callable[[Objective, MemberSettings], Objective] | None = None,
        devices: Devices = ONE_DEVICE,
        steps_ahead: int = 0,
    ):
        self.objective, self.plan, self.settings, self.order_seeds, self.batch_size = (
            replace(objective, add_up=devices.add_up) if devices.adds_up else objective,
            plan,
            settings,
            order_seeds,
            batch_size,
        )
        self.is_ensemble, self.devices, self._steps_ahead = np.ndim(settings.seed) > 0, devices, steps_ahead
        self._executables, self._tune = executables, tune or (lambda objective, settings: objective)
        of_pairs = 2 if objective.augment.pairs_examples else 1
        self.padded_size = devices.padded(batch_size, lcm(of_pairs, objective.num_parts))

    def alone(self, settings: MemberSettings, order_seeds: OrderSeeds) -> "Program":
        """The program of a single model with these settings, which shares compiled functions."""
        own = settings, order_seeds, self.batch_size, self._executables, self._tune
        return Program(self.objective, self.plan, *own, steps_ahead=self._steps_ahead)

    def order(self, epoch: int, num_examples: int) -> jax.Array:
        """int32[batches × b]: the examples of an epoch in training order, on the devices.

        [m, batches × b] where each member has its own.
        """

        of_seeds = self.order_seeds

        def order(seeds: jax.Array, epoch: jax.Array, subsets: Any, draws: ClassDraws | None) -> jax.Array:
            return epoch_orders(seeds, epoch, num_examples, self.batch_size, of_seeds.is_bootstrap, subsets, draws)

        seeds, subsets = np.asarray(of_seeds.seeds, np.uint32), of_seeds.subsets and of_seeds.subsets.examples
        found = self._executables.call("order", order, seeds, np.int32(epoch), subsets, of_seeds.draws)
        return self.devices.place(found, seeds.ndim > 0)

    def train(
        self,
        state: TrainState,
        window: DataWindow,
        num_examples: int,
        order: jax.Array,
        first: int,
        count: int,
        totals: Metrics,
        is_active: np.ndarray | bool = True,
        rate_factor: np.ndarray | None = None,
    ) -> tuple[TrainState, Metrics, np.ndarray]:
        """(state, totals, bad step) after `count` batches from `first`, whose images are all in the window.

        rate_factor: of the learning rate, [m] of an ensemble, where the schedule is plateau.

        The bad step is the first, counted from 1, whose loss is not finite, or NEVER. A single model keeps training
        past that step; an ensemble member is rolled back to before it, and is never updated if is_active [m] is false.
        `state` and `totals` are donated. Returns when the device is done.
        """
        calls = [(first + i, 1) for i in range(count)] if self._is_stepwise else [(first, count)]
        bad_step = np.full(np.shape(self.settings.seed), NEVER, np.int32)
        carry = (state, *self.devices.place((totals, bad_step), self.is_ensemble))
        chunk = self._chunk(num_examples, order.ndim > 1)
        settings = replace(self.settings, rate_factor=rate_factor)
        targets = (window.labels, window.weights)
        data = (window.images, targets, np.int32(window.first), order, settings, np.asarray(is_active))
        for start, length in calls:
            place = (np.int32(start), np.int32(length))
            carry = self._executables.call("train", chunk, carry, *data, *place, donate=(0,))
        state, totals, bad_step = jax.block_until_ready(carry)
        totals, bad_step = self.devices.at_hand((totals, bad_step))
        return state, totals, np.asarray(bad_step)

    def _chunk(self, num_examples: int, has_own_order: bool) -> Callable[..., Any]:
        is_streamed, mapping, is_local = self.plan.placement == "streamed", self.plan.member_mapping, self._is_local
        # Per member: carry, order, images, settings, is_active.
        axes = (0, 0 if has_own_order else None, 0 if has_own_order and is_streamed else None, 0, 0)
        carry_axis, order_axis, images_axis, *own_axes = axes if self.is_ensemble else (None,) * 5
        size, is_by_batch = self.padded_size, is_streamed and not self.devices.is_one

        def run(
            carry: tuple, images: Any, targets: tuple, window_first: Any, order: Any, settings: Any, is_active: Any,
            first: Any, count: Any,
        ) -> tuple:  # fmt: skip
            def step(i: Any, carry: tuple, order: Any, images: Any, settings: MemberSettings, is_active: Any) -> tuple:
                examples = lax.dynamic_slice(order, (i * self.batch_size,), (self.batch_size,))
                ahead = i - window_first
                places = ahead * self.batch_size + jnp.arange(self.batch_size) if is_streamed else examples
                num_own = num_examples if settings.num_examples is None else settings.num_examples
                mask = batch_mask(i, num_own, self.batch_size)
                has_any = settings.num_examples is None or jnp.any(mask)  # else this member has trained all of its own
                count = jnp.sum(mask) if self.devices.adds_up else None  # of the whole batch, without an exchange
                mask, examples, places = self.devices.share_out(size, mask, examples, places, is_local=is_local)
                labels, weights = jax.tree.map(lambda values: _take(values, examples), targets)
                if is_by_batch:  # each device has its examples of each batch
                    inputs = lax.dynamic_index_in_dim(images, ahead, keepdims=False)
                    inputs = inputs if is_local else self.devices.keep_split(inputs)
                else:
                    inputs = _take(images, places)
                batch = (inputs, labels, mask, weights, count)
                trained = self._step(carry, examples, batch, settings, num_batches(num_own, self.batch_size))
                if is_local:  # of a last batch, not every device has examples
                    return jax.tree.map(partial(jnp.where, jnp.any(mask)), trained, carry)
                trained = _if_finite(trained, carry, is_active & has_any) if self.is_ensemble else trained
                return self.devices.keep_everywhere(trained)

            def loop(body: Callable[[Any, tuple], tuple], carry: tuple, count: Any, settle: Any) -> tuple:
                if is_local:
                    return run_periods(body, settle, carry, first, first + count, self.objective.average_every)
                return body(first, carry) if self._is_stepwise else lax.fori_loop(first, first + count, body, carry)

            own = (order, images, settings, is_active)
            if not self.is_ensemble:
                return loop(lambda i, carry: step(i, carry, *own), carry, count, lambda averaged, before: averaged)
            if mapping != "outer":
                keep = lambda averaged, before: jax.vmap(_if_finite)(averaged, before, is_active)  # noqa: E731
                return loop(lambda i, carry: _mapped(partial(step, i), axes, mapping)(carry, *own), carry, count, keep)

            def of_member(carry: tuple, *own: Any) -> tuple:
                keep = lambda averaged, before: _if_finite(averaged, before, own[-1])  # noqa: E731
                return loop(lambda i, carry: step(i, carry, *own), carry, jnp.where(own[-1], count, 0), keep)

            return _mapped(of_member, axes, "map")(carry, *own)

        shared_out = (carry_axis, images_axis, None, None, order_axis, *own_axes, None, None)
        return self.devices.by_member(run, shared_out, is_local, 1 if is_by_batch else None)

    @property
    def _is_local(self) -> bool:
        """Whether each device along `data` trains on its own between averages."""
        return self.objective.average_every > 1

    @property
    def _is_stepwise(self) -> bool:
        return self.plan.is_stepwise and not self._is_local  # a call ends with an average

    def _step(
        self, carry: tuple, examples: jax.Array, batch: tuple, settings: MemberSettings, epoch_steps: int
    ) -> tuple:
        """(state, totals, bad step) of one model after one batch of (images, labels, mask, weights, count)."""
        (state, totals, bad_step), (inputs, labels, mask, weights, count), own_share = carry, batch, None
        objective = self._tune(self.objective, settings)
        if objective.augment.is_active:
            step = state.step + self._steps_ahead if self._steps_ahead else state.step
            keys = example_keys(settings.seed, step // epoch_steps, examples)
            # The barrier keeps XLA from augmenting again for each of the slices that the first layer reads.
            inputs, own_share = lax.optimization_barrier(augment_batch(keys, inputs, objective.augment))
        key = step_key(settings.seed, "dropout", state.step)
        if self._is_local:
            key = jax.random.fold_in(key, lax.axis_index(DATA))
        found = Batch(inputs, labels, mask, own_share, weights=weights, count=count)
        state, metrics = train_step(objective, state, found, key)
        bad_here = jnp.where(jnp.isfinite(metrics.sums["loss"]), NEVER, state.step)
        return state, totals + metrics, jnp.minimum(bad_step, bad_here)


class Pacer:
    """Chooses the number of steps of the next compiled call, so that it takes about CHUNK_SECONDS."""

    def __init__(self, plan: Plan):
        self.chunk_steps = plan.chunk_steps
        self.next_steps = plan.chunk_steps or 1
        self.seconds_per_step, self._num_calls = 0.0, 0

    @property
    def is_settled(self) -> bool:
        """Whether the time a step is good for an estimate: of the third call or later, about a hundred steps in."""
        return self._num_calls >= 3

    def steps(self, remaining: int, period: int = 1) -> int:
        """Steps to run now, at most `remaining`; whole periods."""
        return min(-(-self.next_steps // period) * period, remaining)

    def ran(self, steps: int, seconds: float) -> None:
        """Records how long a call took; the next one runs at most ten times as many steps."""
        self.seconds_per_step, self._num_calls = seconds / steps, self._num_calls + 1
        if self.chunk_steps is None:
            wanted = int(CHUNK_SECONDS / max(self.seconds_per_step, 1e-9))
            self.next_steps = max(1, min(wanted, 10 * steps))


def _mapped(function: Callable[..., Any], axes: tuple[int | None, ...], mapping: MemberMapping) -> Callable[..., Any]:
    """Maps the function over the leading axis of the arguments whose axis is 0: vectorized, or one after another."""
    if mapping == "vmap":
        return jax.vmap(function, axes)

    def one_after_another(*arguments: Any) -> Any:
        def of_one(own: list[Any]) -> Any:
            rest = iter(own)
            return function(*(next(rest) if axis == 0 else a for a, axis in zip(arguments, axes, strict=True)))

        return lax.map(of_one, [a for a, axis in zip(arguments, axes, strict=True) if axis == 0])

    return one_after_another


def _if_finite(trained: tuple, before: tuple, is_active: jax.Array) -> tuple:
    """A member's carry after a step, or the one before it if the member is inactive or its loss is not finite."""
    was_bad, is_bad = before[2] != NEVER, trained[2] != NEVER
    keep = is_active & ~was_bad & ~is_bad
    state, totals = jax.tree.map(partial(jnp.where, keep), trained[:2], before[:2])
    return state, totals, jnp.where(is_active & ~was_bad, trained[2], before[2])


def _take(array: jax.Array, indices: jax.Array) -> jax.Array:
    return array.at[indices].get(mode="promise_in_bounds")


def _stalls_in_loops(network: AnyNetwork, input_shape: tuple[int, ...], model: tuple[Tree, Tree]) -> bool:
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)

    def total(params: Any, model_state: Any, inputs: jax.Array) -> jax.Array:
        return jnp.sum(network.apply(params, model_state, inputs, None, None)[0])

    return stalls_in_loops(str(jax.make_jaxpr(jax.grad(total))(*model, inputs)))

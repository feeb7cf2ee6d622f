"""Many steps in one compiled call with donated state, and the plan that says how a run is executed on a device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from engine.augment.apply import augment_batch, example_keys
from engine.batches import batch_mask, epoch_order, num_batches
from engine.clock import Clock
from engine.config import DataPlacement, Lowering, PlanConfig
from engine.feed import Window
from engine.keys import step_key
from engine.metrics import Metrics
from engine.state import TrainState
from engine.step import Batch, Task, train_step

CHUNK_SECONDS = 1.0
NEVER = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Plan:
    """How a run is executed on this device.

    lowering: convolutions and pools as matrix products, or the backend's own.
    is_stepwise: one step a compiled call, where a loop would take the threads from XLA's CPU convolution.
    chunk_steps: most steps a call, or None to fit them to CHUNK_SECONDS; results do not depend on it.
    placement: training images on the device as a whole, or streamed to it.
    """

    lowering: Lowering
    is_stepwise: bool = False
    chunk_steps: int | None = None
    placement: DataPlacement = "resident"


def choose_lowering(config: PlanConfig, platform: str) -> Lowering:
    """Matrix products on the CPU, the backend's own convolution elsewhere, unless the config pins one."""
    if config.lowering != "auto":
        return config.lowering
    return "matrix" if platform == "cpu" else "native"


def choose_plan(
    config: PlanConfig,
    lowering: Lowering,
    platform: str,
    task: Task,
    state: TrainState,
    placement: DataPlacement = "resident",
) -> Plan:
    """The plan of a run: stepwise on a CPU if any convolution stays with lax, which has no threads inside a loop."""
    is_stepwise = platform == "cpu" and _has_native_convolution(task, state)
    return Plan(lowering, is_stepwise, config.chunk_steps, placement)


class Executables:
    """Functions compiled ahead of time, each once, under a name; they refuse arguments of any other shape."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self._compiled: dict[str, Callable[..., Any]] = {}

    def call(self, name: str, function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
        """The function's result, by the executable of that name."""
        if name not in self._compiled:
            with self.clock.measure("compile"):
                self._compiled[name] = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
        return self._compiled[name](*arguments)


class Program:
    """The compiled training of a run."""

    def __init__(self, task: Task, plan: Plan, seed: int, batch_size: int, executables: Executables):
        self.task, self.plan, self.seed, self.batch_size = task, plan, np.uint32(seed), batch_size
        self._executables = executables

    def order(self, epoch: int, num_examples: int) -> jax.Array:
        """int32[batches × b]: the examples of an epoch in the order they are trained on, on the device."""

        def order(seed: jax.Array, epoch: jax.Array) -> jax.Array:
            return epoch_order(seed, epoch, num_examples, self.batch_size)

        return self._executables.call("order", order, self.seed, np.int32(epoch))

    def train(
        self,
        state: TrainState,
        window: Window,
        num_examples: int,
        order: jax.Array,
        first: int,
        count: int,
        totals: Metrics,
    ) -> tuple[TrainState, Metrics, int]:
        """(state, totals, bad step) after `count` batches from `first`, whose images are all in the window.

        The bad step is the first, counted from 1, whose loss is not finite, or NEVER. `state` and `totals` are
        donated. Returns when the device is done.
        """
        calls = [(first + i, 1) for i in range(count)] if self.plan.is_stepwise else [(first, count)]
        carry, chunk = (state, totals, np.int32(NEVER)), self._chunk(num_examples)
        for start, length in calls:
            place = (order, np.int32(start), np.int32(length), np.int32(window.first), self.seed)
            carry = self._executables.call("train", chunk, carry, window.images, window.labels, *place, donate=(0,))
        state, totals, bad_step = jax.block_until_ready(carry)
        return state, totals, int(bad_step)

    def _chunk(self, num_examples: int) -> Callable[..., Any]:
        task, size, is_streamed = self.task, self.batch_size, self.plan.placement == "streamed"
        steps_per_epoch = num_batches(num_examples, size)

        def run(
            carry: tuple,
            images: jax.Array,
            labels: jax.Array,
            order: jax.Array,
            first: Any,
            count: Any,
            window_first: Any,
            seed: Any,
        ) -> tuple:
            def step(i: Any, carry: tuple) -> tuple:
                state, totals, bad_step = carry
                examples = lax.dynamic_slice(order, (i * size,), (size,))
                places = (i - window_first) * size + jnp.arange(size) if is_streamed else examples
                inputs, own_share = _take(images, places), None
                if task.augment.is_active:
                    keys = example_keys(seed, state.step // steps_per_epoch, examples)
                    # Behind a barrier: XLA would draw and warp anew for each of the slices that the first layer reads.
                    inputs, own_share = lax.optimization_barrier(augment_batch(keys, inputs, task.augment))
                batch = Batch(inputs, _take(labels, examples), batch_mask(i, num_examples, size), own_share)
                state, metrics = train_step(task, state, batch, step_key(seed, "dropout", state.step))
                bad_here = jnp.where(jnp.isfinite(metrics.loss_sum), NEVER, state.step)
                return state, totals + metrics, jnp.minimum(bad_step, bad_here)

            if self.plan.is_stepwise:
                return step(first, carry)
            return lax.fori_loop(first, first + count, step, carry)

        return run


class Pacer:
    """How many steps the next compiled call runs, so that it takes about CHUNK_SECONDS."""

    def __init__(self, plan: Plan):
        self.chunk_steps = plan.chunk_steps
        self.next_steps = plan.chunk_steps or 1
        self.seconds_per_step = 0.0

    def steps(self, remaining: int) -> int:
        """Steps to run now, at most `remaining`."""
        return min(self.next_steps, remaining)

    def ran(self, steps: int, seconds: float) -> None:
        """Takes note of how long a call took; the next is at most ten times as long."""
        self.seconds_per_step = seconds / steps
        if self.chunk_steps is None:
            wanted = int(CHUNK_SECONDS / max(self.seconds_per_step, 1e-9))
            self.next_steps = max(1, min(wanted, 10 * steps))


def _take(array: jax.Array, indices: jax.Array) -> jax.Array:
    return array.at[indices].get(mode="promise_in_bounds")


def _has_native_convolution(task: Task, state: TrainState) -> bool:
    network = task.network
    inputs = jax.ShapeDtypeStruct((1, *task.inputs.shape), jnp.float32)
    traced = jax.make_jaxpr(lambda p, s, x: network.apply(p, s, x, None, None)[0])(
        state.params, state.model_state, inputs
    )
    return "conv_general_dilated" in str(traced)

"""Schedules of the learning rate. Durations in epochs are converted to steps here and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from engine.config.optim import OptimConfig
from engine.errors import InputError, problem
from engine.records.custom import Custom

LAST_STEP = 2**31 - 1
Rate = float | jax.Array


@dataclass(frozen=True)
class OwnSteps:
    """The steps of an epoch of one member of a cross-validation: traced, one of the choices."""

    own: jax.Array
    choices: tuple[int, ...]


EpochSteps = int | OwnSteps


def schedule(
    config: OptimConfig,
    steps_per_epoch: EpochSteps,
    epochs: int,
    learning_rate: Rate | None = None,
    steps_ahead: int = 0,
) -> optax.Schedule:
    """The learning rate at each step: linear warm-up from 0, then the named schedule over the rest of the run.

    learning_rate: in place of the config's; may be traced. steps_ahead: added to the step (Record.steps_ahead).
    """
    rate: Rate = config.learning_rate if learning_rate is None else learning_rate
    if isinstance(steps_per_epoch, OwnSteps):
        course = _own_course(config, steps_per_epoch, epochs)
    else:
        course = _course(config, steps_per_epoch, epochs)
    return lambda step: rate * course(step + steps_ahead if steps_ahead else step)


def _own_course(config: OptimConfig, steps: OwnSteps, epochs: int) -> optax.Schedule:
    """The course of a run whose epochs have that many steps."""
    courses = [_course(config, choice, epochs) for choice in steps.choices]
    is_own = [steps.own == choice for choice in steps.choices]
    return lambda step: jnp.select(is_own, [jnp.asarray(course(step), jnp.float32) for course in courses])


def _course(config: OptimConfig, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """The factor of the learning rate at each step."""
    total_steps = max(steps_per_epoch * epochs, 1)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if not config.is_open_ended:
        warmup_steps = min(warmup_steps, total_steps)
    decay_steps = max(total_steps - warmup_steps, 1)
    if isinstance(config.schedule, Custom):
        after = config.schedule.make("optim.schedule", decay_steps)
        check_own("optim.schedule", config.schedule, callable(after), "a factory that returns a function of the step")
        after = config.schedule.guard("optim.schedule", after)
    else:
        after = SCHEDULES[config.schedule](config, decay_steps, steps_per_epoch)
    if not warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup_steps), after], [warmup_steps])


def _falling(config: OptimConfig, decay_steps: int, steps_per_epoch: int, is_staircase: bool) -> optax.Schedule:
    return optax.exponential_decay(1.0, config.step_epochs * steps_per_epoch, config.step_factor, 0, is_staircase)


def _one_cycle(config: OptimConfig, decay_steps: int, steps_per_epoch: int) -> optax.Schedule:
    # As PyTorch's OneCycleLR and fastai: from 1/25 up, then down to 1/250,000. The fewest steps that have two phases.
    return optax.cosine_onecycle_schedule(max(decay_steps, 4), 1.0)


def _cosine_restarts(config: OptimConfig, decay_steps: int, steps_per_epoch: int) -> optax.Schedule:
    """SGDR of Loshchilov and Hutter (2017, arXiv 1608.03983); where it restarts is computed in whole numbers."""
    first, factor, floor = config.step_epochs * steps_per_epoch, config.restart_factor, config.final_fraction
    starts, lengths = [0], [first]
    while factor > 1 and starts[-1] + lengths[-1] < LAST_STEP:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * factor)

    def course(step: Any) -> Any:
        number = jnp.sum(jnp.asarray(step) >= jnp.array(starts)) - 1
        start, length = jnp.array(starts)[number], jnp.array(lengths, jnp.float32)[number]
        share = ((step - start) % first if factor == 1 else step - start) / length
        return floor + (1 - floor) * (1 + jnp.cos(jnp.pi * share)) / 2

    return course


SCHEDULES: dict[str, Callable[[OptimConfig, int, int], optax.Schedule]] = {
    "constant": lambda config, decay_steps, steps_per_epoch: optax.constant_schedule(1.0),
    "cosine": lambda config, decay_steps, steps_per_epoch: optax.cosine_decay_schedule(
        1.0, decay_steps, alpha=config.final_fraction
    ),
    "linear": lambda config, decay_steps, steps_per_epoch: optax.linear_schedule(
        1.0, config.final_fraction, decay_steps
    ),
    "polynomial": lambda config, decay_steps, steps_per_epoch: optax.polynomial_schedule(
        1.0, config.final_fraction, config.power, decay_steps
    ),
    "step": partial(_falling, is_staircase=True),
    "exponential": partial(_falling, is_staircase=False),
    "cosine_restarts": _cosine_restarts,
    "one_cycle": _one_cycle,
    "plateau": lambda config, decay_steps, steps_per_epoch: optax.constant_schedule(1.0),  # MemberSettings.rate_factor
}
"""(config, steps after warm-up, steps an epoch) → factor of the learning rate at each step after warm-up."""


def check_own(field: str, given: Custom, holds: bool, rule: str) -> None:
    """Raises InputError unless what the user's own function returned is what it should."""
    if not holds:
        raise InputError(problem(field, f"{given.path}, which returns something else", rule, "Correct it."))

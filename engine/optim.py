"""Schedules and Optax chains. Durations given in epochs become steps here and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from engine.config import OPEN_ENDED_SCHEDULES, OptimConfig

ADAMW_WEIGHT_DECAY = 1e-4
KERAS_EPSILON = 1e-7
Rate = float | jax.Array


@dataclass(frozen=True)
class LayerRates:
    """What sets the arrays of some layers apart; functions of an array's path as of jax.tree_util.

    factor: what its learning rate is multiplied by. first_epoch: epochs that are done when it starts to train.
    has_factors, has_late: whether any is not 1, or not 0.
    """

    factor: Callable[[Any], float]
    first_epoch: Callable[[Any], int]
    has_factors: bool
    has_late: bool


def schedule(
    config: OptimConfig, steps_per_epoch: int, epochs: int, learning_rate: Rate | None = None
) -> optax.Schedule:
    """The learning rate at each step: linear warm-up from 0, then the named course over what is left of the run.

    learning_rate: in place of the config's; may be traced.
    """
    rate: Rate = config.learning_rate if learning_rate is None else learning_rate
    course = _course(config, steps_per_epoch, epochs)
    return lambda step: rate * course(step)


def _course(config: OptimConfig, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """What the learning rate is multiplied by at each step."""
    total_steps = max(steps_per_epoch * epochs, 1)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule not in OPEN_ENDED_SCHEDULES:
        warmup_steps = min(warmup_steps, total_steps)
    decay_steps = max(total_steps - warmup_steps, 1)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(1.0, decay_steps, alpha=config.final_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(1.0, config.final_fraction, decay_steps)
    elif config.schedule == "step":
        drop_steps = config.step_epochs * steps_per_epoch
        after = optax.exponential_decay(1.0, drop_steps, config.step_factor, staircase=True)
    else:
        after = optax.constant_schedule(1.0)
    if not warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup_steps), after], [warmup_steps])


def optimizer(
    config: OptimConfig,
    steps_per_epoch: int,
    epochs: int,
    learning_rate: Rate | None = None,
    weight_decay: Rate | None = None,
    layers: LayerRates | None = None,
) -> optax.GradientTransformation:
    """The Optax chain: clip by global norm, add coupled weight decay, then the named optimizer.

    learning_rate, weight_decay: in place of the config's; may be traced.
    layers: what sets some apart. Those that start to train at one time have an optimizer of their own, because one
      count of steps for all would have Adam take the zeros it starts with for a long mean, and its first hundred steps
      several times too large; the learning rate follows the steps of the run for all.
    """
    decay = config.weight_decay if weight_decay is None else weight_decay
    parts = []
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.name != "adamw" and (weight_decay is not None or decay):
        parts.append(optax.add_decayed_weights(decay, mask=_kernels))  # type: ignore[arg-type]
    rate = schedule(config, steps_per_epoch, epochs, learning_rate)

    def from_epoch(first: int) -> optax.GradientTransformation:
        start = first * steps_per_epoch
        course = (lambda step: rate(step + start)) if start else rate
        return _named(config, course, ADAMW_WEIGHT_DECAY if decay is None else decay)

    parts.append(_by_first_epoch(from_epoch, layers.first_epoch) if layers and layers.has_late else from_epoch(0))
    if layers and layers.has_factors:
        # The last in the chain, where an update is proportional to the rate for every optimizer here.
        by_layer = lambda path, update: update * layers.factor(path)  # noqa: E731
        parts.append(optax.stateless(lambda updates, params: jax.tree.map_with_path(by_layer, updates)))
    return optax.chain(*parts)


def _by_first_epoch(
    from_epoch: Callable[[int], optax.GradientTransformation], first_epoch: Callable[[Any], int]
) -> optax.GradientTransformation:
    """The transformation of each epoch on the arrays that start to train then."""

    def of(params: optax.Params) -> optax.GradientTransformationExtraArgs:
        labels = jax.tree.map_with_path(lambda path, leaf: str(first_epoch(path)), params)
        found = sorted(set(jax.tree.leaves(labels)))
        return optax.multi_transform({label: from_epoch(int(label)) for label in found}, labels)  # type: ignore[arg-type]

    return optax.GradientTransformation(
        lambda params: of(params).init(params),
        lambda updates, state, params=None: of(updates).update(updates, state, params),
    )


def _named(config: OptimConfig, rate: optax.Schedule, decay: Rate) -> optax.GradientTransformation:
    match config.name:
        case "sgd":
            return optax.sgd(rate)
        case "momentum":
            return optax.sgd(rate, momentum=config.momentum, nesterov=True)
        case "rmsprop":
            return optax.rmsprop(rate, decay=0.9, eps=KERAS_EPSILON)
        case "adam":
            return optax.adam(rate, eps=KERAS_EPSILON)
        case "adamw":
            return optax.adamw(rate, eps=KERAS_EPSILON, weight_decay=decay, mask=_kernels)  # type: ignore[arg-type]


def _kernels(params: optax.Params) -> optax.Params:
    """True for arrays with two axes or more: decaying biases and scales helps nothing."""
    return jax.tree.map(lambda array: array.ndim > 1, params)

"""Schedules and Optax chains. Durations given in epochs become steps here and nowhere else."""

import jax
import optax

from engine.config import OPEN_ENDED_SCHEDULES, OptimConfig

ADAMW_WEIGHT_DECAY = 1e-4
KERAS_EPSILON = 1e-7
Rate = float | jax.Array


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
) -> optax.GradientTransformation:
    """The Optax chain: clip by global norm, add coupled weight decay, then the named optimizer.

    learning_rate, weight_decay: in place of the config's; may be traced.
    """
    decay = config.weight_decay if weight_decay is None else weight_decay
    parts = []
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.name != "adamw" and (weight_decay is not None or decay):
        parts.append(optax.add_decayed_weights(decay, mask=_kernels))  # type: ignore[arg-type]
    rate = schedule(config, steps_per_epoch, epochs, learning_rate)
    return optax.chain(*parts, _named(config, rate, ADAMW_WEIGHT_DECAY if decay is None else decay))


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

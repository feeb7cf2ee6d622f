"""Schedules and Optax chains. Durations given in epochs become steps here and nowhere else."""

import jax
import optax

from engine.config import OPEN_ENDED_SCHEDULES, OptimConfig

ADAMW_WEIGHT_DECAY = 1e-4
KERAS_EPSILON = 1e-7


def schedule(config: OptimConfig, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """The learning rate at each step: linear warm-up from 0, then the named course over what is left of the run."""
    rate, total_steps = config.learning_rate, max(steps_per_epoch * epochs, 1)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule not in OPEN_ENDED_SCHEDULES:
        warmup_steps = min(warmup_steps, total_steps)
    decay_steps = max(total_steps - warmup_steps, 1)
    final = rate * config.final_fraction
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(rate, decay_steps, alpha=config.final_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(rate, final, decay_steps)
    elif config.schedule == "step":
        drop_steps = config.step_epochs * steps_per_epoch
        after = optax.exponential_decay(rate, drop_steps, config.step_factor, staircase=True)
    else:
        after = optax.constant_schedule(rate)
    if not warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup_steps), after], [warmup_steps])


def optimizer(config: OptimConfig, steps_per_epoch: int, epochs: int) -> optax.GradientTransformation:
    """The Optax chain: clip by global norm, add coupled weight decay, then the named optimizer."""
    parts = []
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay and config.name != "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_kernels))
    return optax.chain(*parts, _named(config, schedule(config, steps_per_epoch, epochs)))


def _named(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
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
            decay = ADAMW_WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
            return optax.adamw(rate, eps=KERAS_EPSILON, weight_decay=decay, mask=_kernels)


def _kernels(params: optax.Params) -> optax.Params:
    """True for arrays with two axes or more: decaying biases and scales helps nothing."""
    return jax.tree.map(lambda array: array.ndim > 1, params)

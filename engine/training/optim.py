"""Optimizers: Optax chains by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from engine.config.optim import OptimConfig
from engine.errors import InputError, problem
from engine.records.custom import Custom
from engine.training.schedules import EpochSteps, OwnSteps, Rate, check_own, schedule

KERAS_ADAMW_DECAY, OPTAX_ADAMW_DECAY = 0.004, 1e-4
LION_BETA_2 = 0.99  # of Lion in Keras and Optax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AdamState:
    """Steps done; running means of the gradients and of their squares; with amsgrad, the largest mean of squares."""

    count: jax.Array
    mean: optax.Params
    square: optax.Params
    largest: optax.Params | None


@dataclass(frozen=True)
class LayerRates:
    """Learning-rate factors and first epochs by layer; functions of an array's path, as in jax.tree_util.

    factor: multiplies the learning rate. first_epoch: number of epochs done when the array starts to train.
    has_factors, has_late: whether any factor is not 1, any first epoch not 0.
    """

    factor: Callable[[Any], float]
    first_epoch: Callable[[Any], int]
    has_factors: bool
    has_late: bool


def optimizer(
    config: OptimConfig,
    steps_per_epoch: EpochSteps,
    epochs: int,
    learning_rate: Rate | None = None,
    weight_decay: Rate | None = None,
    layers: LayerRates | None = None,
    steps_ahead: int = 0,
) -> optax.GradientTransformation:
    """The Optax chain: clip by global norm, then the named optimizer with its weight decay, by `config.rules`.

    learning_rate, weight_decay: in place of the config's; may be traced. steps_ahead: of the schedule.
    layers: settings by layer. Layers that start to train in the same epoch share an optimizer state. With one step
      count for all, Adam would treat its initial zeros as a long running mean, and make its first hundred steps
      several times too large. The learning rate follows the steps of the run for all.
    """
    decay = config.weight_decay if weight_decay is None else weight_decay
    rate = schedule(config, steps_per_epoch, epochs, learning_rate, steps_ahead)
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm is not None else []
    rules = "keras" if isinstance(config.name, Custom) else config.rules
    if rules == "optax" and config.name != "adamw" and (weight_decay is not None or decay):
        parts.append(optax.add_decayed_weights(decay, mask=_kernels))  # type: ignore[arg-type]
    named = {"keras": _as_keras, "optax": _as_optax}[rules]

    def from_epoch(first: int) -> optax.GradientTransformation:
        start = first * (steps_per_epoch.own if isinstance(steps_per_epoch, OwnSteps) else steps_per_epoch)
        course = (lambda step: rate(step + start)) if first else rate
        return named(config, course, decay)

    parts.append(_by_first_epoch(from_epoch, layers.first_epoch) if layers and layers.has_late else from_epoch(0))
    if layers and layers.has_factors:
        # The last in the chain, where an update is proportional to the rate for every optimizer here.
        by_layer = lambda path, update: update * layers.factor(path)  # noqa: E731
        parts.append(optax.stateless(lambda updates, params: jax.tree.map_with_path(by_layer, updates)))
    return optax.chain(*parts)


def _by_first_epoch(
    from_epoch: Callable[[int], optax.GradientTransformation], first_epoch: Callable[[Any], int]
) -> optax.GradientTransformation:
    """Applies to each array the transformation for the epoch in which it starts to train."""

    def of(params: optax.Params) -> optax.GradientTransformationExtraArgs:
        labels = jax.tree.map_with_path(lambda path, leaf: str(first_epoch(path)), params)
        found = sorted(set(jax.tree.leaves(labels)))
        return optax.multi_transform({label: from_epoch(int(label)) for label in found}, labels)  # type: ignore[arg-type]

    return optax.GradientTransformation(
        lambda params: of(params).init(params),
        lambda updates, state, params=None: of(updates).update(updates, state, params),
    )


def _as_keras(config: OptimConfig, rate: optax.Schedule, decay: Rate | None) -> optax.GradientTransformation:
    """The optimizer of this name in Keras 3, or a custom one, with decoupled weight decay of all arrays."""
    if isinstance(config.name, Custom):
        step = config.name.make("optim.name", rate)
        holds = isinstance(step, optax.GradientTransformation)
        check_own("optim.name", config.name, holds, "a factory that returns an optax.GradientTransformation")
        step = type(step)(*(config.name.guard("optim.name", function) for function in step))
    else:
        step = OPTIMIZERS[config.name](config, rate)
    decay = KERAS_ADAMW_DECAY if decay is None and config.name == "adamw" else decay
    return step if decay is None else optax.chain(step, _decayed(rate, decay))


def _keras_sgd(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    # The rate is inside the momentum: a past step keeps the rate it was taken with.
    trace = optax.identity() if config.momentum is None else optax.trace(config.momentum, config.nesterov)
    return optax.chain(optax.scale_by_learning_rate(rate), trace)


def _rmsprop(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    constants = {"decay": config.rho, "eps": config.epsilon, "centered": config.centered}
    return optax.rmsprop(rate, **constants, momentum=config.momentum)


def _keras_adam(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Adam in the form before section 2.1 of Kingma and Ba: epsilon is added to a root without bias correction.

    So their epsilon is this one over √(1 − β₂ᵗ). amsgrad takes the largest mean of squares, also without correction.
    """

    def init(params: optax.Params) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros((), jnp.int32), zeros, zeros, zeros if config.amsgrad else None)

    def update(gradients: optax.Updates, state: AdamState, params: optax.Params | None = None) -> tuple:
        steps = (state.count + 1).astype(jnp.float32)
        share = jnp.sqrt(1 - config.beta_2**steps) / (1 - config.beta_1**steps)
        factor = -jnp.asarray(rate(state.count)) * share
        mean = jax.tree.map(lambda m, g: m + (1 - config.beta_1) * (g - m), state.mean, gradients)
        square = jax.tree.map(lambda v, g: v + (1 - config.beta_2) * (jnp.square(g) - v), state.square, gradients)
        largest = jax.tree.map(jnp.maximum, state.largest, square) if config.amsgrad else None
        divisor = largest if config.amsgrad else square
        updates = jax.tree.map(lambda m, v: factor * m / (jnp.sqrt(v) + config.epsilon), mean, divisor)
        return updates, AdamState(state.count + 1, mean, square, largest)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def _lion(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.lion(rate, config.beta_1, LION_BETA_2, weight_decay=0.0)


def _lamb(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.lamb(rate, config.beta_1, config.beta_2, config.epsilon)


def _lars(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    # Biases and the parameters of norms take plain steps, as in SimCLR: a trust ratio would keep those from 0 at 0.
    assert config.momentum is not None
    return optax.lars(rate, trust_ratio_mask=_kernels, momentum=config.momentum, nesterov=config.nesterov)  # type: ignore[arg-type]


def _muon(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Muon for kernels, those of convolutions as matrices [h·w·in, out]; AdamW without decay for other arrays.

    Updates are scaled to the size that AdamW's have (Liu et al. 2025, arXiv 2502.16982), so that one rate suits both.
    """

    def axes(params: optax.Params) -> optax.Params:
        specs = lambda array: (  # noqa: E731
            optax.contrib.MuonDimensionNumbers(tuple(range(array.ndim - 1)), -1) if array.ndim > 1 else None
        )
        return jax.tree.map(specs, params)

    assert config.momentum is not None
    return optax.contrib.muon(
        rate,
        beta=config.momentum,
        adam_b1=config.beta_1,
        adam_b2=config.beta_2,
        muon_weight_dimension_numbers=axes,  # type: ignore[arg-type]
        consistent_rms=0.2,
    )


OPTIMIZERS: dict[str, Callable[[OptimConfig, optax.Schedule], optax.GradientTransformation]] = {
    "sgd": _keras_sgd,
    "momentum": _keras_sgd,
    "rmsprop": _rmsprop,
    "adam": _keras_adam,
    "adamw": _keras_adam,
    "lion": _lion,
    "lamb": _lamb,
    "lars": _lars,
    "muon": _muon,
}
"""(config, rate at each step) → the optimizer without weight decay, as in Keras where that has it."""


def _decayed(rate: optax.Schedule, decay: Rate) -> optax.GradientTransformation:
    """Subtracts the share `rate × decay` of every array from it."""

    def update(updates: optax.Updates, count: jax.Array, params: optax.Params | None = None) -> tuple:
        share = rate(count) * decay
        return jax.tree.map(lambda update, array: update - share * array, updates, params), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)  # type: ignore[arg-type]


def _as_optax(config: OptimConfig, rate: optax.Schedule, decay: Rate | None) -> optax.GradientTransformation:
    """Optax's optimizer of this name, for runs started before Keras's were added."""
    momentum, betas = config.momentum, (config.beta_1, config.beta_2, config.epsilon)
    decay = OPTAX_ADAMW_DECAY if decay is None else decay
    match config.name:
        case "sgd" | "momentum":
            return optax.sgd(rate, momentum=momentum, nesterov=config.nesterov)
        case "rmsprop":
            return _rmsprop(config, rate)
        case "adam":
            return (optax.amsgrad if config.amsgrad else optax.adam)(rate, *betas)
        case "adamw":
            if config.amsgrad:
                decayed = optax.add_decayed_weights(decay, mask=_kernels)  # type: ignore[arg-type]
                return optax.chain(optax.scale_by_amsgrad(*betas), decayed, optax.scale_by_learning_rate(rate))
            return optax.adamw(rate, *betas, weight_decay=decay, mask=_kernels)  # type: ignore[arg-type]
    raise InputError(problem("optim.rules", f"optax with {config.name}", "keras", "Leave optim.rules out."))


def _kernels(params: optax.Params) -> optax.Params:
    """True for arrays with two axes or more."""
    return jax.tree.map(lambda array: array.ndim > 1, params)

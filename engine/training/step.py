"""Pure train and eval steps for one batch, without disk, clock or mesh."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from engine.augment.config import AugmentConfig
from engine.augment.mixing import partners
from engine.config.contract import InputSpec
from engine.metrics.sums import Metrics, Scoring
from engine.networks.network import AnyNetwork, Tree, normalize
from engine.training.state import TrainState

NO_AUGMENTATION = AugmentConfig()


@dataclass(frozen=True)
class Batch:
    """inputs [b …] as stored (uint8 or float32), targets [b] or [b d], mask [b] of the examples that count.

    own_share: float32[b] if examples were mixed with partners: the weight of each one's own target.
    """

    inputs: jax.Array
    targets: jax.Array
    mask: jax.Array
    own_share: jax.Array | None = None


@dataclass(frozen=True)
class Objective:
    """What is fixed when the program is built: network, loss and metrics, optimizer, input contract and augmentation.

    penalty: of the parameters, added to the training loss but not to the reported one.
    """

    network: AnyNetwork
    scoring: Scoring
    label_smoothing: float
    optimizer: optax.GradientTransformation
    inputs: InputSpec
    augment: AugmentConfig = NO_AUGMENTATION
    average_decay: float | None = None
    penalty: Callable[[Tree], jax.Array] | None = None


def train_step(objective: Objective, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
    """The state after one update on the mean loss of the batch, and the metrics of the batch before the update."""

    def batch_loss(params: Tree) -> tuple[jax.Array, tuple]:
        inputs = normalize(batch.inputs, objective.inputs)
        outputs, model_state = objective.network.apply(params, state.model_state, inputs, batch.mask, key)
        losses = _losses(objective, outputs, batch)
        mean = jnp.sum(jnp.where(batch.mask, losses, 0)) / jnp.sum(batch.mask)
        if objective.penalty is not None:
            mean = mean + objective.penalty(params)
        return mean, (outputs, losses, model_state)

    (_, (outputs, losses, model_state)), gradients = jax.value_and_grad(batch_loss, has_aux=True)(state.params)
    updates, opt_state = objective.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = objective.scoring.measure(outputs, batch.targets, losses, batch.mask)
    averaged = state.averaged
    if objective.average_decay is not None:
        # A smaller decay in the first steps, as in TensorFlow's ExponentialMovingAverage, forgets the start sooner.
        decay = jnp.minimum(objective.average_decay, (1 + state.step) / (10 + state.step)).astype(jnp.float32)
        averaged = optax.incremental_update(params, averaged, 1 - decay)
    return TrainState(state.step + 1, params, model_state, opt_state, averaged), metrics


def _losses(objective: Objective, outputs: jax.Array, batch: Batch) -> jax.Array:
    """[b]; for mixed examples, the losses of both targets weighted by their shares: ours are linear in the target."""
    loss = objective.scoring.loss
    own = loss(outputs, batch.targets, objective.label_smoothing)
    if batch.own_share is None:
        return own
    other = loss(outputs, partners(batch.targets), objective.label_smoothing)
    return batch.own_share * own + (1 - batch.own_share) * other


def eval_step(objective: Objective, params: Tree, model_state: Tree, batch: Batch) -> Metrics:
    """The metrics of one batch, dropout off and batch statistics fixed."""
    inputs = normalize(batch.inputs, objective.inputs)
    outputs, _ = objective.network.apply(params, model_state, inputs, None, None)
    losses = objective.scoring.loss(outputs, batch.targets, 0.0)  # the reported loss has no label smoothing
    return objective.scoring.measure(outputs, batch.targets, losses, batch.mask)

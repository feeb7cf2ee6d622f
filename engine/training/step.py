"""Pure train and eval steps for one batch. They know no disk, no clock, no mesh."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from engine.augment.config import AugmentConfig
from engine.augment.mixing import partners
from engine.config import Loss
from engine.data.pictures.images import InputSpec
from engine.metrics.losses import LOSSES
from engine.metrics.sums import Metrics, batch_metrics, evaluation_losses
from engine.training.state import AnyNetwork, TrainState, Tree

PER_EXAMPLE_EPSILON = 1e-6  # that of Keras's samplewise_std_normalization
NO_AUGMENTATION = AugmentConfig()


@dataclass(frozen=True)
class Batch:
    """inputs [b …] as stored (uint8 or float32), targets [b] or [b d], mask [b] of the examples that count.

    own_share: float32[b] where examples were mixed with their partners: the share of each one's own target.
    """

    inputs: jax.Array
    targets: jax.Array
    mask: jax.Array
    own_share: jax.Array | None = None


@dataclass(frozen=True)
class Task:
    """What is bound when the program is built: network, objective, optimizer, input contract and augmentation.

    penalty: of the parameters, added to the loss that is trained on, and not to the one that is reported.
    """

    network: AnyNetwork
    loss: Loss
    label_smoothing: float
    optimizer: optax.GradientTransformation
    inputs: InputSpec
    augment: AugmentConfig = NO_AUGMENTATION
    average_decay: float | None = None
    penalty: Callable[[Tree], jax.Array] | None = None


def normalize(inputs: jax.Array, spec: InputSpec) -> jax.Array:
    """float32 `(scale × inputs − mean) / std`, what a model is shown; then, if asked for, the same for each example."""
    inputs = _cropped(inputs, spec)
    values = inputs.astype(jnp.float32) * spec.scale if spec.scale != 1 else inputs.astype(jnp.float32)
    by_channel = (1,) * (inputs.ndim - 1) + (-1,)
    if spec.mean is not None:
        values = values - jnp.asarray(spec.mean, jnp.float32).reshape(by_channel)
    if spec.std is not None:
        values = values / jnp.asarray(spec.std, jnp.float32).reshape(by_channel)
    of_example = tuple(range(1, inputs.ndim))
    if spec.per_example or spec.center_example:
        values = values - jnp.mean(values, of_example, keepdims=True)
    if spec.per_example:
        values = values / (jnp.std(values, of_example, keepdims=True) + PER_EXAMPLE_EPSILON)
    return values


def _cropped(inputs: jax.Array, spec: InputSpec) -> jax.Array:
    """The middle of the inputs [b h w c], where the contract has a crop and augmentation has not cut it out already."""
    if spec.center_crop is None or inputs.shape[1:3] == spec.center_crop:
        return inputs
    (height, width), (_, h, w, _) = spec.center_crop, inputs.shape
    top, left = (h - height) // 2, (w - width) // 2  # as Keras's CenterCrop
    return inputs[:, top : top + height, left : left + width]


def train_step(task: Task, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
    """The state after one update on the mean loss of the batch, and the batch's metrics before it."""

    def objective(params: Tree) -> tuple[jax.Array, tuple]:
        inputs = normalize(batch.inputs, task.inputs)
        outputs, model_state = task.network.apply(params, state.model_state, inputs, batch.mask, key)
        losses = _losses(task, outputs, batch)
        mean = jnp.sum(jnp.where(batch.mask, losses, 0)) / jnp.sum(batch.mask)
        if task.penalty is not None:
            mean = mean + task.penalty(params)
        return mean, (outputs, losses, model_state)

    (_, (outputs, losses, model_state)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = batch_metrics(outputs, batch.targets, losses, batch.mask, task.loss)
    averaged = state.averaged
    if task.average_decay is not None:
        # While few steps are done, as in TensorFlow's ExponentialMovingAverage: the start is forgotten soon.
        decay = jnp.minimum(task.average_decay, (1 + state.step) / (10 + state.step)).astype(jnp.float32)
        averaged = optax.incremental_update(params, averaged, 1 - decay)
    return TrainState(state.step + 1, params, model_state, opt_state, averaged), metrics


def _losses(task: Task, outputs: jax.Array, batch: Batch) -> jax.Array:
    """[b]; of mixed examples the losses for both targets, by their shares: losses are linear in the target."""
    own = LOSSES[task.loss](outputs, batch.targets, task.label_smoothing)
    if batch.own_share is None:
        return own
    other = LOSSES[task.loss](outputs, partners(batch.targets), task.label_smoothing)
    return batch.own_share * own + (1 - batch.own_share) * other


def eval_step(task: Task, params: Tree, model_state: Tree, batch: Batch) -> Metrics:
    """The metrics of one batch, dropout off and batch statistics fixed."""
    inputs = normalize(batch.inputs, task.inputs)
    outputs, _ = task.network.apply(params, model_state, inputs, None, None)
    losses = evaluation_losses(outputs, batch.targets, task.loss)
    return batch_metrics(outputs, batch.targets, losses, batch.mask, task.loss)

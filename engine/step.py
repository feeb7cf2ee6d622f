"""Pure train and eval steps for one batch. They know no disk, no clock, no mesh."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from engine.config import Loss
from engine.data.images import InputSpec
from engine.losses import LOSSES
from engine.metrics import Metrics, batch_metrics, evaluation_losses
from engine.state import Network, TrainState, Tree


@dataclass(frozen=True)
class Batch:
    """inputs [b …] as stored (uint8 or float32), targets [b] or [b d], mask [b] of the examples that count."""

    inputs: jax.Array
    targets: jax.Array
    mask: jax.Array


@dataclass(frozen=True)
class Task:
    """What is bound when the program is built: network, objective, optimizer and input contract."""

    network: Network
    loss: Loss
    label_smoothing: float
    optimizer: optax.GradientTransformation
    inputs: InputSpec


def normalize(inputs: jax.Array, spec: InputSpec) -> jax.Array:
    """float32 `(scale × inputs − mean) / std`, what a model is shown."""
    values = inputs.astype(jnp.float32) * spec.scale if spec.scale != 1 else inputs.astype(jnp.float32)
    by_channel = (1,) * (inputs.ndim - 1) + (-1,)
    if spec.mean is not None:
        values = values - jnp.asarray(spec.mean, jnp.float32).reshape(by_channel)
    if spec.std is not None:
        values = values / jnp.asarray(spec.std, jnp.float32).reshape(by_channel)
    return values


def train_step(task: Task, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
    """The state after one update on the mean loss of the batch, and the batch's metrics before it."""

    def objective(params: Tree) -> tuple[jax.Array, tuple]:
        inputs = normalize(batch.inputs, task.inputs)
        outputs, model_state = task.network.apply(params, state.model_state, inputs, batch.mask, key)
        losses = LOSSES[task.loss](outputs, batch.targets, task.label_smoothing)
        mean = jnp.sum(jnp.where(batch.mask, losses, 0)) / jnp.sum(batch.mask)
        return mean, (outputs, losses, model_state)

    (_, (outputs, losses, model_state)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = batch_metrics(outputs, batch.targets, losses, batch.mask, task.loss)
    return TrainState(state.step + 1, params, model_state, opt_state), metrics


def eval_step(task: Task, params: Tree, model_state: Tree, batch: Batch) -> Metrics:
    """The metrics of one batch, dropout off and batch statistics fixed."""
    inputs = normalize(batch.inputs, task.inputs)
    outputs, _ = task.network.apply(params, model_state, inputs, None, None)
    losses = evaluation_losses(outputs, batch.targets, task.loss)
    return batch_metrics(outputs, batch.targets, losses, batch.mask, task.loss)

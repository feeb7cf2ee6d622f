"""Pure train and eval steps for one batch, without disk, clock or mesh."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from engine.augment.config import AugmentConfig
from engine.augment.mixing import partners
from engine.config.contract import InputSpec
from engine.metrics.sums import Metrics, Scoring
from engine.networks.modules import split_over_devices
from engine.networks.network import AnyNetwork, Tree, normalize
from engine.training.state import TrainState

NO_AUGMENTATION = AugmentConfig()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """inputs [b …] as stored (uint8 or float32), targets [b] or [b d], mask [b] of the examples that count.

    own_share: float32[b] if examples were mixed with partners: the weight of each one's own target.
    others, other_weights: the targets and weights of the partners.
    weights: float32[b], how much each example counts; None: all the same.
    count: how many examples count in the whole batch, if this is the part of one device; None: as the mask says.
    """

    inputs: jax.Array
    targets: jax.Array
    mask: jax.Array
    own_share: jax.Array | None = None
    others: jax.Array | None = None
    weights: jax.Array | None = None
    other_weights: jax.Array | None = None
    count: jax.Array | None = None


@dataclass(frozen=True)
class Objective:
    """What is fixed when the program is built: network, loss and metrics, optimizer, input contract and augmentation.

    penalty: of the parameters, added to the training loss but not to the reported one.
    num_parts: parts of a batch that are computed one after another. unrolls: not in a loop of their own.
    sam_radius: distance uphill at which the gradient is taken; None for 0.
    class_weights: what the training loss of each class is multiplied by.
    average_every: steps that each device along `data` trains on its own between two averages; 1: none, they share each.
    add_up: the sums over all devices, if a step sees a part of the batch: the examples of one of them.
    """

    network: AnyNetwork
    scoring: Scoring
    label_smoothing: float
    optimizer: optax.GradientTransformation
    inputs: InputSpec
    augment: AugmentConfig = NO_AUGMENTATION
    average_decay: float | None = None
    penalty: Callable[[Tree], jax.Array] | None = None
    num_parts: int = 1
    unrolls: bool = False
    sam_radius: float | None = None
    class_weights: tuple[float, ...] | None = None
    average_every: int = 1
    add_up: Callable[[Tree], Tree] | None = None


def train_step(objective: Objective, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
    """The state after one update on the mean loss of the batch, and the metrics of the batch before the update.

    The mean is Keras's: the sum of weighted losses, divided by the number of examples and not by their weights.
    """

    batch = with_partners(batch)
    (outputs, losses, model_state), gradients = _differentiate(objective, state.params, state.model_state, batch, key)
    metrics = objective.scoring.measure(outputs, batch.targets, losses, batch.mask, batch.weights)
    gradients, metrics = _add_up(objective, state.params, gradients, metrics)
    if objective.sam_radius is not None:
        uphill = _climb(state.params, gradients, objective.sam_radius)
        _, gradients = _differentiate(objective, uphill, state.model_state, batch, key)
        gradients, _ = _add_up(objective, uphill, gradients, None)
    updates, opt_state = objective.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    averaged = state.averaged
    if objective.average_decay is not None:
        # A smaller decay in the first steps, as in TensorFlow's ExponentialMovingAverage, forgets the start sooner.
        decay = jnp.minimum(objective.average_decay, (1 + state.step) / (10 + state.step)).astype(jnp.float32)
        averaged = optax.incremental_update(params, averaged, 1 - decay)
    return TrainState(state.step + 1, params, model_state, opt_state, averaged), metrics


def _add_up(objective: Objective, params: Tree, gradients: Tree, metrics: Any) -> tuple[Tree, Any]:
    """The gradients, with that of the penalty, and metrics of all devices, if these are of the examples of one."""
    if objective.add_up is None:
        return gradients, metrics
    gradients, metrics = objective.add_up((gradients, metrics))
    if objective.penalty is not None:
        gradients = jax.tree.map(jnp.add, gradients, jax.grad(objective.penalty)(params))
    return gradients, metrics


def with_partners(batch: Batch) -> Batch:
    """The batch with the targets and weights that its examples were mixed with, if they were."""
    if batch.own_share is None:
        return batch
    others, other_weights = jax.tree.map(partners, (batch.targets, batch.weights))
    return replace(batch, others=others, other_weights=other_weights)


def _differentiate(
    objective: Objective, params: Tree, model_state: Tree, batch: Batch, key: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, Tree], Tree]:
    """((outputs, losses, new model state), gradient of the mean loss of the batch)."""
    add_up = objective.add_up or (lambda tree: tree)
    num_examples = jnp.sum(batch.mask) if batch.count is None else batch.count
    batch, is_whole = replace(batch, count=None), objective.num_parts == 1
    penalty = None if objective.add_up else objective.penalty

    def share_of_loss(params: Tree, model_state: Tree, part: Batch, key: jax.Array) -> tuple[jax.Array, tuple]:
        inputs = normalize(part.inputs, objective.inputs)
        with split_over_devices(objective.add_up is not None):
            outputs, model_state = objective.network.apply(params, model_state, inputs, part.mask, key)
        losses = _losses(objective, outputs, part)
        mean = jnp.sum(jnp.where(part.mask, losses, 0)) / num_examples
        if penalty is not None and is_whole:
            mean = mean + penalty(params)
        return mean, (outputs, losses, model_state)

    differentiate = jax.value_and_grad(share_of_loss, has_aux=True)
    if is_whole:
        (_, found), gradients = differentiate(params, model_state, batch, key)
        return found, gradients

    def add(carry: tuple[Tree, Tree], numbered: tuple[Batch, jax.Array]) -> tuple[tuple, tuple]:
        (gradients, model_state), (part, number) = carry, numbered
        own_key = jax.random.fold_in(key, number)
        (_, (outputs, losses, new_state)), own = differentiate(params, model_state, part, own_key)
        # A part of a padded batch may have no example that counts.
        keep = partial(jnp.where, add_up(jnp.sum(part.mask)) > 0)
        gradients = jax.tree.map(lambda total, leaf: total + keep(leaf, 0), gradients, own)
        return (gradients, jax.tree.map(keep, new_state, model_state)), (outputs, losses)

    start = jax.tree.map(jnp.zeros_like, params) if penalty is None else jax.grad(penalty)(params)
    parts = jax.tree.map(partial(_split, objective.num_parts), batch), jnp.arange(objective.num_parts)
    carry, (outputs, losses) = lax.scan(add, (start, model_state), parts, unroll=objective.unrolls)
    return (_merge(outputs), _merge(losses), carry[1]), carry[0]


def _split(num_parts: int, array: jax.Array) -> jax.Array:
    """[b …] → [parts b/parts …]: every so-manieth example, so that parts share the padding and a mesh's devices."""
    return array.reshape(-1, num_parts, *array.shape[1:]).swapaxes(0, 1)


def _merge(array: jax.Array) -> jax.Array:
    """[parts b/parts …] → [b …]: undoes `_split`."""
    return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])


def _climb(params: Tree, gradients: Tree, radius: float) -> Tree:
    """The parameters a step of that length along the gradient: Foret et al., 2021, arXiv 2010.01412, equation 2."""
    # The smallest normal number: where there is no slope, the parameters stay.
    length = radius / jnp.maximum(optax.tree.norm(gradients), jnp.finfo(jnp.float32).tiny)
    return jax.tree.map(lambda leaf, gradient: leaf + length * gradient, params, gradients)


def _losses(objective: Objective, outputs: jax.Array, batch: Batch) -> jax.Array:
    """[b], weighted; for mixed examples, the losses of both targets by their shares: ours are linear in the target."""

    def weighted(targets: jax.Array, weights: jax.Array | None) -> jax.Array:
        losses = objective.scoring.loss(outputs, targets, objective.label_smoothing)
        if objective.class_weights is not None:
            of_classes = jnp.asarray(objective.class_weights, losses.dtype)
            losses = losses * (targets @ of_classes if targets.ndim == 2 else of_classes[targets])
        return losses if weights is None else losses * weights

    own = weighted(batch.targets, batch.weights)
    if batch.own_share is None:
        return own
    assert batch.others is not None
    other = weighted(batch.others, batch.other_weights)
    return batch.own_share * own + (1 - batch.own_share) * other


def eval_step(objective: Objective, params: Tree, model_state: Tree, batch: Batch) -> tuple[Metrics, jax.Array]:
    """(the metrics of one batch, the network's outputs [b k]), dropout off and batch statistics fixed."""
    inputs = normalize(batch.inputs, objective.inputs)
    outputs, _ = objective.network.apply(params, model_state, inputs, None, None)
    losses = objective.scoring.loss(outputs, batch.targets, 0.0)  # the reported loss has no label smoothing
    losses = losses if batch.weights is None else losses * batch.weights
    return objective.scoring.measure(outputs, batch.targets, losses, batch.mask, batch.weights), outputs

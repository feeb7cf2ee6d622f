"""A step in parts is the step of the whole batch; a step with sharpness-aware minimization is that of Optax."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from engine.config import OptimConfig, PlanConfig, RunConfig, TrainConfig
from engine.config.contract import InputSpec
from engine.data.decoded.dataset import Splits
from engine.errors import InputError
from engine.metrics.losses import kernel_penalty
from engine.metrics.sums import make_scoring
from engine.models import BatchNorm, Conv, Dense, Flatten, MaxPool, Sequential
from engine.networks.network import network_of
from engine.training.optim import optimizer
from engine.training.state import init_state
from engine.training.step import Batch, Objective, train_step
from tests.conftest import make_dataset, trained

MODEL = Sequential((Conv(4, 3, activation="tanh", kernel_regularizer="l2"), Flatten(), Dense()))
KEY = jax.random.key(1)


def make_objective(model: Sequential, **fields: Any) -> tuple[Objective, Any]:
    """(objective, its first state) of a model on images of 6×6."""
    network, init = network_of(model, (6, 6, 1), 3, "xla")
    chain = optimizer(OptimConfig("momentum", 0.1), 10, 1)
    scoring, inputs = make_scoring(TrainConfig(), 3, task="classes"), InputSpec((6, 6, 1))
    objective = Objective(network, scoring, 0.0, chain, inputs, penalty=kernel_penalty(model), **fields)
    return objective, init_state(*init(np.uint32(0)), chain)


def make_batch(size: int, counted: int, is_mixed: bool = False) -> Batch:
    draw = np.random.default_rng(size + counted)
    images = jnp.asarray(draw.integers(0, 256, (size, 6, 6, 1)), jnp.uint8)
    share = jnp.asarray(draw.random(size), jnp.float32) if is_mixed else None
    labels = jnp.asarray(draw.integers(0, 3, size), jnp.int32)
    return Batch(images, labels, jnp.arange(size) < counted, share)


def step_once(objective: Objective, state: Any, batch: Batch) -> tuple[list[np.ndarray], Any]:
    new, metrics = jax.jit(lambda state, batch: train_step(objective, state, batch, KEY))(state, batch)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(new)], metrics


@pytest.mark.parametrize(("num_parts", "unrolls"), [(2, False), (4, False), (12, True)])
@pytest.mark.parametrize(("counted", "is_mixed"), [(12, False), (12, True), (3, False)])
def test_step_in_parts_is_that_of_the_whole_batch(num_parts: int, unrolls: bool, counted: int, is_mixed: bool):
    objective, state = make_objective(MODEL)
    batch = make_batch(12, counted, is_mixed)
    whole, metrics = step_once(objective, state, batch)
    parts, same = step_once(replace(objective, num_parts=num_parts, unrolls=unrolls), state, batch)
    for got, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    for name in metrics.sums:
        np.testing.assert_allclose(same.sums[name], metrics.sums[name], rtol=1e-5)


def test_batch_statistics_of_parts_without_examples_do_not_count():
    objective, state = make_objective(Sequential((Conv(4, 3), BatchNorm(), Flatten(), Dense())), num_parts=4)
    new, _ = step_once(objective, state, make_batch(12, 1))
    assert all(np.isfinite(leaf).all() for leaf in new)


@pytest.mark.parametrize("num_parts", [1, 3])
def test_steps_with_sam_are_those_of_optax(num_parts: int):
    model, radius = Sequential((Conv(4, 3, activation="tanh"), MaxPool(2), Flatten(), Dense())), 0.3
    objective, state = make_objective(model, sam_radius=radius, num_parts=num_parts)
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(radius))
    theirs = optax.contrib.sam(objective.optimizer, climb, opaque_mode=True)
    params, their_state = state.params, theirs.init(state.params)
    for counted in (12, 9, 12):
        batch = make_batch(12, counted)

        def loss(params: Any, _: int = 0, batch: Batch = batch) -> jax.Array:
            outputs, _ = objective.network.apply(params, nnx.State({}), batch.inputs / 255.0, batch.mask, KEY)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch.targets)
            return jnp.sum(jnp.where(batch.mask, losses, 0)) / batch.mask.sum()

        updates, their_state = theirs.update(jax.grad(loss)(params), their_state, params, grad_fn=jax.grad(loss))  # type: ignore[call-arg]
        params = optax.apply_updates(params, updates)
        state, _ = train_step(objective, state, batch, KEY)
    for got, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_run_in_parts_has_the_history_of_the_run_of_whole_batches():
    """With a padded last batch, sharpness-aware and by members."""
    splits = Splits(make_dataset(100), make_dataset(40, 1))
    optim = OptimConfig("sgd", 0.1, sam_radius=0.05)
    plan = PlanConfig(member_mapping="vmap")
    config = RunConfig("p", MODEL, train=TrainConfig(2, 64, members=2), optim=optim, plan=plan)
    whole = trained(config, splits).history
    parts = trained(replace(config, train=replace(config.train, accumulate=4)), splits).history
    for got, expected in zip(parts, whole, strict=True):
        for name in set(expected) - {"seconds"}:
            assert got[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name


def test_parts_that_do_not_divide_the_batch_are_refused_and_the_default_batch_is_made_to_fit():
    with pytest.raises(InputError, match=r"train\.accumulate: got 3; expected a number that divides train\.batch_size"):
        TrainConfig(batch_size=64, accumulate=3)
    config = RunConfig("p", MODEL, train=TrainConfig(accumulate=4))
    assert config.with_batch_within(30).train.batch_size == 28

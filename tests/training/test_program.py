"""The compiled program: its results do not depend on how it is cut, and it is compiled once."""

import dataclasses
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from engine.augment.config import AugmentConfig
from engine.config import DataConfig, OptimConfig, PlanConfig, RunConfig, TrainConfig
from engine.data.decoded.dataset import Splits
from engine.devices import executables
from engine.devices.executables import GPU_OPTIONS, compiler_options
from engine.host.clock import Clock
from engine.models import BatchNorm, Conv, Dense, Flatten, MaxPool, Sequential, custom, l2
from engine.networks.build import build
from engine.runs.session import Session
from engine.runs.setup import NotFinite
from engine.training.batches import epoch_order
from engine.training.program import CHUNK_SECONDS, Pacer, Plan
from tests.conftest import TINY, make_dataset
from tests.faults.comparison import same_bits
from tests.further import further

of_bits = pytest.mark.usefixtures("optimized")  # which depend on how programs are compiled

PLAIN = Sequential((Conv(4, 3, activation="relu"), MaxPool(2), Flatten(), Dense()))


def train_epochs(config: RunConfig, splits: Splits, epochs: int) -> Session:
    session = Session(config, splits, Clock(), Path("unused"))
    while session.epoch < epochs:
        end = (session.epoch + 1) * session.steps_per_epoch
        while session.step < end:
            session.train_chunk()
        session.finish_epoch()
    return session


def leaves(session: Session) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(session.state)]


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Grows by one entry for every program that XLA compiles; there are none yet."""
    executables._COMPILED.clear()
    seen: list[str] = []

    def note(event: str, duration: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seen
    jax.monitoring.clear_event_listeners()


@of_bits
@pytest.mark.parametrize("chunk_steps", [3, *further([1])])
def test_results_are_bit_identical_however_an_epoch_is_cut(tiny_config, splits, chunk_steps):
    whole = train_epochs(dataclasses.replace(tiny_config, plan=PlanConfig(chunk_steps=4)), splits, 2)
    cut = train_epochs(dataclasses.replace(tiny_config, plan=PlanConfig(chunk_steps=chunk_steps)), splits, 2)
    for a, b in zip(leaves(whole), leaves(cut), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(whole.history, cut.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_nothing_recompiles_after_the_first_epoch(tiny_config, splits, compilations):
    session = train_epochs(dataclasses.replace(tiny_config, plan=PlanConfig(chunk_steps=3)), splits, 1)
    assert compilations, "the listener hears nothing"
    compilations.clear()
    for chunk_steps in (3, 1, 2):  # 3 + 1 steps, then other lengths
        session.pacer.next_steps = session.pacer.chunk_steps = chunk_steps
        end = session.step + session.steps_per_epoch
        while session.step < end:
            session.train_chunk()
        session.finish_epoch()
    assert compilations == []


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    return dataclasses.replace(config, name=f"seed-{seed}", train=dataclasses.replace(config.train, seed=seed))


@of_bits
def test_another_seed_more_epochs_and_other_data_of_the_size_need_no_new_program(tiny_config, splits, compilations):
    other = Splits(make_dataset(200, 5), make_dataset(50, 6), make_dataset(70, 7))
    longer = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, epochs=3))
    train_epochs(tiny_config, splits, 1)
    compilations.clear()
    shared = leaves(train_epochs(with_seed(longer, 5), other, 3))
    assert compilations == []
    executables._COMPILED.clear()
    fresh = leaves(train_epochs(with_seed(longer, 5), other, 3))
    assert compilations
    assert all(same_bits(*pair) for pair in zip(shared, fresh, strict=True))


CHANGES: dict[str, dict[str, Any]] = {
    "rate": {"optim": OptimConfig("adam", 0.002)},
    "schedule": {"optim": OptimConfig(schedule="cosine")},
    "smoothing": {"train": TrainConfig(epochs=2, batch_size=64, label_smoothing=0.1)},
    "scale": {"data": DataConfig(scale=1 / 128)},
    "flips": {"augment": AugmentConfig(horizontal_flip=True)},
    "model": {"model": Sequential((Flatten(), Dense(3, activation="relu")))},
}


@of_bits
@pytest.mark.parametrize(
    "change", ["flips", "rate", *further(name for name in CHANGES if name not in ("flips", "rate"))]
)
def test_run_that_computes_something_else_is_no_one_elses_program(change, tiny_config, splits):
    plain = dataclasses.replace(tiny_config, model=Sequential((Flatten(), Dense(3))))
    train_epochs(plain, splits, 1)
    changed = dataclasses.replace(plain, **CHANGES[change])
    shared = leaves(train_epochs(changed, splits, 1))
    executables._COMPILED.clear()
    fresh = leaves(train_epochs(changed, splits, 1))
    assert all(same_bits(*pair) for pair in zip(shared, fresh, strict=True))


@of_bits
def test_program_compiled_under_other_settings_of_jax_is_not_taken(tiny_config, splits):
    plain = dataclasses.replace(tiny_config, model=Sequential((Flatten(), Dense(3))))
    train_epochs(plain, splits, 1)
    with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):  # other random numbers
        shared = leaves(train_epochs(plain, splits, 1))
        executables._COMPILED.clear()
        fresh = leaves(train_epochs(plain, splits, 1))
    assert all(same_bits(*pair) for pair in zip(shared, fresh, strict=True))


def test_threads_that_push_out_each_others_programs_all_get_their_own(monkeypatch):
    monkeypatch.setattr(executables, "MOST_SHARED", 2)

    def results(thread: int) -> list[float]:
        own = [executables.Executables(Clock(), of=(thread, i)) for i in range(8)]
        return [float(each.call("f", lambda x, i=i: x + i, 10 * thread)) for i, each in enumerate(own)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(results, range(8))) == [[10 * t + i for i in range(8)] for t in range(8)]
    assert len(executables._COMPILED) == 2


def test_programs_of_ones_own_class_are_not_shared_and_of_others_only_the_last_ones(splits, monkeypatch):
    def config(*layers) -> RunConfig:
        return RunConfig("a", Sequential((Flatten(), *layers, Dense())), train=TrainConfig(epochs=1, batch_size=64))

    monkeypatch.setattr(executables, "_COMPILED", {})
    monkeypatch.setattr(executables, "MOST_SHARED", 3)
    own = dataclasses.replace(config(), model=custom(OwnLinear))
    train_epochs(own, splits, 1)
    assert executables._COMPILED == {}
    train_epochs(config(), splits, 1)
    train_epochs(config(Dense(2)), splits, 1)
    assert {key[0][1].model for key in executables._COMPILED} == {config(Dense(2)).model}  # type: ignore[index]
    assert len(executables._COMPILED) == 3


class OwnLinear(nnx.Module):
    def __init__(self, *, input_shape, num_outputs, rngs):
        self.linear = nnx.Linear(math.prod(input_shape), num_outputs, rngs=rngs)

    def __call__(self, x):
        return self.linear(x.reshape(len(x), -1))


def test_training_equals_a_plain_flax_and_optax_loop_with_a_ragged_last_batch(splits):
    config = RunConfig("plain", PLAIN, train=TrainConfig(2, 64), optim=OptimConfig("adam", 1e-2, rules="optax"))
    session = train_epochs(config, splits, 2)

    start = Session(config, splits, Clock(), Path("unused")).state
    module = build(PLAIN, (8, 8, 1), 3, nnx.Rngs(0), "xla")
    graph, _ = nnx.split(module, nnx.Param)
    optimizer = optax.adam(1e-2, eps=1e-7)
    params, opt_state = start.params, optimizer.init(start.params)
    images, labels = splits.train.images.astype(np.float32) / 255, splits.train.labels

    @jax.jit
    def step(params, opt_state, x, y):
        def objective(params):
            logits = nnx.merge(graph, params)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, opt_state = optimizer.update(jax.grad(objective)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for epoch in range(2):
        order = np.asarray(epoch_order(0, epoch, 200, 64))[:200]
        for first in range(0, 200, 64):  # 64, 64, 64, 8
            chosen = order[first : first + 64]
            params, opt_state = step(params, opt_state, images[chosen], labels[chosen])
    for ours, theirs in zip(jax.tree.leaves(session.state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def test_kernel_regularizer_pulls_as_weight_decay_of_kernels_in_the_gradient(splits):
    def trained_with(regularizer: Any, weight_decay: float) -> Session:
        layers = (Conv(3, 5, 2, kernel_regularizer=regularizer), Flatten(), Dense(kernel_regularizer=regularizer))
        optim = OptimConfig("sgd", 0.05, weight_decay=weight_decay, rules="optax")
        config = RunConfig("p", Sequential(layers), train=TrainConfig(1, 64), optim=optim)
        return train_epochs(config, splits, 1)

    pulled, decayed, free = trained_with(l2(0.1), 0.0), trained_with(None, 0.2), trained_with(None, 0.0)
    ours, theirs, without = (jax.tree.leaves(session.state.params) for session in (pulled, decayed, free))
    for a, b, c in zip(ours, theirs, without, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        assert np.abs(a - c).max() > 1e-4
    assert pulled.history[0]["loss"] == pytest.approx(decayed.history[0]["loss"], rel=1e-4)  # the penalty is not in it


def test_batch_statistics_of_a_padded_batch_are_those_of_its_examples(splits):
    model = Sequential((Conv(4, 3), BatchNorm(momentum=0.0), Flatten(), Dense()))
    train = splits.train.take(np.arange(40), "forty")
    frozen = OptimConfig("sgd", 1e-30)
    padded = train_epochs(RunConfig("p", model, train=TrainConfig(1, 32), optim=frozen), Splits(train), 1)
    last = np.asarray(epoch_order(0, 0, 40, 32))[32:40]
    alone = Splits(train.take(last, "eight"))
    exact = train_epochs(RunConfig("e", model, train=TrainConfig(1, 8), optim=frozen), alone, 1)
    for a, b in zip(jax.tree.leaves(padded.state.model_state), jax.tree.leaves(exact.state.model_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_plan_is_stepwise_on_the_cpu_only_where_a_convolution_stays_with_lax(splits):
    grouped = Sequential((Conv(4, 3), Conv(4, 3, groups=2), Flatten(), Dense()))
    for model, expected in ((TINY, False), (grouped, True)):
        session = Session(RunConfig("p", model), splits, Clock(), Path("unused"))
        assert session.plan.is_stepwise is (expected and jax.default_backend() == "cpu")


def test_stepwise_and_looped_plans_agree(tiny_config, splits):
    looped = Session(tiny_config, splits, Clock(), Path("unused"))
    stepwise = Session(tiny_config, splits, Clock(), Path("unused"))
    stepwise.plan = stepwise.equipment.program.plan = Plan("matrix", is_stepwise=True)
    for session in (looped, stepwise):
        while session.step < session.steps_per_epoch:
            session.train_chunk()
    for a, b in zip(leaves(looped), leaves(stepwise), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_run_stops_at_the_first_loss_that_is_not_finite_and_names_its_step(splits):
    config = RunConfig("hot", TINY, train=TrainConfig(3, 64), optim=OptimConfig("sgd", 1e30))
    with pytest.raises(NotFinite, match=r"loss: got no finite number at step [12] \(epoch 1\).*learning-rate"):
        train_epochs(config, splits, 3)


def test_pacer_fits_calls_to_a_second_and_grows_slowly():
    pacer = Pacer(Plan("matrix"))
    assert pacer.steps(1000) == 1
    pacer.ran(1, 0.001)
    assert pacer.steps(1000) == 10
    pacer.ran(10, 0.01)
    assert pacer.steps(1000) == 100
    pacer.ran(100, 10.0)
    assert pacer.steps(1000) == int(CHUNK_SECONDS / 0.1)
    assert pacer.steps(3) == 3


def test_pinned_chunk_length_stays():
    pacer = Pacer(Plan("matrix", chunk_steps=7))
    pacer.ran(7, 100.0)
    assert pacer.steps(1000) == 7


def test_dropout_draws_differ_from_step_to_step_and_repeat_for_the_same_step(splits):
    config = RunConfig("tiny", TINY)
    network = Session(config, splits, Clock(), Path("unused")).setup.network
    state = Session(config, splits, Clock(), Path("unused")).state
    x = jnp.ones((2, 8, 8, 1))

    def outputs(seed: int) -> np.ndarray:
        return np.asarray(network.apply(state.params, state.model_state, x, None, jax.random.key(seed))[0])

    np.testing.assert_array_equal(outputs(1), outputs(1))
    assert not np.array_equal(outputs(1), outputs(2))


def test_same_bits_from_run_to_run_are_asked_of_xla_on_a_gpu_alone(monkeypatch):
    assert compiler_options(True) == compiler_options(False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for known, options in (({0, 1}, GPU_OPTIONS[0]), ({1}, GPU_OPTIONS[1]), (set(), {})):
        monkeypatch.setattr("engine.devices.executables._knows", known.__contains__)
        assert compiler_options(True) == {**options, "xla_gpu_deterministic_ops": True}
        assert (compiler_options(False) or {}) == options


def test_average_of_the_weights_is_that_of_optax(splits):
    """Against optax's exponential moving average, whose decay is constant: that of a run far from its start."""
    config = RunConfig("a", TINY, train=TrainConfig(1, 64), optim=OptimConfig("sgd", 0.1, average_decay=0.01))
    session = Session(config, splits, Clock(), Path("unused"))
    average = jax.tree.map(np.array, session.state.params)  # the buffers are given away
    for _ in range(session.steps_per_epoch):
        session.train_chunk(1)
        average = optax.incremental_update(session.state.params, average, 1 - 0.01)
        for ours, theirs in zip(jax.tree.leaves(session.state.averaged), jax.tree.leaves(average), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(jax.tree.leaves(session.state.model[0]), jax.tree.leaves(average), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)

"""What must hold on a mesh of several devices. Run by test_parallel in a process whose CPU passes for eight."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import engine
from engine.augment.config import AugmentConfig
from engine.checkpoints.record import Record
from engine.checkpoints.steps import choose_step, read_record
from engine.config import EnsembleConfig, OptimConfig, PlanConfig, RunConfig, TrainConfig
from engine.data.decoded.dataset import Splits
from engine.devices.mesh import Devices
from engine.host.clock import Clock
from engine.kernels.xla import by_example
from engine.models import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Sequential
from engine.networks.modules import moments
from engine.networks.network import normalize
from engine.report.progress import Silent
from engine.runs import loop
from engine.runs.session import Session
from engine.training import feed as feed_module
from tests.conftest import make_dataset, trained
from tests.further import further

# Everything that looks at the whole batch, or draws for each example. No convolution has its bias undone by a
# BatchNorm right after it: that bias' gradient is rounding, and two orders of adding would differ by as much as it is.
MODEL = Sequential(
    (
        Conv(4, 3, activation="relu"), BatchNorm(), MaxPool(2), Conv(8, 3, activation="relu"), Dropout(0.3),
        Flatten(), Dense(),
    )
)  # fmt: skip
AUGMENT = AugmentConfig(horizontal_flip=True, width_shift=0.2)
OPTIM = OptimConfig("momentum", 0.05)


def config_of(mesh: str | None, num_members: int = 1, epochs: int = 2, **plan) -> RunConfig:
    train = TrainConfig(epochs, 64, members=num_members)
    return RunConfig("p", MODEL, train=train, optim=OPTIM, plan=PlanConfig(mesh=mesh, **plan), augment=AUGMENT)


@pytest.fixture(scope="module")
def data() -> Splits:
    """200 training examples: the last batch of an epoch holds 8 of 64."""
    return Splits(make_dataset(200), make_dataset(50, 1, name="held out"))


@pytest.fixture(scope="module")
def on_one(data: Splits) -> Session:
    return trained(config_of(None), data)


@pytest.fixture(scope="module")
def members_on_one(data: Splits, on_one: Session) -> list[Session]:
    """The runs of members 0 and 1, each alone."""
    config = config_of(None)
    return [on_one, trained(replace(config, train=replace(config.train, first_member=1)), data)]


def assert_same_state(ours: Any, theirs: Any) -> None:
    """Weights, statistics and optimizer state agree up to the rounding of sums."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def assert_same_history(ours: Sequence[dict], theirs: Sequence[dict]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"seconds"}:
            assert a[name] == pytest.approx(b[name], rel=1e-4), name


def assert_only_sums_are_exchanged(session: Session) -> None:
    """The compiled steps hold all-reduce, and nothing that brings examples, or parts of them, to other devices."""
    text = session.stage.executables._compiled["train"].as_text()
    found = set(re.findall(r"(all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter)(?:-start)?\(", text))
    assert found == {"all-reduce"}


@pytest.mark.parametrize("mesh", ["data=8", *further(["data=3"])])  # 3 × 22 for batches of 64; data=4 is below
def test_results_are_those_of_one_device(data: Splits, on_one: Session, mesh: str):
    session = trained(config_of(mesh), data)
    assert_same_state(session.state, on_one.state)
    assert_same_history(session.history, on_one.history)
    assert_only_sums_are_exchanged(session)
    images = session.equipment.feed.window(0, 0).images
    assert len(images.sharding.device_set) == int(mesh[-1])


def test_batch_norm_keeps_its_digits_over_devices_when_the_mean_is_far_from_zero():
    values = np.random.default_rng(0).normal(200, 1, (24, 6, 5, 3)).astype(np.float32)
    values[20:] = 7  # left out
    devices = jax.make_mesh((8,), ("data",))
    split = jax.device_put(values, jax.NamedSharding(devices, jax.P("data")))
    compiled = jax.jit(lambda x: moments(x, jnp.arange(24) < 20)).lower(split).compile()
    mean, variance = compiled(split)
    exact = values[:20].astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-4)
    assert not re.search(r"all-gather|all-to-all|collective-permute", compiled.as_text())


def test_layers_that_are_frozen_for_a_while_and_averaged_weights_are_those_of_one_device(data: Splits):
    """Some from the start, one until the second epoch."""
    finetune = engine.FineTuneConfig(freeze=("conv_1", "batch_norm_1", "conv_2"), unfreeze=("1:conv_2",))
    config = replace(config_of(None), finetune=finetune, optim=replace(OPTIM, average_decay=0.9))
    ours, theirs = (trained(replace(config, plan=PlanConfig(mesh=mesh)), data) for mesh in ("data=4", None))
    assert_same_state(ours.state, theirs.state)
    assert_same_history(ours.history, theirs.history)
    assert_only_sums_are_exchanged(ours)


@pytest.mark.parametrize(
    ("mesh", "plan"),
    [
        ("member=2,data=4", {"member_mapping": "vmap", "lowering": "xla"}),
        *further([("data=3,member=2", {"member_mapping": "outer", "placement": "streamed"})]),
    ],
)
def test_members_are_the_runs_of_each_alone_on_one_device(
    data: Splits, members_on_one: list[Session], mesh: str, plan: dict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(feed_module, "CHUNK_BYTES", 3 * 64 * 64 * 2)  # three steps
    session = trained(config_of(mesh, 2, **plan), data)
    for index, alone in enumerate(members_on_one):
        assert_same_state(jax.tree.map(lambda leaf, i=index: leaf[i], session.state), alone.state)
    assert_only_sums_are_exchanged(session)
    kernel = jax.tree.leaves(session.state.params)[0]
    assert {shard.data.shape[0] for shard in kernel.addressable_shards} == {1}


def test_member_without_finite_loss_leaves_the_devices_of_others_alone(data: Splits, on_one: Session):
    config = config_of("member=2,data=2", 2, member_mapping="outer", chunk_steps=2)
    session = trained(replace(config, ensemble=EnsembleConfig(learning_rates=(0.05, 1e30))), data)
    assert session.members.failed_steps == [None, 2]
    assert session.state.step.tolist() == [8, 1]
    assert_same_state(jax.tree.map(lambda leaf: leaf[0], session.state), on_one.state)


def test_run_goes_on_on_other_meshes_and_keeps_its_own(data: Splits, on_one: Session, tmp_path: Path):
    def go_on(mesh: str | None, epochs: int, record: Record | None) -> tuple[engine.Result, Record, str]:
        config = config_of(mesh, epochs=epochs)
        result = loop.train(config, data, tmp_path / "run", Clock(), Silent(), record)
        log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
        return result, read_record(tmp_path / "run", choose_step(tmp_path / "run", "last")), log

    (tmp_path / "run").mkdir()
    _, record, log = go_on("data=8", 1, None)
    assert "mesh data=8 on 8 of 8 devices, 8 of 64 examples on each" in log
    kept, _, _ = go_on(None, 1, record)  # nothing left to train
    assert record.plan.mesh == "data=8"
    elsewhere = replace(record, plan=replace(record.plan, mesh="data=16"))
    session = Session(config_of(None), data, Clock(), tmp_path / "run", elsewhere)
    assert session.plan.mesh is None
    result, last, log = go_on("data=3", 2, record)
    assert "until now on data=8, from here on data=3" in log
    assert last.plan.mesh == "data=3"
    assert_same_history(result.history, on_one.history)
    classifier = engine.restore(tmp_path / "run")
    assert classifier.evaluate(data.validation) == result.metrics["validation"]
    assert kept.metrics["validation"]["loss"] == pytest.approx(on_one.history[0]["validation_loss"], rel=1e-4)


def test_run_keeps_its_mesh_bit_by_bit(data: Splits, tmp_path: Path):
    whole = trained(config_of("data=8"), data)
    (tmp_path / "run").mkdir()
    loop.train(config_of("data=8", epochs=1), data, tmp_path / "run", Clock(), Silent())
    record = read_record(tmp_path / "run", choose_step(tmp_path / "run", "last"))
    rest = Session(config_of(None), data, Clock(), tmp_path / "run", record)
    while not rest.is_done:
        rest.train_chunk()
    assert rest.plan.mesh == "data=8"
    for a, b in zip(jax.tree.leaves(rest.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("num_examples", [12, 13])  # 13: four devices cannot have the same number
def test_function_by_example_and_its_gradients_are_those_without_a_mesh(num_examples: int):
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.normal(size=(2, num_examples, 6, 5, 3)), jnp.float32)
    kernels = jnp.asarray(draw.normal(size=(2, 3, 3, 3, 4)), jnp.float32)

    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def gradients(images: jax.Array, kernels: jax.Array, split: bool) -> tuple:
        def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                outputs = by_example(convolve, images, kernel) if split else convolve(images, kernel)
            return jnp.sum(jnp.sin(outputs))

        return jax.vmap(jax.value_and_grad(loss, (0, 1)))(images, kernels)

    on_mesh = Devices("member=2,data=4").by_member(lambda *a: gradients(*a, split=True), (0, 0))
    got, expected = jax.jit(on_mesh)(images, kernels), gradients(images, kernels, split=False)
    traced = str(jax.make_jaxpr(on_mesh)(images, kernels))
    assert "conv_general_dilated" in traced
    assert "precision=None" not in traced
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_mesh_larger_than_the_devices_is_refused_with_both(data: Splits):
    rule = r"plan\.mesh: got member=2,data=8, which is 16 devices; expected one for the 8 × .*engine launch -n 16 "
    rule += r".* use --mesh data=8"
    with pytest.raises(engine.InputError, match=rule):
        Session(config_of("member=2,data=8", 2), data, Clock(), Path("unused"))


def local_config(mesh: str | None, num_members: int = 1, average_every: int = 3, epochs: int = 2, **plan) -> RunConfig:
    config = config_of(mesh, num_members, epochs, **plan)
    return replace(config, train=replace(config.train, average_every=average_every))


def test_local_sgd_is_that_of_numpy(data: Splits):
    """Softmax regression, two devices, momentum; averages after steps 3 and 4 of an epoch of four."""
    model, optim = Sequential((Flatten(), Dense())), OptimConfig("momentum", 0.1, momentum=0.8)
    config = replace(local_config("data=2"), model=model, optim=optim, augment=AugmentConfig())
    session = Session(config, data, Clock(), Path("unused"))
    start, orders = session.whole_model[0], [np.asarray(session.equipment.program.order(i, 200)) for i in range(2)]
    weights = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(start)]  # bias, kernel
    pixels = np.asarray(normalize(jnp.asarray(data.train.images[:]), session.setup.model.inputs), np.float64)
    pixels, labels = pixels.reshape(200, -1), np.eye(session.setup.model.num_outputs)[np.asarray(data.train.labels)]
    momenta, losses = [np.zeros_like(leaf) for leaf in weights], []
    for order in orders:
        for steps in ((0, 1, 2), (3,)):
            found = []
            for device in range(2):
                (bias, kernel), (of_bias, of_kernel) = weights, momenta
                for step in steps:
                    own = order[step * 64 : min((step + 1) * 64, 200)][device::2]
                    logits = pixels[own] @ kernel + bias
                    shares = np.exp(logits - logits.max(1, keepdims=True))
                    shares /= shares.sum(1, keepdims=True)
                    losses += [-np.log((shares * labels[own]).sum(1))]
                    slope = (shares - labels[own]) / len(own)
                    of_bias, of_kernel = (
                        0.8 * of_bias - 0.1 * slope.sum(0),
                        0.8 * of_kernel - 0.1 * pixels[own].T @ slope,
                    )
                    bias, kernel = bias + of_bias, kernel + of_kernel
                found.append((bias, kernel, of_bias, of_kernel))
            means = [np.mean(each, 0) for each in zip(*found, strict=True)]
            weights, momenta = means[:2], means[2:]
    while not session.is_done:
        session.train_chunk()
        if session.position == 0:
            row = session.finish_epoch().row
    for ours, theirs in zip(jax.tree.leaves(session.whole_model[0]), weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert row["loss"] == pytest.approx(np.concatenate(losses)[200:].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("mesh", "plan"),
    [
        ("data=4", {"chunk_steps": 1, "placement": "streamed"}),
        *further(
            [
                ("member=2,data=2", {"member_mapping": "vmap", "chunk_steps": 1}),
                ("member=2,data=2", {"member_mapping": "outer"}),
            ]
        ),
    ],
)
def test_local_sgd_has_the_same_bits_however_it_is_cut_and_resumed(
    data: Splits, mesh: str, plan: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(feed_module, "CHUNK_BYTES", 2 * 64 * 64)  # less than a period, of which a window is made
    members = 2 if "member" in mesh else 1
    whole = trained(local_config(mesh, members, **{**plan, "chunk_steps": None, "placement": "resident"}), data)
    (tmp_path / "run").mkdir()
    loop.train(local_config(mesh, members, epochs=1, **plan), data, tmp_path / "run", Clock(), Silent())
    record = read_record(tmp_path / "run", choose_step(tmp_path / "run", "last"))
    rest = Session(local_config(mesh, members, **plan), data, Clock(), tmp_path / "run", record)
    rest.train_chunk()
    assert rest.position == 3  # never between two averages
    while not rest.is_done:
        rest.train_chunk()
    for a, b in zip(jax.tree.leaves(rest.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_only_sums_are_exchanged(rest)


def test_member_of_local_sgd_without_finite_loss_goes_back_to_its_last_average(data: Splits):
    config = local_config("member=2,data=2", 2, member_mapping="vmap")
    session = trained(replace(config, ensemble=EnsembleConfig(learning_rates=(0.05, 1e30))), data)
    assert session.members.failed_steps[0] is None
    assert session.members.failed_steps[1] in (1, 2)
    assert session.state.step.tolist() == [8, 0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(session.state.params))


def test_averages_over_one_device_are_refused(data: Splits):
    rule = r"train\.average_every: got 3; expected 1 without several devices along data.* Set --mesh data=2"
    with pytest.raises(engine.InputError, match=rule):
        Session(local_config("member=2", 2), data, Clock(), Path("unused"))
    with pytest.raises(
        engine.InputError, match=r"checkpoint\.every_steps: got 2; expected none with train\.average_ev"
    ):
        replace(local_config("data=2"), checkpoint=engine.CheckpointConfig(every_steps=2))

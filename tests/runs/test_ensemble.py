"""Ensembles in training: each member is the run of that member alone, whatever befalls the others."""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import engine
from engine import EnsembleConfig, InputError, OptimConfig, PlanConfig, RunConfig, Splits, TrainConfig
from engine.augment.apply import augment_batch, example_keys
from engine.checkpoints.run_directory import open_run
from engine.checkpoints.steps import choose_step, read_record
from engine.config.data import DataConfig
from engine.devices import executables
from engine.host.clock import Clock
from engine.host.interrupts import Interrupted
from engine.keys import step_key
from engine.metrics.combination import Combination
from engine.models import Conv, Dense, Dropout, Flatten, Sequential
from engine.report.progress import Reporter, Silent
from engine.runs.loop import train
from engine.runs.result import Result
from engine.runs.session import Session
from engine.runs.setup import NotFinite
from engine.training.batches import epoch_order
from engine.training.member_settings import make_order_seeds, member_seeds, read_settings
from tests.conftest import TINY, make_dataset, trained
from tests.further import further
from tests.runs.test_loop import StopsAt, all_arrays, without_seconds

of_bits = pytest.mark.usefixtures("optimized")  # of programs of several kinds, which depend on how these are compiled

MEMBERS = 3
PLAIN = Sequential((Flatten(), Dense(8, activation="relu"), Dropout(0.2), Dense()))
FLIPS = engine.AugmentConfig(horizontal_flip=True, crop_padding=1)


class NormedNet(nnx.Module):
    """A user's class with batch statistics and dropout."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs):
        self.conv = nnx.Conv(input_shape[-1], 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.dense = nnx.Linear(4 * input_shape[0] * input_shape[1], num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.dropout(nnx.relu(self.norm(self.conv(x))))
        return self.dense(x.reshape(x.shape[0], -1))


def small_splits(num_classes: int = 3) -> Splits:
    """100 examples to train on, the last batch of 32 padded."""
    parts = [make_dataset(num, seed, num_classes=num_classes) for seed, num in enumerate((100, 40, 30))]
    return Splits(*parts)


def targets_splits() -> Splits:
    """The same images with two numbers each to be told."""

    def regression(data: engine.Dataset) -> engine.Dataset:
        targets = np.stack([data.labels / 2, data.images.mean((1, 2, 3)) / 255], axis=1).astype(np.float32)
        return engine.dataset(data.images, targets)

    return Splits(*(regression(make_dataset(num, seed)) for seed, num in enumerate((100, 40, 30))))


def ensemble(model: Any = PLAIN, *, members: int = MEMBERS, train: dict | None = None, **parts: Any) -> RunConfig:
    """Three members for two epochs of four steps."""
    given = {"epochs": 2, "batch_size": 32, "members": members, **(train or {})}
    return RunConfig("several", model, train=TrainConfig(**given), **parts)


def leaves(session: Session, member: int | None = None) -> list[np.ndarray]:
    """All arrays that training carries, or what belongs to one member of them."""
    found = [np.asarray(leaf) for leaf in jax.tree.leaves(session.state)]
    return found if member is None else [leaf[member] for leaf in found]


def assert_is_alone(together: Session, config: RunConfig, splits: Splits, member: int, tolerance: float = 0) -> None:
    """Makes sure that a member has the bits, or nearly the values, of the run of that member alone."""
    alone = trained(config.of_member(member), splits)
    for ours, theirs in zip(leaves(together, member), leaves(alone), strict=True):
        if tolerance:
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(ours, theirs)


def start(config: RunConfig, splits: Splits, directory: Path, reporter: Reporter | None = None) -> Result:
    """A run on data at hand, taken up again where it stopped if it was."""
    directory.mkdir(exist_ok=True)
    record = open_run(directory, config, resume=True, overwrite=False)
    return train(config, splits, directory, Clock(), reporter or Silent(), record)


CASES: dict[str, Callable[[], RunConfig]] = {
    "convolution and flips": lambda: ensemble(TINY, augment=FLIPS),
    "custom": lambda: ensemble(engine.custom(NormedNet)),
    "mixup": lambda: ensemble(augment=engine.AugmentConfig(mixup=0.4), train={"first_member": 5}),
    "bootstrap": lambda: ensemble(ensemble=EnsembleConfig(bootstrap=True), plan=PlanConfig(placement="streamed")),
    "shared order": lambda: ensemble(
        ensemble=EnsembleConfig(shared_order=True, weight_decays=(0.0, 0.1, 1.0)),
        optim=OptimConfig("adamw"),
        data=DataConfig(standardize="whiten"),
    ),
    "learning rates": lambda: ensemble(
        optim=OptimConfig(
            "momentum", clip_norm=1.0, schedule="cosine", warmup_epochs=0.5, average_decay=0.9, scale_rate_with="batch"
        ),
        ensemble=EnsembleConfig(learning_rates=(1e-3, 1e-2, 1e-1), weight_decays=(0.3, 0.01, 0.1)),
    ),
    "smoothings": lambda: ensemble(ensemble=EnsembleConfig(label_smoothings=(0.0, 0.1, 0.3))),
}


FIRST = "convolution and flips"


@of_bits
@pytest.mark.parametrize("name", [FIRST, *further(name for name in CASES if name != FIRST)])
def test_member_has_the_bits_of_the_run_of_that_member_alone(name: str):
    config, splits = CASES[name](), small_splits()
    together = trained(config, splits)
    assert_is_alone(together, config, splits, MEMBERS - 1)


@of_bits
@pytest.mark.parametrize("loss", further(["binary_cross_entropy", "mean_squared_error"]))
def test_member_has_the_bits_of_its_own_run_with_other_losses(loss):
    splits = small_splits(2) if loss == "binary_cross_entropy" else targets_splits()
    config = ensemble(train={"loss": loss})
    assert_is_alone(trained(config, splits), config, splits, 1)


@of_bits
@pytest.mark.parametrize(("mapping", "tolerance"), [("vmap", 1e-3), *further([("map", 0)])])
def test_member_is_its_own_run_however_members_are_mapped(mapping, tolerance: float):
    config = ensemble(plan=PlanConfig(member_mapping=mapping), optim=OptimConfig(average_decay=0.9))
    together = trained(config, small_splits())
    for member in range(MEMBERS):
        assert_is_alone(together, config, small_splits(), member, tolerance)


@pytest.mark.long
def test_vmapped_members_equal_their_own_runs_to_rounding_after_the_first_chunk():
    config = ensemble(plan=PlanConfig(member_mapping="vmap", chunk_steps=2))
    together = Session(config, small_splits(), Clock(), Path("unused"))
    together.train_chunk()
    for member in range(MEMBERS):
        alone = Session(config.of_member(member), small_splits(), Clock(), Path("unused"))
        alone.train_chunk()
        for ours, theirs in zip(leaves(together, member), leaves(alone), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@of_bits
@pytest.mark.parametrize("mapping", ["vmap", *further(["outer", "map"])])
def test_bits_do_not_depend_on_how_an_epoch_is_cut(mapping):
    whole, cut = (
        trained(ensemble(plan=PlanConfig(member_mapping=mapping, chunk_steps=steps)), small_splits())
        for steps in (4, 3)
    )
    for ours, theirs in zip(leaves(whole), leaves(cut), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert without_seconds(whole.history) == without_seconds(cut.history)


@of_bits
@pytest.mark.parametrize("shared_order", [True, *further([False])])
def test_streamed_members_have_the_bits_of_resident_ones(shared_order: bool):
    own = EnsembleConfig(shared_order=shared_order)
    resident, streamed = (
        trained(ensemble(ensemble=own, plan=PlanConfig(placement=place)), small_splits())
        for place in ("resident", "streamed")
    )
    for ours, theirs in zip(leaves(resident), leaves(streamed), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.long
def test_stepwise_plan_trains_members_too():
    convnet = Sequential((Conv(2, 3), Flatten(), Dense()))
    config = ensemble(convnet, train={"epochs": 1}, plan=PlanConfig(lowering="xla"))
    together = trained(config, small_splits())
    assert together.plan.is_stepwise is (jax.default_backend() == "cpu")
    assert_is_alone(together, config, small_splits(), 1, 1e-5)


# What members draw


def test_seeds_of_members_do_not_depend_on_how_many_there_are():
    seeds = member_seeds(7, 0, 100)
    assert seeds[0] == 7
    assert len(set(seeds.tolist())) == 100
    np.testing.assert_array_equal(member_seeds(7, 40, 3), seeds[40:43])
    assert not set(member_seeds(8, 0, 100).tolist()) & set(seeds.tolist())
    assert [int(seed) for seed in member_seeds(0, 1, 2)] == [3773815570, 1385321057]  # for ever


def test_everything_random_differs_between_members_and_is_a_function_of_seed_and_member():
    config = ensemble(augment=FLIPS)
    seeds = read_settings(config).seed
    session = Session(config, small_splits(), Clock(), Path("unused"))
    kernels = [leaf for leaf in jax.tree.leaves(session.state.params) if leaf.ndim > 2]  # biases are 0
    assert all(not np.array_equal(leaf[i], leaf[j]) for leaf in kernels for i, j in ((0, 1), (0, 2), (1, 2)))

    order = np.asarray(session.equipment.program.order(1, 100))
    images = small_splits().train.images[:8]
    keys = [example_keys(seed, 1, np.arange(8)) for seed in seeds]
    augmented = [np.asarray(augment_batch(key, images, FLIPS)[0]) for key in keys]
    dropout = [np.asarray(jax.random.key_data(step_key(seed, "dropout", 3))) for seed in seeds]
    for draws in (order, augmented, dropout):
        assert all(not np.array_equal(draws[i], draws[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_array_equal(order[2], epoch_order(int(member_seeds(0, 2, 1)[0]), 1, 100, 32))


def test_shared_order_is_that_of_the_run_for_every_member_and_alone():
    config = ensemble(ensemble=EnsembleConfig(shared_order=True))
    assert make_order_seeds(config) == make_order_seeds(config.of_member(2))
    session = Session(config, small_splits(), Clock(), Path("unused"))
    np.testing.assert_array_equal(session.equipment.program.order(1, 100), epoch_order(0, 1, 100, 32))


def test_bootstrap_is_drawn_with_replacement_once_for_each_member():
    config = ensemble(ensemble=EnsembleConfig(bootstrap=True))
    session = Session(config, small_splits(), Clock(), Path("unused"))
    orders = [np.asarray(session.equipment.program.order(epoch, 100)) for epoch in (0, 1)]
    samples = [[np.sort(row[:100]) for row in order] for order in orders]
    for member in range(MEMBERS):
        np.testing.assert_array_equal(samples[0][member], samples[1][member])
        assert 50 < len(np.unique(samples[0][member])) < 75  # 63 % are expected
    assert not np.array_equal(samples[0][0], samples[0][1])


# Mishaps and resuming

HOT = EnsembleConfig(learning_rates=(1e-2, 1e30, 3e-3))


@of_bits
@pytest.mark.parametrize("mapping", ["outer", *further(["vmap", "map"])])
def test_member_whose_loss_is_not_finite_is_frozen_and_the_others_go_on(mapping):
    plan, averaged = PlanConfig(member_mapping=mapping, chunk_steps=1), OptimConfig(average_decay=0.9)
    config = ensemble(ensemble=HOT, plan=plan, optim=averaged)
    session = Session(config, small_splits(), Clock(), Path("unused"))
    before = leaves(session, 1)
    while session.members.failed_steps[1] is None:
        before = leaves(session, 1)
        session.train_chunk()
    failed_step = session.members.failed_steps[1]
    assert failed_step == session.step <= 3
    for ours, theirs in zip(leaves(session, 1), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    together = trained(config, small_splits())
    assert together.members.failed_steps == [None, failed_step, None]
    for ours, theirs in zip(leaves(together, 1), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for member in (0, 2):
        assert_is_alone(together, config, small_splits(), member, 1e-3 if mapping == "vmap" else 0)
    with pytest.raises(NotFinite, match=rf"loss: got no finite number at step {failed_step} "):
        trained(config.of_member(1), small_splits())


@pytest.mark.parametrize("regression", [False, *further([True])])
def test_run_ends_with_the_name_of_a_frozen_member_and_leaves_it_out(tmp_path, capsys, regression: bool):
    splits = targets_splits() if regression else small_splits()
    config = ensemble(ensemble=HOT, train={"loss": "mean_squared_error"} if regression else {})
    result = start(config, splits, tmp_path / "run", Reporter())
    rows = list(csv.DictReader((tmp_path / "run" / "ensemble.csv").read_text().splitlines()))
    step = read_record(tmp_path / "run", choose_step(tmp_path / "run")).failed_steps[1]
    assert [row["member"] for row in rows] == ["0", "1", "2", "combined"]
    assert [row["status"] for row in rows[:3]] == ["trained", f"frozen at step {step}", "trained"]
    assert [float(row["weight"]) for row in rows[:3]] == [0.5, 0, 0.5]
    assert [row["n"] for row in rows] == ["30", "", "30", "30"]
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0] == f"member 1 was frozen at step {step} because its loss was not finite, and is left out"
    assert last[0] in (tmp_path / "run" / "log.txt").read_text()
    outputs = [result.classifier.members[i].outputs(splits.test.images).astype(np.float64) for i in (0, 2)]
    np.testing.assert_allclose(result.classifier.outputs(splits.test.images), np.mean(outputs, 0), rtol=1e-5)
    assert np.isfinite(list(result.metrics["test"].values())).all()


def test_member_whose_outputs_are_no_numbers_after_the_last_step_is_left_out(tmp_path):
    # Its one step has a finite loss and leaves weights that are none.
    config = ensemble(
        train={"epochs": 1, "batch_size": 100}, ensemble=EnsembleConfig(learning_rates=(1e-2, 3e38, 1e-3))
    )
    config = dataclasses.replace(config, optim=OptimConfig("sgd", 0.1))
    result = start(config, small_splits(), tmp_path / "run")
    assert result.classifier.record.failed_steps == (None, 1, None)
    assert result.classifier.combination.weights == (0.5, 0, 0.5)
    assert np.isfinite(result.history[0]["validation_loss"])
    assert "member_1_validation_loss" not in result.history[0]


def test_run_stops_when_no_member_is_left():
    config = ensemble(ensemble=EnsembleConfig(learning_rates=(1e30, 1e30, 1e30)))
    with pytest.raises(InputError, match=r"loss of every member: got no finite number at step [23] .*learning-rate"):
        trained(config, small_splits())


def test_epoch_in_which_the_last_active_member_fails_ends_the_run(tmp_path):
    config = ensemble(train={"epochs": 5, "patience": 1})
    session = Session(config, small_splits(), Clock(), tmp_path)
    while session.step < 4:
        session.train_chunk()
    session.finish_epoch()
    worse = {f"member_{number}_validation_{name}": value for number in (0, 2) for name, value in [("loss", 9.0)]}
    worse.update({f"member_{number}_validation_accuracy": 0.0 for number in (0, 2)})
    session.history[-1] |= {f"member_{n}_validation_accuracy": 0.5 for n in range(3)}
    fine = {"member_1_validation_loss": 0.1, "member_1_validation_accuracy": 1.0, "validation_loss": 1.0}
    session.history.append({"epoch": 2, "step": 8, **worse, **fine})
    np.testing.assert_array_equal(session.members.are_active(session.history), [False, True, False])
    session.step = 9
    session.members.check_losses(np.array([2**31 - 1, 9, 2**31 - 1]))
    session.step = 12
    epoch = session.finish_epoch()
    row, validation = epoch.row, epoch.validation
    assert "loss" not in row
    assert np.isfinite(validation["loss"])
    assert session.members.combination.weights == (0.5, 0, 0.5)
    assert session.is_done
    session.close()


RESUMED = {
    "plain": lambda: ensemble(plan=PlanConfig(chunk_steps=1)),
    "frozen": lambda: ensemble(ensemble=HOT, plan=PlanConfig(chunk_steps=1)),
    "stopped early": lambda: ensemble(
        train={"epochs": 8, "patience": 1, "best_by": "loss"},
        optim=OptimConfig("sgd"),
        plan=PlanConfig(chunk_steps=1),
        ensemble=EnsembleConfig(learning_rates=(0.1, 3.0, 1.0), combine="weighted", temperature=True),
    ),
}


@pytest.mark.parametrize(
    ("name", "step"),
    [("plain", 1), ("stopped early", 8), *further([("plain", 4), ("frozen", 6), ("stopped early", 14)])],
)
def test_resumed_ensemble_is_bit_identical_to_one_that_was_not_interrupted(name: str, step: int, tmp_path):
    config, splits = RESUMED[name](), small_splits()
    whole = start(config, splits, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(config, splits, tmp_path / "cut", StopsAt(step))
    assert choose_step(tmp_path / "cut", "last") == step
    resumed = start(config, splits, tmp_path / "cut")
    last = choose_step(tmp_path / "whole", "last")
    assert choose_step(tmp_path / "cut", "last") == last
    for ours, theirs in zip(all_arrays(tmp_path / "whole", last), all_arrays(tmp_path / "cut", last), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ours, theirs = (read_record(tmp_path / run, last) for run in ("whole", "cut"))
    assert ours.checksums == theirs.checksums
    assert {"model", "optimizer", "best"} == set(ours.checksums)
    assert ours.combination == theirs.combination
    assert ours.failed_steps == theirs.failed_steps
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert resumed.metrics == whole.metrics
    images = splits.test.images
    np.testing.assert_array_equal(resumed.classifier.outputs(images), whole.classifier.outputs(images))
    if name == "stopped early":
        columns = [[f"member_{n}_validation_loss" in row for row in whole.history] for n in range(MEMBERS)]
        assert len({sum(column) for column in columns}) > 1, "all stopped together: nothing is tested"


@pytest.mark.parametrize(
    ("change", "field"), [({"members": 4}, "members: stored 3, given 4"), ({"first_member": 1}, "first_member")]
)
def test_resuming_with_other_members_is_refused_with_both_numbers(tmp_path, change, field):
    config = ensemble(train={"epochs": 1})
    start(config, small_splits(), tmp_path)
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, **change))
    with pytest.raises(InputError, match=rf"train.{field}"):
        open_run(tmp_path, other, resume=True, overwrite=False)


def test_nothing_recompiles_after_the_first_epoch(monkeypatch):
    monkeypatch.setattr(executables, "_COMPILED", {})  # another test may have trained the same
    compiled: list[str] = []

    def note(event: str, duration: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    config = ensemble(train={"epochs": 4})
    session = Session(config, small_splits(), Clock(), Path("unused"))
    jax.monitoring.register_event_duration_secs_listener(note)
    seen = []
    while not session.is_done:
        session.train_chunk()
        if session.position == 0:
            session.finish_epoch()
            seen.append(len(compiled))
    jax.monitoring.clear_event_listeners()
    session.close()
    assert seen[0] > 0, "the listener hears nothing"
    assert seen[1:] == [seen[0]] * 3


# What a run says and leaves


def test_run_says_what_it_trains_and_leaves_tables(tmp_path, capsys):
    result = start(ensemble(), small_splits(), tmp_path / "run", Reporter(is_verbose=True))
    shown = capsys.readouterr().out
    assert "3 members of 547 parameters; 100 training, 40 validation, 30 test" in shown
    assert "members by outer" in shown or jax.default_backend() != "cpu"
    assert "each member at its best step" in shown
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"ensemble.csv", "uncertainty.csv", "reliability.png", "curves.png", "history.csv"} <= left
    row = result.history[-1]
    assert {f"member_{n}_validation_{name}" for n in range(3) for name in ("loss", "accuracy")} <= set(row)
    rows = list(csv.DictReader((tmp_path / "run" / "ensemble.csv").read_text().splitlines()))
    for number, cells in enumerate(rows[:-1]):
        scores = [(row[f"member_{number}_validation_accuracy"], row["step"]) for row in result.history]
        assert int(cells["best_step"]) == max(scores)[1]
    assert float(rows[-1]["nll"]) == result.metrics["test"]["loss"]


@pytest.mark.long
def test_history_has_the_learning_rate_of_each_member_where_they_differ():
    config = CASES["learning rates"]()
    history = trained(config, small_splits()).history
    for member in range(MEMBERS):
        alone = trained(config.of_member(member), small_splits()).history
        ours = [row[f"member_{member}_learning_rate"] for row in history]
        assert ours == pytest.approx([row["learning_rate"] for row in alone])
    assert "learning_rate" not in history[0]


def test_rate_counts_the_images_of_every_member_that_is_trained():
    session = Session(ensemble(), small_splits(), Clock(), Path("unused"))
    session.train_chunk()
    assert session.images_per_epoch == 300
    assert session.images_per_second == pytest.approx(3 * 32 / session.pacer.seconds_per_step)
    assert session.training_metrics()["n"] == 3 * 32
    session.close()


def test_untrained_ensemble_is_evaluated_and_saved(tmp_path):
    result = start(ensemble(train={"epochs": 0}), small_splits(), tmp_path / "run")
    assert result.history == ()
    assert result.metrics["test"]["n"] == 30
    restored = engine.restore(tmp_path / "run")
    images = small_splits().test.images
    np.testing.assert_array_equal(restored.outputs(images), result.classifier.outputs(images))


def test_ensemble_trains_without_validation_data(tmp_path):
    splits = Splits(small_splits().train, None, small_splits().test)
    result = start(ensemble(), splits, tmp_path / "run")
    assert set(result.metrics) == {"test"}
    assert result.classifier.combination.weights == pytest.approx([1 / 3] * 3)
    images = splits.test.images
    np.testing.assert_array_equal(
        engine.restore(tmp_path / "run").outputs(images), engine.restore(tmp_path / "run", step="last").outputs(images)
    )


@pytest.mark.parametrize("how", ["vote", "logits"])
def test_members_are_combined_as_asked_without_validation_data(how, tmp_path):
    splits = Splits(small_splits().train, None, small_splits().test)
    result = start(ensemble(train={"epochs": 1}, ensemble=EnsembleConfig(combine=how)), splits, tmp_path / "run")
    classifier, images = result.classifier, splits.test.images
    outputs = classifier.member_outputs(images)
    expected = Combination(how, (1 / 3,) * 3).combine(np.log(outputs))
    np.testing.assert_allclose(classifier.predict_proba(images), expected, rtol=1e-5)
    assert engine.restore(tmp_path / "run").combination == Combination(how, (1 / 3,) * 3)


# Bad input


@pytest.mark.parametrize("members", [0, -1])
def test_members_are_refused_when_there_are_none(members: int):
    with pytest.raises(InputError, match=rf"train.members: got {members}; expected a whole number of at least 1"):
        TrainConfig(members=members)


@pytest.mark.parametrize("name", ["learning_rates", "weight_decays", "label_smoothings"])
def test_hyperparameters_are_refused_when_they_are_not_one_a_member(name: str):
    with pytest.raises(InputError, match=rf"ensemble.{name}: got \(0.1, 0.2\); expected one a member, 3 of them"):
        ensemble(ensemble=EnsembleConfig(**{name: (0.1, 0.2)}))


@pytest.mark.parametrize("how", [{"combine": "weighted"}, {"combine": "greedy"}, {"temperature": True}])
def test_fitted_combination_is_refused_without_validation_data(how):
    splits = Splits(small_splits().train)
    with pytest.raises(InputError, match=r"ensemble\.\w+: got .* no validation data; expected some to fit it on"):
        Session(ensemble(ensemble=EnsembleConfig(**how)), splits, Clock(), Path("unused"))


@pytest.mark.parametrize("how", [{"combine": "vote"}, {"temperature": True}])
def test_combination_of_probabilities_is_refused_for_a_regression(how):
    config = ensemble(train={"loss": "mean_squared_error"}, ensemble=EnsembleConfig(**how))
    with pytest.raises(
        InputError, match=r"ensemble.combine: got (vote|mean and a temperature); expected the mean alone"
    ):
        Session(config, targets_splits(), Clock(), Path("unused"))

"""Cross-validation: members of one program, each the run of its fold alone; its scores are scikit-learn's."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engine
from engine import InputError, OptimConfig, PlanConfig, RunConfig, Splits, TrainConfig
from engine.checkpoints.run_directory import open_run
from engine.data.folds import divide_in_folds
from engine.errors import ignore
from engine.host.clock import Clock
from engine.host.interrupts import Interrupted
from engine.models import Dense, Dropout, Flatten, Sequential
from engine.report.page.material import read_material
from engine.report.progress import Silent
from engine.runs.loop import train
from engine.runs.result import Result
from tests.conftest import make_dataset, trained
from tests.further import further
from tests.runs.test_ensemble import leaves
from tests.runs.test_loop import StopsAt, all_arrays, without_seconds

MODEL = Sequential((Flatten(), Dense(8, activation="relu"), Dropout(0.2), Dense()))


def make_config(**parts) -> RunConfig:
    """Three folds of 97 examples: members of 64 and 65, of two and three batches of 32."""
    given = TrainConfig(epochs=2, batch_size=32, folds=3)
    return RunConfig("folded", MODEL, **{"train": given, "optim": OptimConfig("momentum"), **parts})


def start(config: RunConfig, directory: Path, reporter=None) -> Result:
    """A run of it, resumed if it was stopped."""
    directory.mkdir(exist_ok=True)
    record = open_run(directory, config, resume=True, overwrite=False)
    splits = Splits(make_dataset(97), None, make_dataset(30, 2))
    return train(config, splits, directory, Clock(), reporter or Silent(), record)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run of three folds."""
    return start(make_config(), tmp_path_factory.mktemp("folds") / "run")


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("placement", ["resident", *further(["streamed"])])
def test_member_has_the_bits_of_the_run_of_its_fold_alone(placement):
    weighed = replace(make_config().train, class_weight="balanced")  # by what each trains on
    config, splits = make_config(train=weighed, plan=PlanConfig(placement=placement)), Splits(make_dataset(97))
    together = trained(config, divide_in_folds(config, splits)[0])
    for number in (0, 2):
        own = config.of_member(number)
        assert (own.train.members, own.train.folds, own.train.fold) == (1, 3, number)
        alone = trained(own, divide_in_folds(own, splits)[0])
        for ours, theirs in zip(leaves(together, number), leaves(alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for name in ("loss", "accuracy"):
            ours = [row[f"member_{number}_validation_{name}"] for row in together.history]
            assert ours == pytest.approx([row[f"validation_{name}"] for row in alone.history], rel=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", *further(["step", "cosine_restarts", "one_cycle"])])
def test_member_with_fewer_batches_has_the_learning_rates_of_its_run_alone(schedule):
    warmup = 0.0 if schedule == "one_cycle" else 0.5
    optim = OptimConfig("momentum", schedule=schedule, step_epochs=1, warmup_epochs=warmup)
    config, splits = make_config(optim=optim), Splits(make_dataset(97))
    together = trained(config, divide_in_folds(config, splits)[0])
    own = config.of_member(0)
    for ours, theirs in zip(leaves(together, 0), leaves(trained(own, divide_in_folds(own, splits)[0])), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)  # 3e-3 with the steps of the others


@pytest.mark.parametrize("mapping", ["vmap", *further(["map"])])
def test_member_with_fewer_batches_waits_however_members_are_mapped(mapping):
    config, splits = make_config(plan=PlanConfig(member_mapping=mapping)), Splits(make_dataset(97))
    together = trained(config, divide_in_folds(config, splits)[0])
    for number in (0, 2):
        own = config.of_member(number)
        alone = trained(own, divide_in_folds(own, splits)[0])
        assert np.asarray(together.state.step)[number] == alone.step
        for ours, theirs in zip(leaves(together, number), leaves(alone), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_scores_mean_and_deviation_are_those_of_scikit_learn(result: Result):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the dev extra")
    splits, _ = divide_in_folds(result.config, Splits(make_dataset(97)))
    accuracies, losses = [], []
    for number in range(3):
        held_out = splits.train.take(np.flatnonzero(splits.folds == number), "held out")
        found = result.classifier.members[number].outputs(np.asarray(held_out.images))
        accuracies.append(metrics.accuracy_score(held_out.labels, found.argmax(1)))
        losses.append(metrics.log_loss(held_out.labels, found, labels=[0, 1, 2]))
    found = result.metrics["validation"]
    assert found["n"] == 97
    assert found["accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["accuracy_deviation"] == pytest.approx(np.std(accuracies))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["loss_deviation"] == pytest.approx(np.std(losses), rel=1e-4)
    assert result.history[-1]["validation_accuracy"] == found["accuracy"]
    assert result.metrics["test"]["n"] == 30
    with open(result.directory / "folds.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["fold"] for row in rows] == ["0", "1", "2", "mean", "deviation"]
    assert [float(row["accuracy"]) for row in rows[:3]] == pytest.approx(accuracies)


def test_resumed_folds_end_as_if_never_stopped(result: Result, tmp_path: Path):
    with pytest.raises(Interrupted):
        start(make_config(), tmp_path / "run", StopsAt(4))
    again = start(make_config(), tmp_path / "run")
    assert without_seconds(again.history) == without_seconds(result.history)
    assert again.metrics == result.metrics
    for ours, theirs in zip(all_arrays(again.directory, 6), all_arrays(result.directory, 6), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_restored_member_is_that_of_its_fold(result: Result):
    member = engine.restore(result.directory, member=2)
    assert member.record.config.train.fold == 2
    images = make_dataset(5, 3).images
    np.testing.assert_array_equal(member.outputs(images), result.classifier.members[2].outputs(images))


def test_one_fold_alone_trains_on_with_the_same_examples(tmp_path: Path):
    config = replace(make_config(), train=TrainConfig(epochs=1, batch_size=32, folds=3, fold=1))
    longer = start(config, tmp_path / "parts").train_on(1, verbose=False)
    whole = start(replace(config, train=replace(config.train, epochs=2)), tmp_path / "whole")
    assert without_seconds(longer.history) == without_seconds(whole.history)


def test_fold_of_examples_that_do_not_count_is_refused():
    data = make_dataset(60)
    given = (data.images, data.labels, np.eye(60)[0])
    with pytest.raises(InputError, match="weights: got 0 for every example of fold"):
        engine.fit(engine.mlp(()), given, epochs=1, folds=3, verbose=False)
    with pytest.raises(InputError, match=r"every example of the (training|validation) data"):
        engine.fit(engine.mlp(()), given, epochs=1, validation=0.25, verbose=False)


def test_fit_takes_folds():
    data = make_dataset(60)
    found = engine.fit(engine.mlp(()), (data.images, data.labels), epochs=1, folds=3, verbose=False)
    assert found.metrics["validation"]["n"] == 60
    assert {"accuracy", "accuracy_deviation"} <= found.metrics["validation"].keys()
    splits = divide_in_folds(found.config, Splits(data))[0]
    answers = read_material(found.directory, False, ignore, splits).answers  # each by its fold
    assert not isinstance(answers, str)
    assert splits.folds is not None
    share = (answers.outputs.argmax(1) == data.class_numbers).mean()
    assert share == pytest.approx(found.metrics["validation"]["accuracy"])  # all folds have 20 examples
    for k in range(3):
        one, own = engine.restore(found.directory, member=k), splits.folds == k
        np.testing.assert_allclose(answers.outputs[own], one.predict_proba(data.images[own]), atol=1e-6)
    with pytest.raises(InputError, match=r"data\.validation_fraction: got 0\.3; expected none with train\.folds"):
        engine.fit(engine.mlp(()), (data.images, data.labels), folds=3, validation=0.3)


def test_what_needs_validation_data_of_its_own_is_refused():
    with pytest.raises(InputError, match=r"ensemble\.combine: got greedy; expected mean, logits or vote"):
        make_config(ensemble=engine.EnsembleConfig(combine="greedy"))
    config = make_config(train=replace(make_config().train, batch_size=80))
    with pytest.raises(InputError, match="at most 64, the training examples of stripes beside the largest fold"):
        trained(config, divide_in_folds(config, Splits(make_dataset(97)))[0])

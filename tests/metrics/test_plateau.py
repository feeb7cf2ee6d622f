"""The plateau schedule: drops as Keras's ReduceLROnPlateau, of each member alone, and the same after a resume."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from engine import InputError, OptimConfig, PlanConfig, RunConfig, Splits, TrainConfig
from engine.config.sweep import with_sweep
from engine.host.interrupts import Interrupted
from engine.metrics.plateau import describe_drop, rate_factors
from engine.models import mlp
from tests.conftest import make_dataset, trained
from tests.faults.comparison import without_seconds
from tests.runs.test_loop import StopsAt, start

PLATEAU = OptimConfig("sgd", 4.0, schedule="plateau", step_epochs=1, step_factor=0.5, final_fraction=0.1)
CONFIG = RunConfig("p", mlp((4,)), train=TrainConfig(8, 64, best_by="loss"), optim=PLATEAU)


def rows_of(values: np.ndarray, name: str = "validation_accuracy") -> list[dict[str, Any]]:
    return [{"epoch": n, name: value, "validation_loss": 1.0} for n, value in enumerate(values.tolist(), 1)]


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("floor", [0.0, 0.04])
def test_rate_after_each_epoch_is_that_of_keras(keras, patience: int, floor: float):
    accuracies = np.random.default_rng(patience).integers(0, 6, 40) / 10
    theirs = keras.callbacks.ReduceLROnPlateau(
        "validation_accuracy", factor=0.3, patience=patience, mode="max", min_delta=0, min_lr=floor
    )
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1.0))
    theirs.set_model(model)
    theirs.on_train_begin()
    optim = OptimConfig("sgd", 1.0, schedule="plateau", step_epochs=patience, step_factor=0.3, final_fraction=floor)
    config, rows = replace(CONFIG, train=TrainConfig(40), optim=optim), rows_of(accuracies)
    for number, row in enumerate(rows, 1):
        theirs.on_epoch_end(number, dict(row))
        np.testing.assert_allclose(rate_factors(config, rows[:number]), model.optimizer.learning_rate, rtol=1e-6)
    assert model.optimizer.learning_rate < 0.1


def test_factors_of_members_are_their_own_and_other_schedules_have_none():
    config = replace(CONFIG, train=replace(CONFIG.train, members=2, first_member=3))
    rows = [{"member_3_validation_loss": 1.0, "member_4_validation_loss": 1.0 - n} for n in range(3)]
    np.testing.assert_array_equal(rate_factors(config, rows), np.float32([0.25, 1]))
    assert describe_drop(config, rows) == (
        "learning rate 4 to 1 from here on, after 1 epoch without a better one (optim.schedule plateau)"
    )
    assert rate_factors(replace(CONFIG, optim=OptimConfig()), rows) is None
    assert describe_drop(replace(CONFIG, optim=OptimConfig()), rows) is None


def test_epochs_before_the_schedule_do_not_count():
    """A run resumed with it would begin at the rate that all of them had led to."""
    rows = [{"step": 10 * n, "validation_loss": 1.0} for n in range(1, 5)]
    assert rate_factors(CONFIG, rows) == np.float32(0.125)
    assert [rate_factors(CONFIG, rows, since) for since in (40, 29)] == [1, 0.5]
    assert describe_drop(CONFIG, rows[:3], 29) is None
    assert "learning rate 2 from here on" in str(describe_drop(CONFIG, rows, 29))


def test_drop_of_a_sweep_is_reported_with_the_rates_of_its_members():
    optim = replace(PLATEAU, learning_rate=0.5, scale_rate_with="batch")
    swept = with_sweep(replace(CONFIG, optim=optim), {"optim.learning_rate": [0.5, 8.0]})
    rows = [{"member_0_validation_loss": 1.0, "member_1_validation_loss": 1.0 - n} for n in range(2)]
    assert str(describe_drop(swept, rows)).startswith("learning rate 2 to 0.0625 from here on")  # batches of 64 of 256


def test_steps_follow_the_rate_of_the_plateau():
    """The rows of the history say the rate that the epoch had: its steps are those of a run with that rate."""
    splits = Splits(make_dataset(100), make_dataset(40, 1))
    session = trained(CONFIG, splits)
    rates = [row["learning_rate"] for row in session.history]
    assert rates[0] == 4.0
    assert min(rates) < 4.0
    first = next(n for n, rate in enumerate(rates) if rate < 4.0)
    before = trained(replace(CONFIG, train=replace(CONFIG.train, epochs=first)), splits).state.params
    step = trained(replace(CONFIG, train=replace(CONFIG.train, epochs=first + 1)), splits).state.params
    constant = replace(CONFIG, optim=OptimConfig("sgd", 4.0))
    whole = trained(replace(constant, train=replace(CONFIG.train, epochs=first + 1)), splits).state.params
    moved, usual = (
        np.concatenate([np.ravel(np.subtract(a, b)) for a, b in zip(*map(jax.tree.leaves, pair), strict=True)])
        for pair in ((step, before), (whole, before))
    )
    assert np.linalg.norm(moved) < 0.8 * np.linalg.norm(usual)


def test_run_stopped_after_a_drop_has_the_bits_of_one_that_was_not(tmp_path: Path):
    splits = Splits(make_dataset(100), make_dataset(40, 1), make_dataset(40, 2))
    config = replace(CONFIG, plan=PlanConfig(chunk_steps=1))
    whole = start(config, splits, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(config, splits, tmp_path / "parts", StopsAt(13))
    parts = start(config, splits, tmp_path / "parts")
    assert without_seconds(parts.history) == without_seconds(whole.history)
    assert parts.metrics == whole.metrics


@pytest.mark.parametrize("mapping", ["outer", "vmap"])
def test_member_has_the_rates_of_its_run_alone(mapping: str):
    splits = Splits(make_dataset(100), make_dataset(40, 1))
    train = replace(CONFIG.train, members=2, epochs=5)
    together = trained(replace(CONFIG, train=train, plan=PlanConfig(member_mapping=mapping)), splits)  # type: ignore[arg-type]
    for member in range(2):
        alone = trained(replace(CONFIG, train=train).of_member(member), splits)
        rates = [row["learning_rate"] for row in alone.history]
        assert [row[f"member_{member}_learning_rate"] for row in together.history] == rates
        assert len(set(rates)) > 1


def test_plateau_without_validation_data_is_refused():
    with pytest.raises(
        InputError, match=r"optim\.schedule: got plateau; expected validation data.*validation-fraction"
    ):
        trained(CONFIG, Splits(make_dataset(100)))

"""Early stopping: patience is counted in epochs without a better one, on resume too; the best weights are kept."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine import InputError, OptimConfig, Splits, TrainConfig
from engine.checkpoints.steps import choose_step, find_steps, read_record
from engine.host.clock import Clock
from engine.metrics.stopping import has_stopped_early, member_best_step, score
from engine.report.progress import Silent
from engine.runs import loop
from engine.runs.session import Session
from tests.conftest import make_dataset


def rows(losses: list[float]) -> list[dict]:
    return [{"epoch": i + 1, "loss": 0.0, "validation_loss": loss, "validation_n": 5} for i, loss in enumerate(losses)]


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=12), st.integers(1, 4))
def test_run_stops_when_patience_is_used_up(losses: list[float], patience: int):
    best, waited, stopped = float("inf"), 0, False
    for loss in losses:  # what Keras's EarlyStopping does, epoch by epoch
        waited = 0 if loss < best else waited + 1
        best, stopped = min(best, loss), stopped or waited >= patience
        if stopped:
            break
    config = TrainConfig(best_by="loss", patience=patience)
    upto = next((n for n in range(1, len(losses) + 1) if has_stopped_early(config, rows(losses[:n]))), None)
    assert (upto is not None) == stopped
    assert not has_stopped_early(TrainConfig(best_by="loss"), rows(losses))


def test_patience_counts_as_that_of_keras(keras):
    draw = np.random.default_rng(0)
    for case in range(200):
        losses = draw.choice([0.1, 0.15, 0.2, 0.3, 0.35, 0.4], 12).tolist()
        delta, start, patience = (
            float(draw.choice([0.0, 0.04, 0.12])),
            int(draw.integers(0, 6)),
            int(draw.integers(1, 5)),
        )
        theirs = keras.callbacks.EarlyStopping("val_loss", delta, patience, start_from_epoch=start)
        theirs.set_model(SimpleNamespace(stop_training=False))
        theirs.on_train_begin()
        config = TrainConfig(best_by="loss", patience=patience, min_delta=delta, start_epoch=start)
        for epoch, loss in enumerate(losses):
            theirs.on_epoch_end(epoch, {"val_loss": loss})
            stops = has_stopped_early(config, rows(losses[: epoch + 1]))
            assert stops == theirs.model.stop_training, (case, losses[: epoch + 1], delta, start, patience)
            if stops:
                break


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 2, "min_delta": -0.1}, r"train.min_delta: got -0.1; expected 0 or more"),
        ({"patience": 2, "start_epoch": -1}, r"train.start_epoch: got -1; expected a whole number of at least 0"),
        ({"min_delta": 0.1}, r"train.min_delta: got 0.1; expected 0 without patience"),
        ({"start_epoch": 3}, r"train.start_epoch: got 3; expected 0 without patience"),
    ],
)
def test_options_of_patience_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**options)


def test_metric_that_is_no_number_is_the_worst():
    """It was the best for ever, and the record of a run whose best step had one could not be opened."""
    config = TrainConfig(best_by="ece", best_is="lowest")
    values = [np.nan, 0.5, np.nan, np.inf, -np.inf, 0.1]
    found = [score(config, {"loss": 1.0, "ece": value}) for value in values]
    assert np.isfinite(found).all()
    assert np.argsort(found, kind="stable").tolist() == [0, 2, 3, 1, 5, 4]
    history = [{"step": n, "member_0_validation_loss": 1.0, "member_0_validation_ece": v} for n, v in enumerate(values)]
    assert member_best_step(config, history[:4], 0) == 1


def test_score_is_accuracy_or_loss_as_asked_for():
    metrics = {"n": 5, "loss": 0.25, "accuracy": 0.75}
    assert score(TrainConfig(), metrics) == 0.75
    assert score(TrainConfig(best_by="loss"), metrics) == -0.25
    assert score(TrainConfig(loss="mean_squared_error"), {"n": 5, "loss": 0.25}) == -0.25


def test_early_run_ends_there_keeps_its_best_and_is_finished_when_resumed(tiny_config, tmp_path, capsys):
    splits = Splits(make_dataset(200), make_dataset(50, 1), make_dataset(70, 2))
    train = TrainConfig(40, 64, best_by="loss", patience=2)
    config = dataclasses.replace(tiny_config, train=train, optim=OptimConfig("sgd", 3.0))  # jumps about
    (tmp_path / "run").mkdir()
    result = loop.train(config, splits, tmp_path / "run", Clock(), Silent())
    losses = [row["validation_loss"] for row in result.history]
    assert 3 <= len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 3
    assert result.best_step == result.history[-3]["step"]
    assert result.metrics["validation"]["loss"] == pytest.approx(min(losses), rel=1e-5)
    record = read_record(tmp_path / "run", choose_step(tmp_path / "run", "last"))
    assert record.is_complete
    steps = find_steps(tmp_path / "run")
    again = loop.train(config, splits, tmp_path / "run", Clock(), Silent(), record)
    assert find_steps(tmp_path / "run") == steps
    assert [row["validation_loss"] for row in again.history] == losses
    np.testing.assert_array_equal(
        engine.restore(tmp_path / "run").outputs(splits.test.images), again.classifier.outputs(splits.test.images)
    )


def test_patience_without_validation_data_is_refused(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, train=TrainConfig(2, 64, patience=3))
    with pytest.raises(InputError, match=r"train.patience: got 3; expected validation data to judge by"):
        Session(config, Splits(make_dataset(200)), Clock(), tmp_path)

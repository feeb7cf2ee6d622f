"""Whole runs: what they leave, how they stop, how they go on."""

import csv
import dataclasses
import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import engine
from engine.checkpoints.run_directory import open_run
from engine.checkpoints.steps import choose_step, find_steps, read_record
from engine.config import PlanConfig
from engine.data.decoded.dataset import Splits
from engine.host.clock import Clock
from engine.host.interrupts import Interrupted
from engine.report.progress import Reporter, Silent
from engine.runs.callbacks import make_callbacks
from engine.runs.loop import run, train
from engine.runs.result import Result
from experiments import convnet
from tests.conftest import make_dataset


def start(
    config: engine.RunConfig, splits: Splits, directory: Path, reporter: Reporter | None = None, callbacks=()
) -> Result:
    """A run on data at hand, taken up again where it stopped if it was."""
    record = open_run(directory, config, resume=True, overwrite=False)
    made = make_callbacks(config, callbacks)
    return train(config, splits, directory, Clock(), reporter or Silent(), record, callbacks=made)


class StopsAt(Silent):
    """A reporter that sends a signal to its own process once a step is reached."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGINT):
        super().__init__()
        self.at, self.number = step, number

    def advance(self, step, *numbers):
        if step >= self.at:
            self.at = 10**9
            signal.raise_signal(self.number)


def all_arrays(directory: Path, step: int) -> list[np.ndarray]:
    """Every array of a checkpoint, as it lies on disk."""
    import orbax.checkpoint as ocp

    path = directory.resolve() / "checkpoints" / str(step)
    items = [ocp.StandardCheckpointer().restore(path / name) for name in ("model", "optimizer")]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(items)]


def without_seconds(history) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


@pytest.mark.pictures
def test_shipped_convnet_learns_and_leaves_what_it_promises(tmp_path):
    config = convnet.config()
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, split="train[:2000]", test_split="test[:500]")
    )
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=3))
    console = Console(record=True, width=120, force_terminal=False, file=(tmp_path / "out.txt").open("w"))
    result = engine.run(config, tmp_path / "run", reporter=Reporter(console))
    console.file.close()

    assert result.metrics["test"]["n"] == 500
    assert result.metrics["validation"]["n"] == 200
    assert result.metrics["test"]["accuracy"] > 0.6
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert result.history[-1]["loss"] < result.history[0]["loss"]

    run = tmp_path / "run"
    assert engine.RunConfig.read(run / "config.json") == config
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert [float(row["validation_loss"]) for row in rows] == [row["validation_loss"] for row in result.history]
    assert json.loads((run / "result.json").read_text())["metrics"] == result.metrics
    for picture in ("curves.png", "predictions.png", "confusion.png", "example.png"):
        Image.open(run / picture).verify()
    log, shown = (run / "log.txt").read_text(), console.export_text()
    for text in ("104,202 parameters", "epoch 3/3", "images/s", "best epoch", "train"):
        assert text in log
        assert text in shown

    classifier = engine.restore(run)
    assert classifier.record.step == result.best_step
    assert classifier.evaluate(engine_test_data(config)) == result.metrics["test"]


def engine_test_data(config):
    from engine.data.sources.tfds import TfdsSource

    return TfdsSource(config.data, lambda text: None).load(config.data.test_split)


def test_checkpoints_keep_the_best_and_the_last_step(tiny_config, splits, tmp_path):
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, epochs=6))
    config = dataclasses.replace(config, optim=engine.OptimConfig("sgd", 0.3))
    result = start(config, splits, tmp_path)
    ranks = {row["step"]: (row["validation_accuracy"], -row["validation_loss"], row["step"]) for row in result.history}
    best = max(ranks, key=lambda step: ranks[step])
    assert find_steps(tmp_path) == sorted({best, 20, 24})
    assert choose_step(tmp_path, "best") == result.best_step == best
    assert choose_step(tmp_path, "last") == 24
    assert result.classifier.record.step == best
    assert engine.restore(tmp_path, step="last").record.step == 24


def test_best_step_of_an_earlier_process_survives_a_resume(tiny_config, splits, tmp_path):
    start(tiny_config, splits, tmp_path)
    best = choose_step(tmp_path, "best")
    worse = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, epochs=4))
    wrong = dataclasses.replace(splits.validation, labels=(splits.validation.labels + 1) % 3)
    start(worse, dataclasses.replace(splits, validation=wrong), tmp_path)
    assert find_steps(tmp_path) == sorted({best, 12, 16})
    assert choose_step(tmp_path, "best") == best


@pytest.mark.parametrize("step", [1, 4, 6, 7], ids=["first step", "end of epoch", "mid-epoch", "step before the end"])
def test_interrupted_and_resumed_run_is_bit_identical_to_one_that_was_not(tiny_config, splits, tmp_path, step):
    config = dataclasses.replace(tiny_config, plan=PlanConfig(chunk_steps=1))
    whole = start(config, splits, tmp_path / "whole")
    with pytest.raises(Interrupted) as stop:
        start(config, splits, tmp_path / "cut", StopsAt(step))
    assert stop.value.signal_number == signal.SIGINT
    assert f"saved at step {step} of 8" in str(stop.value)
    assert choose_step(tmp_path / "cut", "last") == step
    resumed = start(config, splits, tmp_path / "cut")

    for a, b in zip(all_arrays(tmp_path / "whole", 8), all_arrays(tmp_path / "cut", 8), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert resumed.metrics == whole.metrics
    assert resumed.best_step == whole.best_step


def test_sigterm_saves_as_well(tiny_config, splits, tmp_path):
    config = dataclasses.replace(tiny_config, plan=PlanConfig(chunk_steps=1))
    with pytest.raises(Interrupted) as stop:
        start(config, splits, tmp_path, StopsAt(2, signal.SIGTERM))
    assert stop.value.signal_number == signal.SIGTERM
    assert read_record(tmp_path, choose_step(tmp_path, "last")).totals["count"] == 128


def test_signal_handlers_are_given_back(tiny_config, splits, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    start(tiny_config, splits, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_more_epochs_equal_a_longer_run_when_no_schedule_depends_on_them(tiny_config, splits, tmp_path):
    longer = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, epochs=3))
    whole = start(longer, splits, tmp_path / "whole")
    start(tiny_config, splits, tmp_path / "grown")
    grown = start(longer, splits, tmp_path / "grown")
    assert without_seconds(grown.history) == without_seconds(whole.history)
    assert grown.metrics == whole.metrics


def test_resuming_on_other_data_is_refused_with_both_fingerprints(tiny_config, splits, tmp_path):
    start(tiny_config, splits, tmp_path)
    other = dataclasses.replace(splits, train=dataclasses.replace(splits.train, fingerprint="f" * 32))
    with pytest.raises(engine.InputError, match=r"content ffffffffffff; expected the data the run was started with"):
        start(tiny_config, other, tmp_path)


def test_zero_epochs_evaluate_and_save_the_untrained_model(tiny_config, splits, tmp_path):
    config = dataclasses.replace(tiny_config, train=engine.TrainConfig(epochs=0))
    result = start(config, splits, tmp_path)
    assert "warning: 0 epochs: nothing is trained; the model is evaluated" in (tmp_path / "log.txt").read_text()
    assert result.metrics["test"]["n"] == 70
    assert engine.restore(tmp_path).record.step == 0


def test_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tiny_config, splits, tmp_path):
    start(tiny_config, splits, tmp_path)
    good = all_arrays(tmp_path, 8)
    spoiled = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, epochs=3))
    with pytest.raises(engine.InputError, match=r"loss: got no finite number at step 9 \(epoch 3\).*is kept"):
        start_with_poison(spoiled, splits, tmp_path)
    assert find_steps(tmp_path)[-1] == 8
    for a, b in zip(good, all_arrays(tmp_path, 8), strict=True):
        np.testing.assert_array_equal(a, b)


def start_with_poison(config, splits, directory):
    """A run whose weights become NaN between two epochs, as a broken device would make them."""
    from engine.runs import session

    take_up = session.Session._resume

    def poisoned(self, record, abstract):
        take_up(self, record, abstract)
        bad = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), self.state.params)
        self.state = dataclasses.replace(self.state, params=bad)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.Session, "_resume", poisoned)
        return start(config, splits, directory)


def test_batch_larger_than_the_data_is_refused(tiny_config, splits, tmp_path):
    config = dataclasses.replace(tiny_config, train=engine.TrainConfig(batch_size=201))
    rule = r"train.batch_size: got 201; expected at most 200, the training ex.*Give 200 or fewer"
    with pytest.raises(engine.InputError, match=rule):
        start(config, splits, tmp_path)


@pytest.mark.parametrize(("augment", "size"), [(engine.AugmentConfig(), 21), (engine.AugmentConfig(mixup=0.2), 22)])
def test_default_batch_is_all_examples_where_these_are_fewer_also_when_resumed(tiny_config, augment, size, tmp_path):
    splits = Splits(make_dataset(21), make_dataset(9, 1))
    config = dataclasses.replace(tiny_config, train=engine.TrainConfig(epochs=1), augment=augment)
    result = run(config, tmp_path / "run", splits=splits, reporter=Silent())
    assert result.config.train.batch_size == size
    line = f"train.batch_size: {size} in place of the 64 by default, because there are 21 training examples"
    assert line in (tmp_path / "run" / "log.txt").read_text()
    longer = dataclasses.replace(config, train=engine.TrainConfig(epochs=2))
    again = run(longer, tmp_path / "run", splits=splits, resume=True, reporter=Silent())
    assert [row["step"] for row in again.history] == [1, 2]
    other = dataclasses.replace(config, train=engine.TrainConfig(epochs=2, batch_size=20))
    with pytest.raises(engine.InputError, match=rf"train.batch_size: stored {size}, given 20"):
        run(other, tmp_path / "run", splits=splits, resume=True, reporter=Silent())


def test_second_run_in_the_same_directory_is_refused_and_changes_nothing(tiny_config, splits, tmp_path):
    start(tiny_config, splits, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(engine.InputError, match=r"contains a finished run \(2 of 2 epochs, step 8\).*--resume"):
        engine.run(tiny_config, tmp_path, reporter=Silent())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("binary_cross_entropy", r"binary_cross_entropy with 3; expected 2 classes"),
        ("mean_squared_error", r"mean_squared_error with 3 classes; expected float targets"),
    ],
)
def test_loss_that_does_not_go_with_the_data_is_refused(tiny_config, splits, tmp_path, loss, message):
    config = dataclasses.replace(tiny_config, train=engine.TrainConfig(loss=loss))
    with pytest.raises(engine.InputError, match=message):
        start(config, splits, tmp_path)


def test_run_without_validation_and_test_works_and_its_last_step_is_best(tiny_config, splits, tmp_path):
    result = start(tiny_config, Splits(splits.train), tmp_path)
    assert result.metrics == {}
    assert result.best_step == 8
    assert "validation_loss" not in result.history[0]


def test_weights_that_are_not_finite_are_never_saved(tiny_config, splits, tmp_path):
    """A last step may spoil the weights after its own loss was finite; without validation only the save can notice."""
    one_step = dataclasses.replace(
        tiny_config,
        data=engine.DataConfig(scale=1e4),
        train=engine.TrainConfig(1, 200),
        optim=engine.OptimConfig("sgd", 3e38),
    )
    with pytest.raises(engine.InputError, match=r"weight: got no finite number at step 1 \(epoch 1\)"):
        start(one_step, Splits(splits.train), tmp_path)
    assert find_steps(tmp_path) == []


def test_overwrite_keeps_the_old_run_until_the_new_one_can_start(tiny_config, splits, tmp_path):
    start(tiny_config, splits, tmp_path)
    wrong = dataclasses.replace(tiny_config, data=engine.DataConfig(split="nosuch"))
    with pytest.raises(engine.InputError, match=r"data.split: got 'nosuch'"):
        engine.run(wrong, tmp_path, overwrite=True, reporter=Silent())
    assert engine.restore(tmp_path).record.step in (4, 8)


def test_more_epochs_equal_a_longer_run_when_the_rate_warms_up_beyond_the_first(tiny_config, splits, tmp_path):
    warm = dataclasses.replace(tiny_config, optim=engine.OptimConfig(warmup_epochs=3))
    short = dataclasses.replace(warm, train=dataclasses.replace(warm.train, epochs=1))
    whole = start(warm, splits, tmp_path / "whole")
    start(short, splits, tmp_path / "grown")
    assert without_seconds(start(warm, splits, tmp_path / "grown").history) == without_seconds(whole.history)


def test_seconds_of_an_interrupted_epoch_are_kept(tiny_config, splits, tmp_path):
    config = dataclasses.replace(tiny_config, plan=PlanConfig(chunk_steps=1))
    with pytest.raises(Interrupted):
        start(config, splits, tmp_path, StopsAt(3))
    before = read_record(tmp_path, 3).epoch_seconds
    assert before > 0
    assert start(config, splits, tmp_path).history[0]["seconds"] >= round(before, 3)

"""Runs resumed with other settings: the optimizer's state is kept, and the change is recorded."""

from dataclasses import replace

import numpy as np
import pytest

import engine
from engine.checkpoints.run_directory import open_run
from engine.checkpoints.steps import choose_step, read_record
from engine.commands.experiment import find_typed_changes, read_options
from engine.errors import InputError
from engine.host.clock import Clock
from engine.host.interrupts import Interrupted
from engine.models import Dense, Flatten, Sequential
from engine.runs.inputs import follow_record
from engine.runs.loop import train
from engine.training.batches import OrderSeeds
from tests.further import further
from tests.runs.test_callbacks import Saying
from tests.runs.test_loop import StopsAt, all_arrays, without_seconds

LINEAR = Sequential((Flatten(), Dense()))
BATCH, EPOCHS, DECAY = "train.batch_size", "train.epochs", "optim.weight_decay"


def drop_at_4(steps: int):
    import jax.numpy as jnp

    return lambda step: jnp.where(step < 4, 1.0, 0.25)


def make_config(**optim) -> engine.RunConfig:
    train = engine.TrainConfig(epochs=2, batch_size=64)
    settings = engine.OptimConfig(**{"name": "sgd", "momentum": 0.9, "learning_rate": 0.5, **optim})
    return engine.RunConfig("tiny", LINEAR, train=train, optim=settings, plan=engine.PlanConfig(chunk_steps=1))


def changed(config: engine.RunConfig, **values) -> engine.RunConfig:
    """changed(config, train__epochs=3)."""
    for name, value in values.items():
        section, field = name.split("__")
        config = replace(config, **{section: replace(getattr(config, section), **{field: value})})
    return config


def start(config, splits, directory, *allowed, reporter=None) -> engine.Result:
    reporter = reporter or Saying([])
    record = open_run(directory, config, True, False, reporter.say, allowed)
    config = follow_record(config, record, reporter.say, allowed) if record else config
    return train(config, splits, directory, Clock(), reporter, record)


def stop_at(step, config, splits, directory):
    with pytest.raises(Interrupted):
        start(config, splits, directory, reporter=StopsAt(step))


def test_other_rate_continues_with_the_state_is_recorded_and_stays(splits, tmp_path):
    config, said = make_config(), []
    stop_at(4, config, splits, tmp_path / "run")
    lower = changed(config, optim__learning_rate=0.125)
    with pytest.raises(InputError, match=r"add --allow-change optim.learning-rate[\s\S]*stored 0.5, given 0.125"):
        start(lower, splits, tmp_path / "run")
    result = start(lower, splits, tmp_path / "run", "optim.learning-rate", reporter=Saying(said))
    assert "changed from here on: optim.learning_rate 0.5 → 0.125" in said
    start(make_config(schedule=engine.custom(drop_at_4)), splits, tmp_path / "whole")
    for one, other in zip(all_arrays(tmp_path / "run", 8), all_arrays(tmp_path / "whole", 8), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert [row.get("changes") for row in result.history] == [None, "optim.learning_rate 0.5 → 0.125"]
    assert "optim.learning_rate 0.5 → 0.125" in (tmp_path / "run" / "history.csv").read_text()

    longer = start(changed(config, train__epochs=3), splits, tmp_path / "run")  # the rate it was started with, unsaid
    assert longer.config.optim.learning_rate == 0.125
    assert longer.history[2]["learning_rate"] == pytest.approx(0.125)
    back = changed(config, train__epochs=4)
    assert start(back, splits, tmp_path / "run", "optim.learning_rate").history[3]["learning_rate"] == 0.5
    record = read_record(tmp_path / "run", 16)
    assert [(c.step, c.before, c.after) for c in record.changes] == [(4, 0.5, 0.125), (12, 0.125, 0.5)]


def test_new_rate_is_the_rate_whatever_plateau_took_off_before(splits, tmp_path):
    config = make_config(schedule="plateau", step_epochs=1, learning_rate=1e-9)  # no epoch is better than the first
    config = changed(config, train__epochs=3)
    start(config, splits, tmp_path)
    longer = changed(config, train__epochs=6, optim__learning_rate=1e-8)
    history = start(longer, splits, tmp_path, "optim.learning_rate").history
    assert [row["learning_rate"] for row in history[3:]] == pytest.approx([1e-8, 1e-8, 1e-9])


def test_resuming_with_other_versions_or_on_another_processor_is_said(splits, tmp_path, monkeypatch):
    said, config = [], make_config()
    monkeypatch.setattr("engine.runs.session.versions", lambda: {"jax": "0.9.1", "numpy": "2.3"})
    monkeypatch.setattr("engine.runs.session.device_text", lambda: "cpu: Another, 4 cores")
    stop_at(1, config, splits, tmp_path)
    monkeypatch.undo()
    start(config, splits, tmp_path, reporter=Saying(said))
    line = next(line for line in "\n".join(said).splitlines() if line.startswith("until now with jax 0.9.1 (now "))
    assert " on cpu: Another, 4 cores (now " in line
    assert line.endswith("the bits that follow may not be those of a run without a stop")


def reference(weights, splits, size: int, batches, rate: float):
    """Weights and bias after SGD on the softmax cross-entropy of these (epoch, number of the batch), in float64."""
    kernel, bias = (np.asarray(leaf, np.float64) for leaf in weights)
    images = splits.train.images.reshape(200, -1) / 255
    for epoch, number in batches:
        order = np.asarray(OrderSeeds(0).order(epoch, 200, size))[:200][number * size : (number + 1) * size]
        logits = images[order] @ kernel + bias
        shares = np.exp(logits - logits.max(1, keepdims=True))
        slopes = (shares / shares.sum(1, keepdims=True) - np.eye(3)[splits.train.labels[order]]) / len(order)
        kernel, bias = kernel - rate * images[order].T @ slopes, bias - rate * slopes.sum(0)
    return kernel, bias


def weights_at(directory, step):
    bias, kernel = sorted((leaf for leaf in all_arrays(directory, step) if leaf.ndim), key=lambda leaf: leaf.ndim)
    return kernel, bias


@pytest.mark.parametrize(
    ("stop", "size", "first", "repeated"),
    [(5, 32, 2, 0), (6, 50, 2, 28), *further([(4, 32, 0, 0), (5, 100, 0, 64)])],
)
def test_other_batch_size_continues_in_the_epoch_where_it_stopped(stop, size, first, repeated, splits, tmp_path):
    config, said = make_config(momentum=None), []
    stop_at(stop, config, splits, tmp_path)
    before = weights_at(tmp_path, stop)
    result = start(changed(config, train__batch_size=size), splits, tmp_path, BATCH, reporter=Saying(said))
    num_batches = -(-200 // size)
    batches = [(1, number) for number in range(first, num_batches)]
    assert [row["step"] for row in result.history] == [4, stop + len(batches)]
    found = weights_at(tmp_path, stop + len(batches))
    for one, other in zip(found, reference(before, splits, size, batches, 0.5), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert any(f"{repeated} examples of this epoch are trained on twice" in line for line in said) == bool(repeated)
    record = read_record(tmp_path, choose_step(tmp_path, "last"))
    assert record.is_complete
    assert record.epochs_done == 2
    longer = start(changed(config, train__epochs=3), splits, tmp_path)
    assert [row["epoch"] for row in longer.history] == [1, 2, 3]
    assert longer.history[2]["step"] == longer.history[1]["step"] + num_batches


def test_schedule_and_augmentation_follow_epochs_and_not_steps(splits, tmp_path):
    config = replace(make_config(schedule="cosine"), augment=engine.AugmentConfig(horizontal_flip=True))
    stop_at(4, config, splits, tmp_path / "run")
    halved = changed(config, train__batch_size=100)
    result = start(halved, splits, tmp_path / "run", BATCH)
    whole = start(halved, splits, tmp_path / "whole")
    assert result.history[1]["learning_rate"] == whole.history[1]["learning_rate"]
    stop_at(1, config, splits, tmp_path / "longer")
    result = start(changed(config, train__epochs=3), splits, tmp_path / "longer", EPOCHS)
    assert result.history[1]["learning_rate"] == pytest.approx(0.25 * (1 + np.cos(np.pi * 7 / 12)))


@pytest.mark.parametrize(
    ("before", "after", "members"), [(None, 0.01, 1), (0.01, None, 2), *further([(None, 0.01, 2), (0.01, None, 1)])]
)
def test_weight_decay_is_added_and_dropped_with_the_state_of_the_rest(before, after, members, splits, tmp_path):
    """Compared with runs that have the decay all along, of 0 where it is none."""
    config = changed(make_config(schedule="cosine"), train__members=members, optim__weight_decay=before)
    for name, (first, second) in {"run": (before, after), "known": (before or 0.0, after or 0.0)}.items():
        stop_at(5, changed(config, optim__weight_decay=first), splits, tmp_path / name)
        start(changed(config, optim__weight_decay=second), splits, tmp_path / name, DECAY)
    run, known = (engine.restore(tmp_path / name, "last").outputs(splits.test.images) for name in ("run", "known"))
    np.testing.assert_array_equal(run, known)
    steps = [np.asarray(leaf) for leaf in all_arrays(tmp_path / "run", 8) if leaf.dtype == np.int32]
    assert {int(step) for each in steps for step in np.ravel(each)} == {8}


@pytest.mark.parametrize(
    ("changes", "allowed", "message"),
    [
        ({"train__seed": 1}, ("train.seed",), r"allow_change: got 'train.seed'; expected one of train.epochs, train.b"),
        ({"train__seed": 1}, (), r"another config; expected the config it was started with. Give the same settings"),
        ({"optim__schedule": "cosine"}, ("optim.learning_rate",), r"add --allow-change optim.schedule. Give"),
        ({"train__batch_size": 500}, (BATCH,), r"train.batch_size: got 500; expected at most 200"),
    ],
)
def test_other_changes_are_refused(changes, allowed, message, splits, tmp_path):
    config = make_config()
    stop_at(1, config, splits, tmp_path)
    with pytest.raises(InputError, match=message):
        start(changed(config, **changes), splits, tmp_path, *allowed)
    result = start(config, splits, tmp_path)  # the run is as it was
    assert "changes" not in result.history[-1]


def test_changes_need_resume(tmp_path):
    with pytest.raises(InputError, match=r"allow_change: got it without resume; expected both or none. Add --resume."):
        open_run(tmp_path, make_config(), False, False, allow_change=[BATCH])


def test_what_counts_steps_of_its_own_keeps_its_batch_size(splits, tmp_path):
    model = Sequential((Flatten(), Dense(4, "relu"), Dense()))
    freezing = engine.FineTuneConfig(freeze=("dense_1",), unfreeze=("1:dense_1",))
    config = replace(make_config(), model=model, finetune=freezing)
    stop_at(5, config, splits, tmp_path)
    with pytest.raises(InputError, match=r"train.batch_size: got 32; expected 64, as before, with layers that train"):
        start(changed(config, train__batch_size=32), splits, tmp_path, BATCH)
    with pytest.raises(InputError, match=r"optim.weight_decay: got 0.1; expected None, as before, with layers that"):
        start(changed(config, optim__weight_decay=0.1), splits, tmp_path, DECAY)
    assert len(start(changed(config, optim__learning_rate=0.1), splits, tmp_path, "optim.learning_rate").history) == 2


def test_options_that_are_given_with_resume_may_change():
    words = ["--resume", "--optim.learning-rate=0.1", "--train.batch-size", "8", "--train.seed", "1"]
    assert find_typed_changes(words) == ["train.batch_size", "optim.learning_rate"]
    assert find_typed_changes(words[1:]) == []
    words += ["--allow-change", "optim.schedule", "train.epochs"]
    assert read_options(make_config, words, "mine.py").allow_change == ("optim.schedule", "train.epochs")


def test_changed_run_that_is_interrupted_has_the_bits_of_one_that_is_not(splits, tmp_path):
    config = changed(make_config(), train__epochs=3)
    for name in ("whole", "parts"):
        stop_at(5, config, splits, tmp_path / name)
    config = changed(config, train__batch_size=48)
    whole = start(config, splits, tmp_path / "whole", BATCH)
    record = open_run(tmp_path / "parts", config, True, False, allow_change=[BATCH])
    with pytest.raises(Interrupted):
        train(config, splits, tmp_path / "parts", Clock(), StopsAt(7), record)
    parts = start(config, splits, tmp_path / "parts")
    assert without_seconds(parts.history) == without_seconds(whole.history)
    last = whole.history[-1]["step"]
    for one, other in zip(all_arrays(tmp_path / "whole", last), all_arrays(tmp_path / "parts", last), strict=True):
        np.testing.assert_array_equal(one, other)

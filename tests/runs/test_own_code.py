"""Losses, metrics, optimizers and schedules of one's own: trained, saved, resumed, and opened only when trusted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import engine
from engine import InputError, OptimConfig, Splits, TrainConfig
from engine.checkpoints.steps import choose_step, read_record
from engine.host.clock import Clock
from engine.metrics.table import Metric, mean
from engine.report.progress import Silent
from engine.runs import loop
from tests.conftest import TINY, make_dataset


def focal(outputs: jax.Array, labels: jax.Array, power: float = 2.0) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return (1 - jnp.exp(-losses)) ** power * losses


def band_distance() -> Metric:
    return mean(lambda outputs, labels: abs(outputs.argmax(-1) - labels).astype("float32"))


def halving(steps: int) -> optax.Schedule:
    return lambda step: 1 - 0.5 * step / steps


def squared(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.square(outputs - targets).mean(-1)


OWN = TrainConfig(
    3,
    64,
    engine.custom(focal, power=1.5),
    best_by="band_distance",
    best_is="lowest",
    metrics=("brier", engine.custom(band_distance)),
)
OPTIM = OptimConfig(engine.custom(optax.lion, b1=0.8), 0.003, schedule=engine.custom(halving))
SPLITS = Splits(make_dataset(200), make_dataset(60, 1), make_dataset(70, 2))


def train(config: engine.RunConfig, path, record=None) -> engine.Result:
    path.mkdir(exist_ok=True)
    return loop.train(config, SPLITS, path, Clock(), Silent(), record)


@pytest.mark.parametrize("members", [1, 2])
def test_run_of_own_code_is_saved_resumed_and_restored(tiny_config, tmp_path, members):
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(OWN, members=members), optim=OPTIM)
    result = train(config, tmp_path / "whole")
    names = {"loss", "accuracy", "brier", "band_distance"}
    for row in result.history:
        assert names <= set(row)
        assert {f"validation_{name}" for name in names} <= set(row)
    assert result.history[-1]["learning_rate"] == pytest.approx(0.003 * (1 - 0.5 * 11 / 12))
    header = (tmp_path / "whole" / "history.csv").read_text().splitlines()[0]
    assert "validation_band_distance" in header
    with pytest.raises(
        InputError, match=r"got code of its author's own \(.*optax.*:lion, .*test_own_code:band_distance"
    ):
        engine.restore(tmp_path / "whole")
    opened = engine.restore(tmp_path / "whole", trust=True)
    found = opened.evaluate(SPLITS.test)
    predicted = opened.outputs(SPLITS.test.images).argmax(1)
    assert found["band_distance"] == pytest.approx(np.mean(abs(predicted - SPLITS.test.labels)))
    assert found == result.metrics["test"]
    if members == 1:
        distances = [row["validation_band_distance"] for row in result.history]
        best = max(range(3), key=lambda i: (-distances[i], i))
        assert result.best_step == result.history[best]["step"]


def test_resumed_run_of_own_code_has_the_bits_of_a_whole_one(tiny_config, tmp_path, monkeypatch):
    config = dataclasses.replace(tiny_config, train=OWN, optim=OPTIM)
    whole = train(config, tmp_path / "whole")

    class Stop(Exception): ...

    from engine.runs.session import Session

    finish = Session.finish_epoch
    monkeypatch.setattr(Session, "train_chunk", _stopping_after(Session.train_chunk, 6, Stop))
    with pytest.raises(Stop):
        train(dataclasses.replace(config, checkpoint=engine.CheckpointConfig(every_steps=1)), tmp_path / "part")
    monkeypatch.undo()
    assert Session.finish_epoch is finish
    record = read_record(tmp_path / "part", choose_step(tmp_path / "part", "last"))
    assert 0 < record.step < 12
    resumed = train(dataclasses.replace(config, checkpoint=record.config.checkpoint), tmp_path / "part", record)
    images = SPLITS.test.images
    np.testing.assert_array_equal(resumed.classifier.outputs(images), whole.classifier.outputs(images))
    drop = ("seconds",)
    strip = [[{k: v for k, v in row.items() if k not in drop} for row in each.history] for each in (resumed, whole)]
    assert strip[0] == strip[1]


def _stopping_after(train_chunk, steps: int, error: type[Exception]):
    def stopping(session, at_most=None):
        if session.step >= steps:
            raise error
        train_chunk(session, 1)

    return stopping


def test_fit_takes_functions_as_they_are():
    data = make_dataset(100)
    result = engine.fit(
        TINY, data, epochs=1, loss=focal, metrics=[band_distance, "ece"], optimizer=optax.lion, verbose=False
    )
    assert result.config.train.loss == engine.custom(focal)
    assert {"n", "loss", "accuracy", "band_distance", "ece"} <= set(result.evaluate(data))
    assert result.classifier.outputs(data.images).sum(axis=1) == pytest.approx(np.ones(100), rel=1e-5)
    with pytest.raises(InputError, match=r"custom: got .*\(a lambda\)"):
        engine.fit(TINY, data, epochs=1, loss=lambda outputs, labels: outputs, verbose=False)


def test_own_loss_of_a_regression_is_given_its_targets():
    images, targets = make_dataset(100).images, np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    options = {"epochs": 2, "verbose": False}
    own = engine.fit(TINY, (images, targets), loss=squared, metrics=["mean_absolute_error"], **options)
    built_in = engine.fit(TINY, (images, targets), loss="mean_squared_error", **options)
    assert own.evaluate((images, targets))["loss"] == built_in.evaluate((images, targets))["loss"]
    outputs = own.classifier.outputs(images)
    found = own.evaluate((images, targets))["mean_absolute_error"]
    assert found == pytest.approx(np.abs(outputs - targets).mean(), rel=1e-5)

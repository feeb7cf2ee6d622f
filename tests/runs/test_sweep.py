"""A sweep in one program: each member is the run with its numbers alone, and the best one predicts."""

import csv
from dataclasses import replace

import numpy as np
import pytest

import engine
from engine import InputError, OptimConfig, RunConfig, Splits, TrainConfig
from engine.config.sweep import with_sweep
from engine.models import Dense, Dropout, Flatten, Sequential
from engine.runs.ensemble_members import find_diverged
from tests.conftest import make_dataset, trained
from tests.further import further
from tests.runs.test_ensemble import leaves

MODEL = Sequential((Flatten(), Dense(8, activation="relu"), Dropout(0.2), Dense()))
CASES = {
    "rate and momentum": (OptimConfig("momentum"), {"optim.learning_rate": [1e-3, 1e-1], "optim.momentum": [0.5, 0.9]}),
    "adam": (OptimConfig("adam"), {"optim.beta_1": [0.8, 0.95], "optim.epsilon": [1e-7, 1e-2]}),
    "average": (OptimConfig("rmsprop"), {"optim.average_decay": [0.5, 0.9], "optim.clip_norm": [0.1, 5.0]}),
}


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("name", ["adam", *further(name for name in CASES if name != "adam")])
def test_member_has_the_bits_of_the_run_with_its_numbers(name: str):
    optim, sweep = CASES[name]
    config = with_sweep(RunConfig("swept", MODEL, train=TrainConfig(2, 32), optim=optim), sweep)
    splits = Splits(make_dataset(100), make_dataset(40, 1))
    together = trained(config, splits)
    for number in (1, 2):
        alone = trained(config.of_member(number), splits)
        for ours, theirs in zip(leaves(together, number), leaves(alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    values = {field: together.config.of_member(2).optim for field in sweep}
    plain = RunConfig("plain", MODEL, train=TrainConfig(2, 32), optim=next(iter(values.values())))
    for ours, theirs in zip(leaves(together, 2), leaves(trained(plain, splits)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4)  # constants of float32, not of float64


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> engine.Result:
    """Three rates, of which the middle one learns and the last one does not."""
    data = make_dataset(200)
    run_dir = tmp_path_factory.mktemp("sweep") / "run"
    sweep = {"optim.learning_rate": [1e-6, 1e-2, 1e3]}
    return engine.fit(MODEL, data, epochs=3, optimizer="sgd", sweep=sweep, run_dir=run_dir, verbose=False)


def test_the_best_member_on_the_validation_data_predicts(result: engine.Result):
    with open(result.directory / "sweep.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["optim.learning_rate"]) for row in rows] == [1e-6, 1e-2, 1e3]
    best = max(range(3), key=lambda k: (float(rows[k]["accuracy"] or 0), -float(rows[k]["loss"] or np.inf)))
    images = make_dataset(9, 4).images
    for found in (result.classifier, engine.restore(result.directory)):
        assert found.combination.weights[best] == 1
        own = found.members[best].outputs(images)
        np.testing.assert_allclose(found.outputs(images), own, rtol=1e-5)
    assert result.metrics["validation"]["accuracy"] == pytest.approx(float(rows[best]["accuracy"]))


def test_members_of_a_sweep_start_alike(result: engine.Result):
    config = replace(result.config, train=replace(result.config.train, epochs=0))
    start = trained(config, Splits(make_dataset(200), make_dataset(40, 1)))
    for leaf in leaves(start):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


def test_members_diverge_by_the_distance_of_their_loss_from_the_median():
    active = np.array([True, True, True, False])
    assert find_diverged(np.array([1.0, 2.0, 9.0, 50.0]), active).tolist() == [False, False, True, True]
    assert not find_diverged(np.array([-3.6, -3.4, -3.1, 0.0]), active)[active].any()  # a loss of the user's own


def test_sweep_without_validation_data_is_refused():
    data = make_dataset(60)
    with pytest.raises(InputError, match=r"ensemble\.select_best: got no validation data"):
        engine.fit(MODEL, data, sweep=["optim.learning-rate=1e-3,1e-2"], validation=None, verbose=False)

"""The learning-rate range test: its losses are those of the run that it is, and what it reads off a curve is there."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import engine
from engine import InputError, OptimConfig, RunConfig, Splits, TrainConfig
from engine.__main__ import main
from engine.host.clock import Clock
from engine.models import mlp
from engine.runs.lr_finder import _as_test, judge_losses, search_rates
from engine.runs.session import Session
from tests.conftest import make_dataset

CONFIG = RunConfig(
    "r", mlp((16,)), train=TrainConfig(3, 32, patience=2), optim=OptimConfig("sgd", 0.5, schedule="plateau")
)
RATES = np.geomspace(1e-6, 10, 100)
EXPERIMENT = """
import engine


def config():
    data = engine.DataConfig(split="train[:256]", test_split=None)
    return engine.RunConfig("tiny_net", engine.mlp((8,)), data, engine.TrainConfig(batch_size=32))
"""


def curve_of(steepest: float, diverging: float = 3.0, noise: float = 0.03) -> np.ndarray:
    """Losses that fall fastest at a rate and explode at another."""
    draw, place = np.random.default_rng(0), np.log10(RATES)
    falling = 2.3 - 1.5 / (1 + np.exp(-3 * (place - np.log10(steepest))))
    return falling + noise * draw.normal(size=100) + 1e4 * np.maximum(0, place - np.log10(diverging))


def test_losses_are_those_of_steps_at_these_rates(splits: Splits):
    said: list[str] = []
    found = search_rates(CONFIG, splits, said.append, 1e-3, 3.0, 15)  # seven steps an epoch
    session = Session(_as_test(CONFIG, 200, 1e-3, 3.0, 15), Splits(splits.train), Clock(), Path("unused"))
    expected = []
    for step in range(15):
        if step and session.position == 0:
            session.totals = session.members.make_totals()
        before = float(session.totals.sums["loss"]), int(session.totals.count)  # the arrays are given away
        session.train_chunk(1)
        expected.append((float(session.totals.sums["loss"]) - before[0]) / (int(session.totals.count) - before[1]))
        assert session.learning_rate(step) == pytest.approx(found.rates[step], rel=1e-4)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-4)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 3.0, 15))
    assert found.suggestion is not None


def test_rate_that_is_scaled_is_refused():
    config = replace(CONFIG, optim=replace(CONFIG.optim, scale_rate_with="batch"))
    with pytest.raises(InputError, match=r"optim\.scale_rate_with: got batch; expected none, as rates are tried"):
        _as_test(config, 200, 1e-3, 3.0, 15)


@pytest.mark.parametrize("noise", [0.03, 0.15])
@pytest.mark.parametrize("steepest", [1e-4, 2e-3, 0.05])
def test_suggestion_is_where_the_loss_falls_fastest(steepest: float, noise: float):
    found = judge_losses(RATES, curve_of(steepest, noise=noise))
    assert found.suggestion is not None
    assert abs(np.log10(found.suggestion / steepest)) < 0.4  # of a range of seven decades
    assert found.has_diverged
    assert steepest < found.lowest < 5


def test_curve_that_does_not_fall_gives_no_suggestion_and_one_that_is_not_finite_ends_there():
    noise = 2.3 + 0.03 * np.random.default_rng(1).normal(size=100)
    assert judge_losses(RATES, np.linspace(2.3, 2.6, 100)).suggestion is None
    assert judge_losses(RATES, noise).suggestion is None
    losses = curve_of(1e-3)
    losses[80:] = np.nan
    found = judge_losses(RATES, losses)
    assert found.has_diverged
    assert len(found.smoothed) <= 80
    assert found.suggestion == pytest.approx(1e-3, rel=1)
    with pytest.raises(InputError, match=r"low: got 1e-06; expected a rate at which the loss is finite"):
        judge_losses(RATES, np.full(100, np.nan))


def test_test_of_an_ensemble_under_a_high_rate_stops_early(splits: Splits):
    config = replace(CONFIG, train=replace(CONFIG.train, members=3), optim=OptimConfig("adam"))
    found = search_rates(config, splits, print, 1e-3, 1e30, 80)
    assert found.has_diverged
    assert len(found.losses) < 80


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 0.0}, r"low: got 0\.0; expected a positive number"),
        ({"low": 1.0, "high": 0.1}, r"high: got 0\.1; expected a number above 1 \(low\)"),
        ({"num_rates": 3}, r"num_rates: got 3; expected a whole number of at least 10"),
    ],
)
def test_range_that_is_none_is_refused(fields: dict, message: str):
    with pytest.raises(InputError, match=message):
        search_rates(CONFIG, Splits(make_dataset(50)), print, **fields)


def test_command_draws_and_suggests(in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (in_tmp / "tiny_rates.py").write_text(EXPERIMENT)
    main(["lr-find", "tiny_rates.py", "--num-rates", "40", "--low", "1e-5", "--optim.name", "sgd"])
    said = capsys.readouterr().out
    assert re.search(r"^\d+ steps at rates from 1e-05 to ", said)
    assert re.search(r"^to train with the former: --optim\.learning-rate [\d.e-]+$", said, re.MULTILINE)
    with Image.open("rates.png") as picture:
        assert picture.format == "PNG"
    (in_tmp / "other.png").write_bytes(b"a photograph")
    for arguments, message in (
        (["tiny_rates.py", "--out", "other.png"], "out: got other.png, another file"),
        (["--low", "1"], "target: got --low; .* Write: engine lr-find convnet --low"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["lr-find", *arguments])
        assert re.search(message, capsys.readouterr().err)
    for usage in ([], ["--help"]):
        with pytest.raises(SystemExit):
            main(["lr-find", *usage])
        assert capsys.readouterr().out.startswith("usage: engine lr-find NAME|FILE")


def test_rate_is_found_in_a_notebook():
    data = make_dataset(100)
    found = engine.find_learning_rate(mlp((8,)), (data.images, data.labels), batch_size=20, num_rates=30, verbose=False)
    assert len(found.rates) == len(found.losses) <= 30

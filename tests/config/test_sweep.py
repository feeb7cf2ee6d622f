"""Sweeps: what is written becomes one setting a member; what members cannot differ in is refused."""

from typing import Any

import pytest

from engine import InputError, OptimConfig, RunConfig, TrainConfig, mlp
from engine.config.sweep import swept_columns, with_sweep

CONFIG = RunConfig("swept", mlp())


def test_values_are_spread_by_factors_or_evenly():
    swept = with_sweep(CONFIG, ["optim.learning-rate=1e-4:1e-1:log:4"])
    assert swept.ensemble.learning_rates == (1e-4, 1e-3, 1e-2, 1e-1)
    assert (swept.train.members, swept.ensemble.shared_seed, swept.ensemble.select_best) == (4, True, True)
    assert with_sweep(CONFIG, ["train.label_smoothing=0:0.2:linear:3"]).ensemble.label_smoothings == (0, 0.1, 0.2)


def test_several_fields_give_each_combination():
    swept = with_sweep(CONFIG, {"optim.learning_rate": [1e-3, 1e-2], "optim.beta_1": [0.8, 0.9, 0.95]})
    assert swept_columns(swept) == {
        "optim.learning_rate": (1e-3,) * 3 + (1e-2,) * 3,
        "optim.beta_1": (0.8, 0.9, 0.95) * 2,
    }
    member = swept.of_member(4)
    assert (member.optim.learning_rate, member.optim.beta_1, member.train.members) == (1e-2, 0.9, 1)
    assert RunConfig.from_json(swept.to_json()) == swept


def test_no_sweep_is_no_change():
    assert with_sweep(CONFIG, ()) is CONFIG
    assert "numbers" not in CONFIG.to_json()["ensemble"]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (["train.batch_size=32,64"], r"sweep: got train\.batch_size; expected one of optim\.learning-rate, .*Optuna"),
        (["optim.learning-rate=1e-4:1e-1:log"], r"sweep: got optim\.learning-rate=1e-4:1e-1:log; expected FIELD="),
        (["optim.learning-rate=0:1:log:3"], r"expected FIELD=LOW:HIGH:log:COUNT"),
        (["optim.learning-rate"], r"expected FIELD="),
        (["optim.learning-rate=1e-3,x"], r"expected FIELD="),
        (["optim.learning-rate=1e-3"], r"expected two values or more, all different"),
        (["optim.learning-rate=1e-3,nan"], r"optim\.learning_rate: got nan; expected a finite number"),
        (["optim.learning-rate=1e-3,-1"], r"optim\.learning_rate: got -1\.0; expected a positive number"),
        (["optim.rho=0.8,0.9"], r"optim\.rho: got 0\.8; expected 0\.9 with adam, which has no such option"),
        (
            ["optim.learning-rate=1,2", "optim.learning_rate=3,4"],
            r"sweep: got optim\.learning_rate twice; expected each",
        ),
        (None, r"sweep: got None; expected fields with their values"),
        ("optim.beta_1=1,2", r"sweep: got 'optim\.beta_1=1,2'; expected fields with their values"),
        ({"optim.learning_rate": 0.1}, r"sweep: got optim\.learning_rate with 0\.1; expected a list of numbers"),
        ({"optim.learning_rate": ["a", "b"]}, r"expected a list of numbers"),
        (["optim.learning-rate=1e-4:1:log:40", "optim.beta-1=0.1:0.9:linear:40"], r"got 1,600 members"),
    ],
)
def test_what_cannot_be_swept_is_refused(sweep: Any, message: str):
    with pytest.raises(InputError, match=message):
        with_sweep(CONFIG, sweep)


def test_sweep_beside_members_or_folds_is_refused():
    for train in (TrainConfig(members=2), TrainConfig(folds=3)):
        with pytest.raises(InputError, match=r"train\.members: got [23]; expected 1 with a sweep"):
            with_sweep(RunConfig("swept", mlp(), train=train, optim=OptimConfig()), ["optim.learning-rate=1,2"])

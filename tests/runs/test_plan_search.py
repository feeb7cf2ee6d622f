"""The plan of a run: by rule, by measurement, from a file; kept with the checkpoint and used again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine import __main__
from engine.checkpoints.run_directory import open_run
from engine.checkpoints.steps import choose_step, read_record
from engine.config import PlanConfig, RunConfig, TrainConfig
from engine.config.plan import Plan, given_plan
from engine.data.decoded.dataset import Splits
from engine.errors import InputError
from engine.host.clock import Clock
from engine.models import Dense, Flatten, Sequential
from engine.report.progress import Silent
from engine.runs import loop, plan_search
from tests.conftest import TINY


def run(config: RunConfig, splits: Splits, path: Path, resume: bool = False):
    path.mkdir(exist_ok=True)
    record = open_run(path, config, resume=resume, overwrite=False)
    loop.train(config, splits, path, Clock(), Silent(), record)
    return read_record(path, choose_step(path, "last"))


@pytest.fixture(autouse=True)
def nothing_measured_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(plan_search, "MEASURED_SECONDS", 0.01)
    monkeypatch.setattr(plan_search, "ROUNDS", 1)


@pytest.fixture
def ensemble() -> RunConfig:
    return RunConfig("pair", TINY, train=TrainConfig(1, 64, members=2))


def pinned(config: RunConfig, mode: str) -> RunConfig:
    return replace(config, plan=replace(config.plan, mode=mode))


@pytest.fixture
def measured_rates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every measurement; vmap wins it."""
    calls: list[int] = []

    def rates(config: RunConfig, sample) -> dict[Plan, float]:
        calls.append(len(sample))
        return {Plan("matrix", member_mapping="outer"): 10.0, Plan("matrix", member_mapping="vmap"): 20.0}

    monkeypatch.setattr(plan_search, "_rates", rates)
    return calls


def test_fast_plan_is_what_a_measurement_of_all_open_choices_finds(ensemble, splits, tmp_path):
    record = run(pinned(ensemble, "fast"), splits, tmp_path / "run")
    assert {each.plan.member_mapping for each in record.alternatives} == {"outer", "vmap"}
    assert record.alternatives[0].images_per_second >= record.alternatives[1].images_per_second > 0
    assert record.plan.member_mapping == record.alternatives[0].plan.member_mapping


def test_measurement_is_kept_for_the_same_model_batch_and_data_shape(measured_rates, ensemble, splits, tmp_path):
    config = pinned(ensemble, "fast")
    plans = [run(config, splits, tmp_path / name).plan for name in ("one", "two")]
    assert [plan.member_mapping for plan in plans] == ["vmap", "vmap"]
    assert len(measured_rates) == 1
    run(replace(config, train=replace(config.train, batch_size=32)), splits, tmp_path / "three")
    assert len(measured_rates) == 2


def test_auto_measures_only_long_runs_whose_rule_is_not_clear(measured_rates, monkeypatch, ensemble, splits, tmp_path):
    assert run(ensemble, splits, tmp_path / "short").plan.member_mapping == "outer"
    monkeypatch.setattr(plan_search, "WORTH_MEASURING", 100)
    assert run(ensemble, splits, tmp_path / "tenth").plan.member_mapping == "outer"  # measuring would take longer
    monkeypatch.setattr(plan_search, "MOST_SHARE", 1000.0)
    single = replace(ensemble, train=TrainConfig(1, 64))
    assert run(single, splits, tmp_path / "single").alternatives == ()
    told = replace(ensemble, plan=PlanConfig(member_mapping="map"))
    assert run(told, splits, tmp_path / "told").plan.member_mapping == "map"
    assert measured_rates == []
    assert run(ensemble, splits, tmp_path / "long").plan.member_mapping == "vmap"
    assert measured_rates == [200]


def test_safe_plan_is_the_backends_own(ensemble, splits, tmp_path):
    plan = run(pinned(ensemble, "safe"), splits, tmp_path / "run").plan
    assert (plan.lowering, plan.member_mapping) == ("xla", "outer")


def test_resumed_run_keeps_its_plan_and_needs_no_measurement(measured_rates, ensemble, splits, tmp_path):
    run(pinned(ensemble, "fast"), splits, tmp_path / "run")
    longer = replace(ensemble, train=replace(ensemble.train, epochs=2))
    record = run(longer, splits, tmp_path / "run", resume=True)
    assert record.plan.member_mapping == "vmap"
    assert len(record.alternatives) == 2
    assert len(measured_rates) == 1


def test_what_the_config_pins_goes_before_a_given_plan():
    given, chosen = (
        Plan("xla", True, member_mapping="vmap", placement="streamed"),
        Plan("matrix", member_mapping="outer"),
    )
    assert given_plan(PlanConfig(), chosen, given) == given
    assert given_plan(PlanConfig("matrix", placement="resident", member_mapping="outer"), chosen, given) == chosen


def test_plan_written_by_the_command_is_taken_for_the_same_run_alone(
    measured_rates, ensemble, splits, tmp_path, capsys
):
    run(pinned(ensemble, "fast"), splits, tmp_path / "run")
    file = tmp_path / "plan.json"
    __main__.main(["plan", str(tmp_path / "run"), "--out", str(file)])
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if "chosen" in line and "vmap" in line and "20" in line]
    assert run(pinned(ensemble, str(file)), splits, tmp_path / "same").plan.member_mapping == "vmap"
    other = pinned(replace(ensemble, model=Sequential((Flatten(), Dense()))), str(file))
    with pytest.raises(InputError, match=r"plan: got .*plan.json, a plan for another \(model"):
        run(other, splits, tmp_path / "other")
    text = json.loads(file.read_text(encoding="utf-8"))
    text["made_for"]["device"] = "gpu: 8 × H100"
    file.write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(InputError, match=r"device: made for 'gpu: 8 × H100', this is 'cpu"):
        run(pinned(ensemble, str(file)), splits, tmp_path / "elsewhere")


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"kind": "Plan"}', "\x00"])
def test_file_that_holds_no_plan_is_refused(ensemble, splits, tmp_path, text):
    file = tmp_path / "plan.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"plan.json"):
        run(pinned(ensemble, str(file)), splits, tmp_path / "run")


def test_plan_that_was_pinned_is_shown_unmeasured_and_the_file_beside_it_can_be_read(
    measured_rates, ensemble, splits, tmp_path, capsys
):
    run(replace(ensemble, plan=PlanConfig("xla", member_mapping="map")), splits, tmp_path / "run")
    file = tmp_path / "plan.json"
    __main__.main(["plan", str(tmp_path / "run"), "--out", str(file)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "chosen" in line]
    assert "map" in line
    assert "–" in line
    assert "NaN" not in file.read_text(encoding="utf-8")


def test_command_measures_what_the_run_did_not(ensemble, splits, tmp_path, capsys):
    run(ensemble, splits, tmp_path / "run")
    __main__.main(["plan", str(tmp_path / "run")])
    lines = [line for line in capsys.readouterr().out.splitlines() if "outer" in line or "vmap" in line]
    assert len(lines) == 2
    assert sum("chosen" in line for line in lines) == 1


def test_plan_that_is_slower_than_another_is_shown_with_the_reason(monkeypatch, ensemble, splits, tmp_path, capsys):
    plan = run(ensemble, splits, tmp_path / "short").plan  # by rule one after another; measured later, vmap is faster
    rates = {plan: 10.0, replace(plan, member_mapping="vmap"): 20.0}
    monkeypatch.setattr(plan_search, "_rates", lambda *_: rates)
    __main__.main(["plan", str(tmp_path / "short")])
    shown = capsys.readouterr().out.splitlines()
    (vmap,), (outer,) = ([line for line in shown if members in line] for members in ("vmap", "outer"))
    assert "fastest" in vmap
    assert "chosen" in outer
    assert shown[-1].startswith("the run's plan was set by rule, without measuring, which pays from 200,000 training")
    __main__.main(["plan", str(tmp_path / "short"), "--measure"])
    rates[plan] = 30.0
    capsys.readouterr()
    __main__.main(["plan", str(tmp_path / "short"), "--measure"])
    again = capsys.readouterr().out
    assert "chosen" in again
    assert "fastest" not in again
    assert "own plan" not in again


def test_command_measures_again_where_it_is_asked_to(measured_rates, ensemble, splits, tmp_path, capsys):
    run(pinned(ensemble, "fast"), splits, tmp_path / "run")
    __main__.main(["plan", str(tmp_path / "run"), "--measure"])
    assert len(measured_rates) == 2

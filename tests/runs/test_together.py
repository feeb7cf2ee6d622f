"""Several processes act on one plan."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.plan import Plan
from engine.records import to_json
from engine.runs import together

OWN = Plan("direct", chunk_steps=20, placement="resident", cache_megabytes=900)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_memory_is_that_of_the_process_with_least(rank: int, monkeypatch: pytest.MonkeyPatch):
    """Each process would plan otherwise; in each of them all come to the same."""
    plans = [OWN, replace(OWN, placement="streamed", chunk_steps=30), replace(OWN, cache_megabytes=7)]
    monkeypatch.setattr(together, "are_several", lambda: True)
    monkeypatch.setattr(together, "make_plan", lambda: plans[rank])
    monkeypatch.setattr(together, "all_succeed", lambda make: make())
    monkeypatch.setattr(together, "exchange", lambda own: [to_json(plan) for plan in plans] if own else [])
    assert together.plan_together() == replace(OWN, placement="streamed", cache_megabytes=7)


def test_plans_that_agree_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(together, "are_several", lambda: True)
    monkeypatch.setattr(together, "make_plan", lambda: OWN)
    monkeypatch.setattr(together, "all_succeed", lambda make: make())
    monkeypatch.setattr(together, "exchange", lambda own: [own, own])
    assert together.plan_together() == OWN


def test_processes_that_see_other_checkpoints_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Process 1 sees fewer than process 0, process 2 none of the directory, process 3 the same."""
    for step in (40, 1200):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
        (tmp_path / "checkpoints" / str(step) / "record").mkdir()
        (tmp_path / "checkpoints" / str(step) / "record" / "metadata").touch()
    own: list[Any] = []

    def exchange(value: Any) -> list[Any]:
        own.append(value)
        return [["node7", [40, 1200]], ["node8", [40]], ["node9", None], ["node9", [40, 1200]]]

    monkeypatch.setattr(together, "exchange", exchange)
    said: list[str] = []
    together.report_other_views(tmp_path, said.append)
    together.report_other_views(tmp_path / "elsewhere", said.append)
    assert [steps for _, steps in own] == [[40, 1200], None]
    note = "note: process 1 on node8 sees 1 checkpoint, up to step 40 in {}, process 0 2 checkpoints, up to step 1,200"
    assert [line.split(", which")[0] for line in said] == [
        note.format(tmp_path), note.format(tmp_path / "elsewhere"),
    ]  # fmt: skip

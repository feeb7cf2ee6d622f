"""Several processes act on one plan."""

from dataclasses import replace

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

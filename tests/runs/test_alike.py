"""What the processes of a run must have in common: who differs is named. Whole runs are in tests/processes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import engine
from engine.config import RunConfig
from engine.data.decoded.dataset import Splits
from engine.models import Dense, Flatten, Sequential
from engine.runs import alike

CONFIG = RunConfig("alike", Sequential((Flatten(), Dense())))


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """compare(check_of_0, check_of_1): what the second process does with what both have said of themselves."""
    said: list[dict[str, Any]] = []

    def exchange(own: dict[str, Any], _seconds: float) -> list[dict[str, Any]]:
        said.append({**own, "host": f"node{len(said)}"})
        return list(said)

    monkeypatch.setattr(alike, "are_several", lambda: True)
    monkeypatch.setattr(alike, "exchange", exchange)

    def check(*checks: Callable[[], None]) -> None:
        for each in checks:
            each()

    return check


def load(images: np.ndarray) -> Splits:
    return Splits(engine.dataset(images, np.arange(len(images)) % 2), None, None)


def test_another_version_of_jax_on_one_host_is_named(compare, monkeypatch: pytest.MonkeyPatch):
    usual = alike.versions()

    def start_with_another() -> None:
        monkeypatch.setattr(alike, "versions", lambda: {**usual, "jax": "0.3.1"})
        alike.check_same_start(CONFIG)

    with pytest.raises(engine.InputError) as caught:
        compare(lambda: alike.check_same_start(CONFIG), start_with_another)
    text = str(caught.value)
    assert "distributed: got other settings or data in process 1 on node1; expected those of process 0" in text
    assert f"versions.jax: on node0 (process 0) '{usual['jax']}', there '0.3.1'" in text
    assert "in the same environment" in text


def test_data_of_which_one_picture_differs_are_named(compare):
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 1), np.uint8)
    others = images.copy()
    others[13, 2, 1] ^= 1
    with pytest.raises(engine.InputError, match=r"(?s)process 1 on node1; .*Copy the data of process 0 there.*data: "):
        compare(lambda: alike.check_same_data(load(images)), lambda: alike.check_same_data(load(others)))


def test_processes_that_are_alike_go_on(compare):
    images = np.zeros((4, 2, 2, 1), np.uint8)
    compare(*[lambda: alike.check_same_data(load(images))] * 2)

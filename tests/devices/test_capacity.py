"""Models and batches that memory does not hold are answered in a line, with advice that works."""

import re
from typing import Any

import jax
import numpy as np
import pytest

import engine
from engine.config import OptimConfig
from engine.devices.capacity import OutOfMemory, memory_errors
from engine.models import Conv, Dense, Dropout, Flatten, GlobalAveragePool, Sequential
from engine.models.layers import Layer
from tests.conftest import make_dataset

MEGABYTE = 2**20


def fit(*layers: Layer, free: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> engine.Result:
    for module in ("devices.capacity", "training.memory"):
        monkeypatch.setattr(f"engine.{module}.free_device_bytes", lambda: free)
    data = make_dataset(64)
    return engine.fit(Sequential(layers), data, **{"epochs": 1, "validation": None, "verbose": False, **options})


def test_model_that_memory_does_not_hold_is_refused_with_its_largest_layer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.runs.stage.Stage.make_first_state", lambda *_: pytest.fail("allocated"))
    layers = (Conv(2, 1), Flatten(), Dropout(0.1), Dense(5000), Dense())
    with pytest.raises(engine.InputError) as raised:
        fit(*layers, free=10 * MEGABYTE, monkeypatch=monkeypatch)
    size = np.prod(make_dataset(1).input_shape[:2]) * 2
    said = str(raised.value)
    assert "model: got parameters of" in said
    assert "expected at most the 10.0 MiB of memory that are free" in said
    assert f"The largest layer is dense_1 ({size}×5000, " in said
    assert "from Flatten. Use GlobalAveragePool() in place of Flatten()" in said


def test_advice_for_a_model_is_right(monkeypatch: pytest.MonkeyPatch):
    fit(Conv(2, 1), GlobalAveragePool(), Dense(500), Dense(), free=10 * MEGABYTE, monkeypatch=monkeypatch, batch_size=8)


@pytest.mark.parametrize(("optim", "members", "copies"), [("sgd", 1, 2), ("adam", 1, 4), ("adam", 3, 10)])
def test_copies_of_parameters_are_those_of_the_optimizer_and_of_members(
    optim: Any, members: int, copies: int, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(engine.InputError, match="model: got parameters of") as raised:
        fit(Flatten(), Dense(5000), Dense(), free=1000, monkeypatch=monkeypatch, optimizer=OptimConfig(optim),
            members=members)  # fmt: skip
    one, whole = re.findall(r"([\d,.]+) MiB", str(raised.value))[:2]
    assert float(whole) == pytest.approx(copies * float(one), rel=0.02)


def test_batch_that_memory_does_not_hold_is_refused_with_one_that_it_holds(monkeypatch: pytest.MonkeyPatch):
    layers = (Conv(64, 3, activation="gelu"), Conv(64, 3, activation="gelu"), GlobalAveragePool(), Dense())
    free = 1 * MEGABYTE
    with pytest.raises(engine.InputError, match=r"train.batch_size: got 64, whose steps take .* Give \d+,") as raised:
        fit(*layers, free=free, monkeypatch=monkeypatch)
    advised = int(re.findall(r"Give (\d+)", str(raised.value))[0])
    assert 1 <= advised < 64
    fit(*layers, free=free, monkeypatch=monkeypatch, batch_size=advised)


def test_what_xla_says_of_memory_becomes_a_line_and_nothing_else_does():
    said = r"memory: got more for train; expected at most the .* that are free"
    with pytest.raises(OutOfMemory, match=said), memory_errors("train"):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 78643200000 bytes.")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory_errors("train"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_memory_that_ends_while_training_is_answered_with_the_batch_size(monkeypatch: pytest.MonkeyPatch):
    def train(*_: Any, **__: Any) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 1 bytes.")

    monkeypatch.setattr("engine.training.program.Program.train", train)
    with pytest.raises(engine.InputError, match=r"train.batch_size: got 32, whose steps take more memory.* Give 16,"):
        fit(Flatten(), Dense(), free=2**40, monkeypatch=monkeypatch, batch_size=32)

"""Direct convolutions: when they run, when not, and what a run does then. What they compute: test_ops.py."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.config import PlanConfig, RunConfig, TrainConfig
from engine.data.decoded.dataset import Splits
from engine.errors import InputError
from engine.kernels import ffi
from engine.kernels.libraries import CONVOLUTIONS
from engine.kernels.lowerings import choose_lowering, evaluation_lowering
from engine.kernels.windows import Window
from engine.models import Conv, Dense, Flatten, MaxPool, Sequential
from tests.runs.test_plan_search import run

NET = Sequential((Conv(16, activation="relu"), MaxPool(), Flatten(), Dense()))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONVOLUTIONS, "is_available", lambda: False)
    monkeypatch.setattr(CONVOLUTIONS, "load", lambda: None)


def test_without_the_library_convolutions_are_eigens_and_evaluation_the_backends(no_compiler: None):
    assert choose_lowering(PlanConfig(), "cpu") == "eigen"
    assert evaluation_lowering(PlanConfig()) == "xla"


@pytest.mark.skipif(not ffi.is_available(), reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("config", "lowering", "of_evaluation"),
    [
        (PlanConfig(), "direct", "direct"),
        (PlanConfig(mode="safe"), "xla", "xla"),
        (PlanConfig(lowering="eigen"), "eigen", "xla"),
        (PlanConfig(mesh="data=2"), "matrix", "direct"),
    ],
)
def test_with_the_library_convolutions_are_direct_unless_something_else_is_asked_for(
    config: PlanConfig, lowering: str, of_evaluation: str
):
    assert (choose_lowering(config, "cpu"), evaluation_lowering(config)) == (lowering, of_evaluation)


def test_direct_convolutions_are_refused_where_they_do_not_run(no_compiler: None):
    with pytest.raises(InputError, match=r"plan\.lowering: got 'direct'; expected another .* C\+\+"):
        choose_lowering(PlanConfig(lowering="direct"), "cpu")
    with pytest.raises(InputError, match=r"plan\.lowering: got 'direct' with the mesh data=2; expected another"):
        choose_lowering(PlanConfig(lowering="direct", mesh="data=2"), "cpu")


@pytest.mark.skipif(not ffi.is_available(), reason="needs a C++ compiler")
def test_run_that_was_begun_directly_goes_on_where_there_is_no_compiler(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = RunConfig("net", NET, train=TrainConfig(1, 64))
    assert run(config, splits, tmp_path / "run").plan.lowering == "direct"
    monkeypatch.setattr(CONVOLUTIONS, "is_available", lambda: False)
    monkeypatch.setattr(CONVOLUTIONS, "load", lambda: None)
    longer = replace(config, train=replace(config.train, epochs=2))
    record = run(longer, splits, tmp_path / "run", resume=True)
    assert (record.plan.lowering, record.epochs_done) == ("eigen", 2)


@pytest.mark.skipif(not ffi.is_available(), reason="needs a C++ compiler")
@pytest.mark.parametrize("filters", [16, 32, 48])
def test_pools_of_thin_images_write_their_windows_and_nothing_else(filters: int):
    """13 windows of 16 filters, which blocks of 6 and 5 do not add up to, were written as 15: beyond the memory."""
    draw, window, pool = np.random.default_rng(filters), Window((3, 3), (1, 1)), Window((2, 2), (2, 2))
    kernel, bias = draw.normal(size=(3, 3, 1, filters)).astype(np.float32), np.ones(filters, np.float32)
    assert ffi.CONVOLUTIONS.load()
    for windows in (1, 12, 13, 14, 19, 25):
        images = draw.normal(size=(32, 4, 2 * windows + 2, 1)).astype(np.float32)
        found, _ = ffi.convolve(jnp.asarray(images), jnp.asarray(kernel), jnp.asarray(bias), window, pool, False)
        maps = jax.lax.conv(images.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), "VALID") + 1
        expected = np.asarray(maps).reshape(32, filters, 1, 2, windows, 2).max((3, 5)).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

"""The search for batch sizes: it doubles until one does not fit or the examples are all, and measures each."""

import re
import sys
from pathlib import Path

import pytest

import engine
from engine import RunConfig, Splits, TrainConfig
from engine.__main__ import main
from engine.models import mlp
from engine.runs import batch_finder
from engine.runs.batch_finder import BatchSearch, BatchTrial, search_batch_sizes
from tests.conftest import make_dataset
from tests.runs.test_lr_finder import EXPERIMENT

CONFIG = RunConfig("b", mlp((64,)), train=TrainConfig(accumulate=2))


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_finder, "MEASURED_SECONDS", 0.01)


def test_sizes_double_to_the_examples_and_to_the_memory(monkeypatch: pytest.MonkeyPatch):
    splits = Splits(make_dataset(200))
    found = search_batch_sizes(CONFIG, splits, print, 25)
    assert [each.batch_size for each in found.trials] == [25, 50, 100, 200]
    assert found.end == "400 is more than the 200 training examples"
    assert all(each.images_per_second > 0 for each in found.trials)
    bytes_of = [each.step_bytes for each in found.trials]
    assert None not in bytes_of
    assert bytes_of[1] < bytes_of[2] < bytes_of[3]  # type: ignore[operator]  # of 25, in one part, it may be more
    monkeypatch.setattr("engine.devices.capacity.free_device_bytes", lambda: max(bytes_of[:3]))  # type: ignore[type-var]
    less = search_batch_sizes(CONFIG, splits, print, 25)
    assert less.largest == 100
    assert re.match(r"200 does not fit: train\.batch_size: got 200, whose steps take", less.end)


def test_suggestion_is_the_smallest_that_is_about_as_fast_as_the_fastest():
    speeds = {16: 100.0, 32: 190.0, 64: 196.0, 128: 198.0}
    found = BatchSearch(tuple(BatchTrial(size, None, speed) for size, speed in speeds.items()), "")
    assert found.suggestion == 32
    assert found.largest == 128


def test_range_that_is_none_is_refused():
    with pytest.raises(engine.InputError, match=r"largest: got 8; expected a whole number of at least 16"):
        search_batch_sizes(CONFIG, Splits(make_dataset(50)), print, 16, 8)


def test_command_shows_a_table(in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (in_tmp / "tiny_batches.py").write_text(EXPERIMENT)
    main(["batch-find", "tiny_batches.py", "--largest", "32"])
    said = capsys.readouterr().out
    assert "64 is more than the 32 as the largest to try" in said
    assert re.search(r"about as fast as the fastest: --train\.batch-size (16|32)", said)


def test_batch_size_is_found_in_a_notebook():
    data = make_dataset(100)
    found = engine.find_batch_size(mlp((8,)), (data.images, data.labels), smallest=30, validation=0.1, verbose=False)
    assert [each.batch_size for each in found.trials] == [30, 60]

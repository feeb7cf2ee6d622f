"""`engine batch-find`: each size is reported as soon as it is measured, and stays when the search is stopped."""

from pathlib import Path

import pytest

from engine.commands import finders
from engine.runs import batch_finder
from engine.runs.batch_finder import BatchSearch, BatchTrial
from tests.conftest import make_dataset


def test_rows_come_one_by_one_and_stay_after_ctrl_c(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def search(config, splits, say, smallest, largest, on_trial) -> BatchSearch:
        on_trial(BatchTrial(16, 2**20, 1234.0))
        assert "batch size 16: 1,234 images/s, 1.0 MiB a step" in capsys.readouterr().err
        on_trial(BatchTrial(32, None, 2345.0))
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_finder, "search_batch_sizes", search)
    monkeypatch.setattr(finders, "_load", lambda config: make_dataset(9))
    with pytest.raises(KeyboardInterrupt):
        finders.find_batch(["mlp"])
    shown = capsys.readouterr()
    assert "batch size 32: 2,345 images/s\n" in shown.err
    assert "1,234" in shown.out
    assert "2,345" in shown.out

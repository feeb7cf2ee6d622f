"""Progress lines: epochs and not steps, and no time left before it can be known."""

import re

import pytest

from engine.config.plan import Plan
from engine.report.progress import Reporter, progress_text
from engine.text import rate_text
from engine.training.program import Pacer


@pytest.mark.parametrize(
    ("step", "shown"),
    [(0, "epoch 1/5    0 %"), (1, "epoch 1/5   10 %"), (10, "epoch 1/5  100 %"), (11, "epoch 2/5   10 %"),
     (50, "epoch 5/5  100 %")],
)  # fmt: skip
def test_progress_is_the_epoch_and_how_much_of_it_is_done(step: int, shown: str):
    assert progress_text(step, 50, 5) == shown


def test_slow_rates_are_not_none():
    rates = [rate_text(rate) for rate in (0.0, 0.0123, 0.5, 9.94, 10.4, 12345.6)]
    assert rates == [f"{number} images/s" for number in ("0", "0.012", "0.5", "9.9", "10", "12,346")]


def test_time_left_is_shown_once_the_rate_is_settled(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr("engine.report.progress.LINE_SECONDS", -1.0)
    reporter, pacer = Reporter(), Pacer(Plan("xla", False))
    for seconds in (5.0, 0.1, 0.1):
        steps = pacer.steps(1000)
        pacer.ran(steps, seconds)
        left = 10 * pacer.seconds_per_step if pacer.is_settled else None
        reporter.advance(steps, 50, 5, 64.0, {"loss": 1.0}, left)
    lines = capsys.readouterr().out.splitlines()
    assert [bool(re.search(r"ETA \d:\d\d$", line)) for line in lines] == [False, False, True]
    assert not [line for line in lines if "step" in line]


def test_detail_is_printed_by_a_verbose_reporter_and_logged_by_all(capsys: pytest.CaptureFixture[str], tmp_path):
    for is_verbose in (False, True):
        reporter, log = Reporter(is_verbose=is_verbose), tmp_path / f"{is_verbose}.txt"
        reporter.detail("xla lowering")
        reporter.log_to(log)
        assert (capsys.readouterr().out == "xla lowering\n") == is_verbose
        assert log.read_text() == "xla lowering\n"

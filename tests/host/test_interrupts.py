"""Signals: those that Python loses. What a run does after one: test_resume.py and tests/faults."""

import contextlib
import signal

import pytest

from engine.host.interrupts import SIGNALS, Interrupted, defer_signals, raised


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_whose_exception_got_lost_in_a_callback_stops_the_loop_that_follows(number: signal.Signals):
    with raised():
        with contextlib.suppress(Interrupted):  # as Python does in a callback of its garbage collector
            signal.raise_signal(number)
        with defer_signals() as stop:
            assert stop.signal_number == number
    with defer_signals() as stop:
        assert not stop

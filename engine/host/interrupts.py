"""Ctrl-C and SIGTERM as a request to stop, handled between two compiled calls, when everything can be saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_last_raised: int | None = None  # Python swallows exceptions raised in callbacks, of its garbage collector for instance
UNSAVED = "stopped; what was saved before stays"


class Interrupted(KeyboardInterrupt):
    """Work was stopped by a signal; the message says what was saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class StopRequest:
    """The signal that requested a stop, if any."""

    def __init__(self):
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextlib.contextmanager
def defer_signals() -> Iterator[StopRequest]:
    """Turns the first signal into a request to stop; a second one acts immediately. Only in the main thread.

    If `raised` raised a signal before and the exception got lost, the stop is requested from the start.
    """
    stop = StopRequest()
    stop.signal_number = _last_raised
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: Any) -> None:
        if stop:
            raise Interrupted(UNSAVED, number)
        stop.signal_number = number

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Lets each signal raise Interrupted if it would otherwise end the process without a message."""
    global _last_raised

    def stop(number: int, frame: Any) -> None:
        global _last_raised
        _last_raised = number
        raise Interrupted(UNSAVED, number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in SIGNALS} if is_main else {}
    try:
        yield
    finally:
        _last_raised = None
        for number, handler in before.items():
            signal.signal(number, handler)

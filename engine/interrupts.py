"""Ctrl-C and SIGTERM as a wish that the loop grants between two compiled calls, when everything can be saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNSAVED = "stopped; what was saved before stays"


class Interrupted(KeyboardInterrupt):
    """Work was stopped by a signal; the message says what was saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class Wish:
    """Which signal asked for a stop, if any."""

    def __init__(self):
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextlib.contextmanager
def deferred() -> Iterator[Wish]:
    """Turns the first signal into a wish; a second one acts at once. Outside the main thread nothing changes."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: Any) -> None:
        if wish:
            raise Interrupted(UNSAVED, number)
        wish.signal_number = number

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Lets each signal raise Interrupted, as Ctrl-C raises KeyboardInterrupt, where it would end the process unsaid."""

    def stop(number: int, frame: Any) -> None:
        raise Interrupted(UNSAVED, number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in SIGNALS} if is_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Seconds by kind (data, compile, train, eval, save). What is measured must itself wait for the device."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator


class Clock:
    """Adds up what each kind of work took."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.started = time.perf_counter()

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Adds the seconds spent in the block to `kind`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - start

    def total_seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started

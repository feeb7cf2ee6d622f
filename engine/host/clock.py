"""Seconds by kind (data, compile, train, eval, save). The measured code must itself wait for the device."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator


class Clock:
    """Adds up the time of each kind of work. Work measured inside other work counts for its own kind only."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.started = time.perf_counter()
        self._inner_seconds = [0.0]

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Adds the seconds spent in the block to `kind`."""
        start = time.perf_counter()
        self._inner_seconds.append(0.0)
        try:
            yield
        finally:
            whole = time.perf_counter() - start
            self.seconds[kind] += whole - self._inner_seconds.pop()
            self._inner_seconds[-1] += whole

    def total_seconds(self) -> float:
        """Seconds since the clock was created."""
        return time.perf_counter() - self.started

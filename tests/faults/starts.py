"""Starts of several processes: all join, compare their configs, add up a number, and end well, without a hang."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.faults.forked import fork
from tests.faults.several import find_port, killing, numbers_of

HANG_SECONDS = 70.0


def start_often(directory: Path, count: int, starts: int) -> list[tuple[float, list[str]]]:
    """(seconds, how those ended that did not end well) of each start."""
    found = []
    for number in range(starts):
        address, begun = f"127.0.0.1:{find_port()}", time.monotonic()
        home = directory / f"start {number} {time.time_ns()}"
        processes = [
            fork(partial(_start, count), home / str(rank), numbers_of(address, count, rank, directory / "cache"))
            for rank in range(count)
        ]
        failures = []
        with killing(processes):
            for rank, process in enumerate(processes):
                try:
                    outcome = process.end(max(0.1, HANG_SECONDS - (time.monotonic() - begun)))
                except AssertionError as error:
                    failures.append(f"process {rank}: {error}")
                else:
                    failures += [f"process {rank}: {outcome.told()}"] if outcome.code or outcome.errors else []
        found.append((time.monotonic() - begun, failures))
    return found


def median_of(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def _start(count: int) -> None:
    from engine.commands.process import errors_as_lines, join_others, set_up_process
    from engine.processes.ends import leave_together
    from engine.processes.together import agree
    from engine.runs.alike import check_same_start
    from tests.faults.runs import CASES_OF_SEVERAL

    with errors_as_lines(is_run=True):
        join_others(None)
        set_up_process()
        check_same_start(CASES_OF_SEVERAL["small"]())
        assert agree(1.0) == (1.0,)
        leave_together()

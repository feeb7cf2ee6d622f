"""Runs that are brought to a random moment, and ended there."""

import re
import shutil
import time
from collections.abc import Callable
from typing import Any

from tests.faults.processes import Started
from tests.faults.rounds import Round

ATTEMPTS = 5


def kill(round: Round, start_and_wait: Callable[[], Started]) -> None:
    """Kills a run at the moment that `start_and_wait` waits for; again from the start if it was over before."""
    for _ in range(ATTEMPTS):
        if round.killed(start_and_wait()):
            return
        shutil.rmtree(round.run_dir)
    raise AssertionError(f"no run could be killed in {ATTEMPTS} attempts")


def ends_itself(round: Round, faults: Callable[[], dict[str, Any]]) -> None:
    """Kills a run from inside, as the faults drawn for each attempt say; goes on and compares."""
    for _ in range(ATTEMPTS):
        process = round.start(**faults())
        if round.was_killed(process, process.end()):
            round.resume_and_compare()
            return
        shutil.rmtree(round.run_dir)
    raise AssertionError(f"no run could be killed in {ATTEMPTS} attempts")


def after(process: Started, seconds: float) -> Started:
    """The run so many seconds later."""
    time.sleep(seconds)
    return process


def at(round: Round, pattern: str, most_seconds: float, first: int = 1) -> Started:
    """A run that has come to one of the lines of the reference's trace that match, and a random moment further."""
    count = sum(re.match(pattern, line) is not None for line in round.reference.trace)
    process = round.start()
    process.reaches(pattern, round.random.randint(first, max(first, count - 1)))
    return after(process, round.random.uniform(0, most_seconds))


def at_line(round: Round, number: int, most_seconds: float) -> Started:
    """A run that has told so many lines of its work, and a random moment further."""
    process = round.start()
    process.reaches("", number)
    return after(process, round.random.uniform(0, most_seconds))

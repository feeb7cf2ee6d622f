"""KILLS end a run at a random moment; what was saved must be there, and the run go on to the same end."""

import re
from collections.abc import Callable

from tests.faults.moments import after, at, at_line, ends_itself, kill
from tests.faults.processes import REMOVAL
from tests.faults.rounds import Round


def kill_anywhere(round: Round) -> None:
    """After a random time, imports included."""
    kill(round, lambda: after(round.start(), round.random.uniform(0, round.reference.seconds)))
    round.resume_and_compare()


def kill_compiling(round: Round) -> None:
    """While XLA compiles, with an empty cache, or stores what it compiled: the cache must not be harmed either."""
    round.cache = round.directory / "cache"
    kill(round, lambda: at(round, "> compile", 0.3))
    round.resume_and_compare()


def kill_in_chunk(round: Round) -> None:
    """While steps are computed."""
    _kill_after(round, "> train", 0.002)


def kill_saving(round: Round) -> None:
    """From the start of a save on, most of which is done beside the training."""
    kill(round, lambda: at(round, "> save", 0.1))
    round.resume_and_compare()


def kill_evaluating(round: Round) -> None:
    """While the validation data is evaluated, or at the end all of it."""
    _kill_after(round, "> eval", 0.004)


def kill_rotating(round: Round) -> None:
    """Right before some file of an old checkpoint is removed."""
    _kill_at_operation(round, REMOVAL)


def kill_at_file(round: Round) -> None:
    """Right before some file below the run's directory is opened to write, made, renamed or removed."""
    _kill_at_operation(round, "file ")


def kill_finishing(round: Round) -> None:
    """After the last step is trained: while it is saved, evaluated and drawn."""
    lines = round.reference.trace
    last = max(index for index, line in enumerate(lines) if line == "< train")
    kill(round, lambda: at_line(round, round.random.randint(last + 2, len(lines) - 1), 0.05))
    round.resume_and_compare()


def kill_twice(round: Round) -> None:
    """Killed, gone on with, and killed again before it could finish."""
    lines = len(round.reference.trace)
    kill(round, lambda: at_line(round, round.random.randint(1, lines // 2), 0.05))
    process = at_line(round, round.random.randint(1, lines // 3), 0.05)
    round.killed(process)
    round.resume_and_compare()


KILLS: dict[str, Callable[[Round], None]] = {
    "killed anywhere": kill_anywhere,
    "killed compiling": kill_compiling,
    "killed in a chunk": kill_in_chunk,
    "killed saving": kill_saving,
    "killed evaluating": kill_evaluating,
    "killed rotating": kill_rotating,
    "killed at a file": kill_at_file,
    "killed finishing": kill_finishing,
    "killed twice": kill_twice,
}


def _kill_at_operation(round: Round, pattern: str) -> None:
    operations = [line for line in round.reference.trace if line.startswith("file ")]
    numbers = [number for number, line in enumerate(operations) if re.match(pattern, line)]
    ends_itself(round, lambda: {"kill_at": round.random.choice(numbers)})


def _kill_after(round: Round, line: str, most_seconds: float) -> None:
    """Kills a run from inside, where a process beside it would come too late, soon after it told some line."""
    most, random = round.reference.trace.count(line), round.random
    ends_itself(round, lambda: {"kill_after": (line, random.randint(1, most - 1), random.uniform(0, most_seconds))})

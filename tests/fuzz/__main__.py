"""python -m tests.fuzz --count 100000: what every reader makes of damaged files, as a table.

Whole files of each kind (tests/fuzz/corpus) are damaged, as bytes and in their structure, and read as the commands do
that take them. Each must be read or refused (InputError, printable). Anything else is a fault: another exception, a
process that dies, more than `--seconds` or `--megabytes` for one input. Inputs are functions of (seed, number). Faults
are kept in `--keep`; the exit code is then 1.
"""

import argparse
import contextlib
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from engine import InputError
from engine.host.console import Console, Table
from engine.text import printable
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import CORPUS, TARGETS, clear
from tests.workers import answers

OUTCOMES, FAULTS = ("read", "refused"), ("crashed", "slow", "large")
GRACE_SECONDS = 60.0
START_SECONDS = 600.0


class Outcome(NamedTuple):
    """What came of one input: one of OUTCOMES or FAULTS, and words to it."""

    number: int
    name: str
    words: str


def target_of(number: int) -> str:
    """The kind of file of an input: all in turn, as often as their shares say."""
    turns = [name for name, target in TARGETS.items() for _ in range(target.share)]
    return turns[number * 37 % len(turns)]  # 37 shares no factor with their number


@cache
def seeds(target: str) -> list[Path]:
    """The corpus of a kind of file."""
    return sorted((CORPUS / target).iterdir())


def input_of(seed: int, number: int) -> tuple[str, bytes]:
    """(name of the file, its content)."""
    draw, target = Random(f"{seed} {number}"), target_of(number)
    chosen = draw.choice(seeds(target))
    content = chosen.read_bytes()
    if draw.random() > 0.01:  # some stay whole
        content = mutated(content, [path.read_bytes() for path in seeds(target)], draw, TARGETS[target].structure)
    return TARGETS[target].name or chosen.name, content


def outcome_of(number: int, target: str, name: str, content: bytes, seconds: float, megabytes: float) -> Outcome:
    """Reads one input, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (directory / name).write_bytes(content)
    start, before = time.process_time(), _peak_megabytes()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            warnings.simplefilter("ignore")
            TARGETS[target].read(directory / name)
        outcome, words = "read", ""
    except InputError as error:
        outcome, words = "refused", str(error)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(number, "crashed", f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"[:500])
    finally:
        clear(directory)
    if printable(words) != words:
        return Outcome(number, "crashed", f"control characters: {words!r}")
    if (spent := time.process_time() - start) > seconds:  # the processor's, which others' work does not lengthen
        return Outcome(number, "slow", f"{spent:.1f} s")
    if (grown := _peak_megabytes() - before) > megabytes:
        return Outcome(number, "large", f"{grown:.0f} MB")
    return Outcome(number, outcome, words)


def tell(seed: int, numbers: Sequence[int], seconds: float, megabytes: float) -> None:
    """What a worker does: a line for each input; the first is of none, when everything is loaded."""
    os.fsync = lambda descriptor: None  # nothing is to survive, and the disk would take most of the time
    said, sys.stdout = sys.stdout, None
    for target in TARGETS:
        name = TARGETS[target].name or seeds(target)[0].name
        outcome_of(0, target, name, seeds(target)[0].read_bytes(), seconds, megabytes)
    print("ready", flush=True, file=said)
    for number in numbers:
        outcome = outcome_of(number, target_of(number), *input_of(seed, number), seconds, megabytes)
        print(outcome.name, outcome.words.replace("\n", " "), sep="\t", flush=True, file=said)


def outcomes(seed: int, numbers: Sequence[int], seconds: float, megabytes: float) -> Iterator[Outcome]:
    """What came of each input, read in processes of their own, of which one that dies or hangs is replaced."""

    def command(first: int, end: int) -> list[str]:
        limits = ["--seconds", str(seconds), "--megabytes", str(megabytes)]
        return ["-m", "tests.fuzz", "--seed", str(seed), *limits, "--worker", str(first), str(end)]

    yield from map(Outcome._make, answers(command, numbers, START_SECONDS, 10 * seconds + GRACE_SECONDS))


def table_of(seed: int, found: Sequence[Outcome]) -> Table:
    """Outcomes by kind of file."""
    counts = Counter((name, outcome.name) for outcome in found for name in (target_of(outcome.number), "all"))
    table = Table("kind", *OUTCOMES, *FAULTS, heading=f"{len(found):,} damaged files, seed {seed}")
    for kind in (*TARGETS, "all"):
        table.add_row(kind, *(f"{counts[kind, name]:,}" for name in (*OUTCOMES, *FAULTS)))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads all inputs and prints the table; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the processor that an input may take")
    parser.add_argument("--megabytes", type=float, default=500.0, help="by which an input may raise the peak")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="directory for inputs that are faults")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    limits = (options.seconds, options.megabytes)
    if options.worker:
        tell(options.seed, range(*options.worker), *limits)
        return 0
    start, console = time.monotonic(), Console()
    found, faults = [], 0
    for outcome in _until_stopped(outcomes(options.seed, range(options.first, options.first + options.count), *limits)):
        found.append(outcome._replace(words=""))
        if outcome.name in FAULTS:
            faults += 1
            name, content = input_of(options.seed, outcome.number)
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{target_of(outcome.number)}-{outcome.number}-{name}").write_bytes(content)
            console.print(f"FAULT {outcome.number} ({target_of(outcome.number)}): {outcome.name}: {outcome.words}")
    console.print(table_of(options.seed, found))
    console.print(f"{time.monotonic() - start:.0f} s")
    return 1 if faults else 0


def _until_stopped(answers: Iterator[Outcome]) -> Iterator[Outcome]:
    """The answers that came before Ctrl-C, of which the table is then printed."""
    with contextlib.suppress(KeyboardInterrupt):
        yield from answers


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    with contextlib.chdir(Path(__file__).parents[2]):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        sys.exit(main())

"""python -m tests.fuzz --count 100000: what every reader makes of damaged files, as a table.

Whole files of each kind (tests/fuzz/corpus) are damaged, as bytes and in their structure, and read as the commands do
that take them. Each must be read or refused (InputError, printable). Anything else is a fault: another exception, a
process that dies, more than `--seconds` or `--megabytes` for one input. Files of weights are compared with the whole
ones: another model is "other" where the file has no checksums of what was changed, or they were made right again, and
else a fault, "unnoticed". `--only h5 keras` feeds these kinds alone. Inputs are functions of (seed, number). Faults
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
from typing import Any, NamedTuple

from engine import InputError
from engine.host.console import Console, Table
from engine.importers import hdf5
from engine.text import printable
from tests.fuzz.forked import ask_forked
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import CORPUS, TARGETS, clear
from tests.workers import answers

OUTCOMES, FAULTS = ("read", "refused", "other"), ("unnoticed", "crashed", "slow", "large")
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


@cache
def whole_models(target: str) -> frozenset[str]:
    """What the files of the corpus are, of a kind that holds models."""
    identify, found = TARGETS[target].identify, set[str]()
    for path in seeds(target) if identify else ():
        with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, contextlib.suppress(InputError):
            place = Path(scratch) / (TARGETS[target].name or path.name)
            place.write_bytes(path.read_bytes())
            found.add(identify(TARGETS[target].read(place)))  # type: ignore[misc]
    return frozenset(found)


def input_of(seed: int, number: int) -> tuple[str, bytes, bool]:
    """(name of the file, its content, whether its structure was changed with all checksums right)."""
    draw, target = Random(f"{seed} {number}"), target_of(number)
    chosen = draw.choice(seeds(target))
    content, is_structured = chosen.read_bytes(), False
    if draw.random() > 0.01:  # some stay whole
        others = [path.read_bytes() for path in seeds(target)]
        content, is_structured = mutated(content, others, draw, TARGETS[target].structure)
    return TARGETS[target].name or chosen.name, content, is_structured


def outcome_of(
    number: int, target: str, name: str, content: bytes, is_structured: bool, seconds: float, megabytes: float
) -> Outcome:
    """Reads one input, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (directory / name).write_bytes(content)
    start, before = time.process_time(), _peak_megabytes()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            warnings.simplefilter("ignore")
            found = TARGETS[target].read(directory / name)
        outcome, words = _judge(target, found, is_structured), ""
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


def _judge(target: str, found: Any, is_structured: bool) -> str:
    """What a file that was read is, beside the whole ones."""
    kind = TARGETS[target]
    if kind.identify is None or kind.identify(found) in whole_models(target):
        return "read"
    return "unnoticed" if kind.has_checksums and not is_structured else "other"


def tell(seed: int, numbers: Sequence[int], seconds: float, megabytes: float) -> None:
    """What a worker does: a line for each input; the first is of none, when everything is loaded."""
    os.fsync = lambda descriptor: None  # nothing is to survive, and the disk would take most of the time
    if hasattr(os, "fork"):
        hdf5._asked = ask_forked  # type: ignore[assignment]
    said, sys.stdout = sys.stdout, None
    for target in TARGETS:
        name = TARGETS[target].name or seeds(target)[0].name
        whole_models(target)
        outcome_of(0, target, name, seeds(target)[0].read_bytes(), False, seconds, megabytes)
    print("ready", flush=True, file=said)
    for number in numbers:
        outcome = outcome_of(number, target_of(number), *input_of(seed, number), seconds, megabytes)
        print(outcome.name, outcome.words.replace("\n", " "), sep="\t", flush=True, file=said)


def outcomes(
    seed: int, numbers: Sequence[int], seconds: float, megabytes: float, only: Sequence[str] = ()
) -> Iterator[Outcome]:
    """What came of each input, read in processes of their own, of which one that dies or hangs is replaced."""

    def command(first: int, end: int) -> list[str]:
        limits = ["--seconds", str(seconds), "--megabytes", str(megabytes)]
        chosen = ["--only", *only] if only else []
        return ["-m", "tests.fuzz", "--seed", str(seed), *limits, *chosen, "--worker", str(first), str(end)]

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
    parser.add_argument("--only", nargs="*", choices=tuple(TARGETS), default=(), help="kinds to feed; all if none")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    limits = (options.seconds, options.megabytes)
    for name in set(TARGETS) - set(options.only) if options.only else ():
        del TARGETS[name]
    if options.worker:
        tell(options.seed, range(*options.worker), *limits)
        return 0
    start, console = time.monotonic(), Console()
    found, faults = [], 0
    numbers = range(options.first, options.first + options.count)
    for outcome in _until_stopped(outcomes(options.seed, numbers, *limits, options.only)):
        found.append(outcome._replace(words=""))
        if outcome.name in FAULTS:
            faults += 1
            name, content, _ = input_of(options.seed, outcome.number)
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

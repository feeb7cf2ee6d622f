"""TROUBLES: all that is done to runs but kills. Each raises AssertionError if a run lost anything or told it badly."""

import os
import re
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from engine.checkpoints.steps import find_steps
from tests.conftest import make_dataset
from tests.faults.comparison import best_by_rule, same_bits
from tests.faults.corruptions import DAMAGES
from tests.faults.disks import NotPermitted, enlarge, read_only, small_disk
from tests.faults.moments import ATTEMPTS, at, at_line, kill
from tests.faults.processes import Outcome, reported_steps
from tests.faults.rounds import Round, check_refusal, check_success, restored_outputs
from tests.faults.runs import EPOCHS, STEPS_PER_EPOCH

IGNORABLE_LINES = 8  # what a process may still tell that had all but ended when a signal was sent
YEAR_SECONDS = 365 * 86400.0


def interrupt_sigint(round: Round) -> None:
    """Ctrl-C at any moment from the first word on."""
    _interrupt(round, signal.SIGINT)


def interrupt_sigterm(round: Round) -> None:
    """SIGTERM at any moment from the first word on."""
    _interrupt(round, signal.SIGTERM)


def disk_full(round: Round) -> None:
    """The disk fills up at some save; after there is more room the run goes on."""
    disk = round.directory / "disk"
    round.run_dir = disk / "run"
    kilobytes = round.random.randint(40, 500)
    try:
        with small_disk(disk, kilobytes):
            round.note = "tmpfs"
            outcome = round.start().end()
            if outcome.code != 0:
                check_refusal(outcome, "pace")  # "no space left", of Orbax, or "No space left on device", the system's
            round.check_saved()
            enlarge(disk)
            round.resume_and_compare()
    except NotPermitted:
        round.note = "no mount: file size limit"
        shutil.rmtree(disk)
        file_too_large(round)


def file_too_large(round: Round) -> None:
    """The system refuses to write beyond a size, as a quota does."""
    limit = round.random.randint(200, 6000)
    outcome = round.start(file_bytes=limit).end()
    if outcome.code != 0:
        check_refusal(outcome)
    round.check_saved()
    round.resume_and_compare()


def directory_read_only(round: Round) -> None:
    """A run in a directory that cannot be written is refused and left alone, opens, and goes on once it can be."""
    kill(round, lambda: at(round, "> train", 0.004, first=8))
    images, before = make_dataset(70, 2).images, _bytes_below(round.run_dir)
    outputs = restored_outputs(round.run_dir, images)
    try:
        with read_only(round.run_dir):
            check_refusal(round.start().end(), "run_dir: got ", "ead-only")
            assert same_bits(outputs, restored_outputs(round.run_dir, images)), "another model from a read-only disk"
    except NotPermitted:
        round.note = "skipped: no mount"
    _check_same_files(before, round.run_dir)
    round.resume_and_compare()


def clock_set_back(round: Round) -> None:
    """The clock of the process that goes on is a year behind, and files are of a year ahead."""
    kill(round, lambda: at(round, "> save", 0.1, first=2))
    ahead = time.time() + YEAR_SECONDS
    for path in [*round.run_dir.rglob("*")]:
        os.utime(path, (ahead, ahead))
    round.resume_and_compare("--checkpoint.every-seconds", "0.2", clock=-YEAR_SECONDS)


def two_processes(round: Round) -> None:
    """A second process in the directory is refused, naming the first, which is not disturbed."""
    first = at(round, "> train", 0.0)
    first.send(signal.SIGSTOP)  # so that it is still there, however busy the machine
    try:
        while "T (stopped)" not in Path(f"/proc/{first.process.pid}/status").read_text():
            time.sleep(0.01)
        before = _bytes_below(round.run_dir)
        for options in ((), ("--checkpoint.every-steps", "1")):
            holder = f"process {first.process.pid} on {socket.gethostname()}"
            check_refusal(round.start(*options).end(), str(round.run_dir), holder)
        _check_same_files(before, round.run_dir)
    finally:
        first.send(signal.SIGCONT)
    round.compare(first.end())


def stale_lock(round: Round) -> None:
    """A lock left by a killed process whose number another process has now."""
    kill(round, lambda: at(round, "> train", 0.004))
    lock = round.run_dir / ".lock"
    assert lock.exists(), "a killed run left no lock: this scenario is about one"
    lock.write_text(re.sub(r"\d+", str(os.getpid()), lock.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    round.resume_and_compare()


def newest_damaged(round: Round) -> None:
    """A file of the newest checkpoint is damaged or missing: the one before it is used, and what is lost is said."""
    earlier, newest = _two_steps(round)
    file = round.random.choice([p for p in (round.run_dir / f"checkpoints/{newest}").rglob("*") if p.is_file()])
    name, before = round.random.choice(list(DAMAGES)), file.read_bytes()
    after = DAMAGES[name](round.random, before, b"another file" * 20)
    file.unlink() if after is None else file.write_bytes(after)
    round.note = f"{name} of {file.relative_to(round.run_dir)}"
    outcome = round.resume_and_compare()
    if after != before:
        _check_loss_is_said(outcome, earlier, newest)


def newest_incomplete(round: Round) -> None:
    """A whole part of the newest checkpoint is missing."""
    earlier, newest = _two_steps(round)
    parts = [path for path in (round.run_dir / f"checkpoints/{newest}").iterdir() if path.is_dir()]
    shutil.rmtree(round.random.choice(parts))
    _check_loss_is_said(round.resume_and_compare(), earlier, newest)


def newest_is_another(round: Round) -> None:
    """The newest checkpoint has the files of an older one, all of them sound."""
    earlier, newest = _two_steps(round)
    shutil.rmtree(round.run_dir / f"checkpoints/{newest}")
    shutil.copytree(round.run_dir / f"checkpoints/{earlier}", round.run_dir / f"checkpoints/{newest}")
    _check_loss_is_said(round.resume_and_compare(), earlier, newest)


def cache_damaged(round: Round) -> None:
    """What was compiled and stored is damaged, as by a kill in the middle of writing it."""
    round.cache = round.directory / "cache"
    shutil.copytree(round.place.cache, round.cache)
    for path in (round.cache / "xla").iterdir():
        if path.is_file() and path.name.endswith("-cache") and round.random.random() < 0.5:
            path.write_bytes(path.read_bytes()[: round.random.randrange(path.stat().st_size)])
    round.resume_and_compare()


TROUBLES: dict[str, Callable[[Round], None]] = {
    "SIGINT": interrupt_sigint,
    "SIGTERM": interrupt_sigterm,
    "disk full": disk_full,
    "file too large": file_too_large,
    "read-only directory": directory_read_only,
    "clock set back": clock_set_back,
    "two processes": two_processes,
    "stale lock": stale_lock,
    "newest damaged": newest_damaged,
    "newest incomplete": newest_incomplete,
    "newest is another": newest_is_another,
    "cache damaged": cache_damaged,
}


def _interrupt(round: Round, number: signal.Signals) -> None:
    lines = round.reference.trace
    for _ in range(ATTEMPTS):
        first = lines.index("> data") + 1
        process = at_line(round, round.random.randint(first, len(lines) - 1), 0.05)
        told = process.trace
        process.send(number)
        outcome = process.end()
        round.note = f"after {told[-1]}"
        # Python had begun to leave, when it takes no signals any more, and the run had done everything.
        was_over = outcome.code == -number and process.trace[-1] == lines[-1]
        if outcome.code != 0 and not was_over:
            break
        ignored = process.trace[len(told) + IGNORABLE_LINES :]
        assert not ignored, f"{number.name} {round.note} was ignored: {len(ignored)} operations later all was done"
        shutil.rmtree(round.run_dir)
    assert outcome.code == 128 + number, f"exit code {128 + number} was due: {outcome.told()}"
    assert len(outcome.error_lines) == 1, f"one line on stderr was due: {outcome.told()}"
    _, has_command, command = outcome.errors.partition("To go on: ")
    assert has_command, f"how to go on is not said: {outcome.told()}"
    for step in reported_steps(outcome.errors):
        assert step in find_steps(round.run_dir), f"step {step} is not there: {outcome.told()}"
    round.check_saved()
    round.compare(round.start_command(shlex.split(command)).end())


def _two_steps(round: Round) -> tuple[int, int]:
    """A run stopped after some saves, of which the best step is one: the last but one and the newest."""
    last = min(EPOCHS * STEPS_PER_EPOCH, max(round.reference.content))
    earlier, newest = sorted(round.random.sample(range(1, last), 2))
    steps = sorted({earlier, newest} | best_by_rule(round.reference.content, set(range(1, newest)), 1))
    round.copy_reference(steps)
    return steps[-2], newest


def _check_loss_is_said(outcome: Outcome, earlier: int, newest: int) -> None:
    check_success(outcome)
    told, lost = outcome.output + outcome.errors, newest - earlier
    assert f"step {newest} is damaged" in told, f"that step {newest} is damaged is not said: {outcome.told()}"
    assert f"resuming from step {earlier}" in told, f"resuming from step {earlier} is not said: {outcome.told()}"
    assert re.search(rf"\b{lost} step", told), f"the loss of {lost} steps is not said: {outcome.told()}"


def _check_same_files(before: dict[str, bytes], directory: Path) -> None:
    after = _bytes_below(directory)
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    assert not changed, f"a run that was refused changed {changed}"


def _bytes_below(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}

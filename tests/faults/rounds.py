"""A round: one run directory, what is done to the processes in it, and what must hold afterwards."""

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import engine
from engine.checkpoints.steps import check_step, find_steps
from tests.faults.comparison import (
    ONE_AT_A_TIME,
    Left,
    best_by_rule,
    content_differences,
    differences,
    left_by,
    saved_content,
)
from tests.faults.processes import Outcome, Started, moment, reported_steps, run_command, start
from tests.faults.runs import CHECKPOINT, write_data


@dataclass(frozen=True)
class Reference:
    """The run of a case that nothing happened to.

    run_dir: where it is, saved after every step and with all steps kept. content: of every step, as `step_content`
    gives it. trace, seconds: what such a run that saves as usual told of its work, and how long its process lived.
    """

    case: str
    run_dir: Path
    left: Left
    content: dict[int, dict[str, Any]]
    trace: list[str]
    seconds: float


class Place:
    """A directory for the data, the caches, the references and the rounds of a harness."""

    def __init__(self, directory: Path):
        self.directory, self.data, self.cache = directory, directory / "data.npz", directory / "cache"
        directory.mkdir(parents=True, exist_ok=True)
        write_data(self.data)

    def reference(self, case: str) -> Reference:
        """Makes the run of a case that others are compared with, twice: when it is saved must change nothing."""
        home = self.directory / "references" / case
        often = ("--checkpoint.every-steps", "1", "--checkpoint.keep-last", "1000")
        command = run_command(case, home / "run", self.data, *often)
        check_success(start(command, home / "all steps", self.cache).end())
        plain = home / "plain run"
        process = start(run_command(case, plain, self.data), home / "plain", self.cache, {"run_dir": str(plain)})
        check_success(process.end())
        seconds = monotonic() - process.started
        left = left_by(home / "run")
        check_none(differences(left, left_by(plain)), "two runs of one config, saved at other steps, differ")
        return Reference(
            case, home / "run", left, saved_content(home / "run", find_steps(home / "run")), process.trace, seconds
        )


class Round:
    """One run directory that is hurt. Every random choice is drawn from `random`; `moments` are those of its kills."""

    def __init__(self, place: Place, reference: Reference, name: str, random: Random):
        self.place, self.reference, self.random = place, reference, random
        self.directory = place.directory / "rounds" / name
        self.run_dir, self.cache = self.directory / "run", place.cache
        self.moments: list[str] = []
        self.note, self.num_lost = "", 0
        self._num_started = 0

    def start(self, *options: str, **faults: Any) -> Started:
        """Starts the run, or goes on with it; faults as `inside` takes them."""
        self._num_started += 1
        command = run_command(self.reference.case, self.run_dir, self.place.data, "--resume", *options)
        return self.start_command(command, **faults)

    def start_command(self, command: list[str], **faults: Any) -> Started:
        """Starts any command, in the environment of a run."""
        self._num_started += 1
        files = self.directory / f"process {self._num_started}"
        return start(command, files, self.cache, {"run_dir": str(self.run_dir), **faults})

    def killed(self, process: Started) -> bool:
        """Kills the process and checks what it left; False if it was over before."""
        return self.was_killed(process, process.kill())

    def was_killed(self, process: Started, outcome: Outcome) -> bool:
        """Checks what a process that SIGKILL ended has left; False if it had ended by itself."""
        if outcome.code == -signal.SIGKILL:
            self.moments.append(moment(process.trace, self.run_dir))
        else:
            check_success(outcome)
        self.check_saved()
        return outcome.code == -signal.SIGKILL

    def check_saved(self) -> None:
        """Each sound step is that of the reference; none is lost that was reported as saved.

        One that was being removed, because newer ones had taken its place, may be there in part.
        """
        found = {step for step in find_steps(self.run_dir) if _is_sound(self.run_dir, step)}
        lost = self.lost_steps(found)
        self.num_lost += len(lost)
        assert not lost, f"steps {sorted(lost)} were reported as saved and are lost; there are {sorted(found)}"
        for step, content in saved_content(self.run_dir, found).items():
            check_none(content_differences(self.reference.content[step], content), f"saved step {step}")

    def lost_steps(self, found: set[int]) -> set[int]:
        """Steps reported as saved that are neither there nor removed by the rule of what is kept."""
        log = self.run_dir / "log.txt"
        reported = reported_steps(log.read_text(encoding="utf-8")) if log.exists() else set()
        known = reported | found
        newest = set(sorted(known)[-CHECKPOINT.keep_last :])
        return (reported & (newest | best_by_rule(self.reference.content, known, CHECKPOINT.keep_best))) - found

    def resume_and_compare(self, *options: str, **faults: Any) -> Outcome:
        """Goes on to the end, which must be that of the reference."""
        return self.compare(self.start(*options, **faults).end())

    def compare(self, outcome: Outcome) -> Outcome:
        """The run is over: all that it left must be what the reference left."""
        check_success(outcome)
        check_none(differences(self.reference.left, left_by(self.run_dir)), "the resumed run differs")
        return outcome

    def copy_reference(self, steps: list[int]) -> None:
        """Makes the run directory that of a run stopped right after it had saved the last of these steps."""
        source = self.reference.run_dir
        for step in steps:
            shutil.copytree(source / "checkpoints" / str(step), self.run_dir / "checkpoints" / str(step))
        shutil.copy(source / "config.json", self.run_dir)

    def clear(self) -> None:
        """Removes all that the round wrote."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _is_sound(run_dir: Path, step: int) -> bool:
    try:
        check_step(run_dir, step)
    except engine.InputError:
        return False
    return True


def check_success(outcome: Outcome) -> None:
    """Fails unless a process ended well."""
    assert outcome.code == 0, f"a run that had to end well did not: {outcome.told()}"


def check_refusal(outcome: Outcome, *texts: str) -> None:
    """Fails unless a process ended with exit code 2 and one message, no traceback, that has these texts."""
    assert outcome.code == 2, f"exit code 2 was due: {outcome.told()}"
    assert "Traceback" not in outcome.errors, f"a traceback: {outcome.told()}"
    assert outcome.errors.startswith("error: "), f"a message was due: {outcome.told()}"
    for text in texts:
        assert text in outcome.errors, f"{text!r} was due: {outcome.told()}"


def check_none(found: list[str], what: str) -> None:
    """Fails if there are differences."""
    assert not found, f"{what} in {len(found)}: " + "; ".join(found[:5])


def restored_outputs(run_dir: Path, images: Any, **which: Any) -> Any:
    """Outputs of a restored step."""
    with ONE_AT_A_TIME:
        return engine.restore(run_dir, **which).outputs(images)

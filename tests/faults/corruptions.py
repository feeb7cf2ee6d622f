"""Files of a saved step, damaged one at a time: what is restored is what was saved, or an error names the file."""

import faulthandler
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import jax
import numpy as np

import engine
from engine.checkpoints.checksums import SUMS
from engine.checkpoints.run_directory import open_run
from engine.checkpoints.steps import find_steps
from tests.faults.comparison import content_differences, same_bits, step_content

HANG_SECONDS = 1800.0
Damage = Callable[[Random, bytes, bytes], bytes | None]


def _flip(random: Random, data: bytes, other: bytes) -> bytes:
    """One bit turned over."""
    changed = bytearray(data or b"\0")
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(random: Random, data: bytes, other: bytes) -> bytes:
    """Only the beginning is left, or nothing."""
    return data[: random.randrange(max(len(data), 1))]


def _zero(random: Random, data: bytes, other: bytes) -> bytes:
    """A stretch of zeros, as a disk leaves blocks that were never written."""
    start = random.randrange(max(len(data), 1))
    end = random.randint(start, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    """The beginning of this file and the rest of another; at times the other as a whole."""
    at = random.randrange(max(len(data), 1)) * random.randrange(3) // 2
    return data[:at] + other[at:]


def _append(random: Random, data: bytes, other: bytes) -> bytes:
    """A few bytes too many."""
    return data + random.randbytes(random.randint(1, 64))


DAMAGES: dict[str, Damage] = {
    "bit flip": _flip,
    "truncation": _truncate,
    "zeros": _zero,
    "splice": _splice,
    "deletion": lambda random, data, other: None,
    "appended bytes": _append,
}


@dataclass
class Tally:
    """What came of corruptions: how often the step was `identical`, `refused` and left for the `earlier` one."""

    outcomes: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Target:
    """A run with two saved steps, and a copy of it whose newest step is damaged file by file."""

    def __init__(self, reference_run: Path, scratch: Path):
        self.source, self.scratch = scratch / "sound", scratch / "damaged"
        self.earlier, self.newest = find_steps(reference_run)[-2:]
        for step in (self.earlier, self.newest):
            shutil.copytree(_step(reference_run, step), _step(self.source, step))
        shutil.copy(reference_run / "config.json", self.source)
        self.config = engine.RunConfig.read(self.source / "config.json")
        self.content = {step: step_content(self.source, step) for step in (self.earlier, self.newest)}
        self.weights = {step: weights(engine.restore(self.source, step=step)) for step in (self.earlier, self.newest)}
        self.files = sorted(
            path.relative_to(_step(self.source, self.newest)) for path in _files(_step(self.source, self.newest))
        )

    def corrupt(self, file: Path, random: Random, tally: Tally) -> None:
        """Damages one file at random and tries the two ways back: restoring that step, and resuming the run."""
        name = random.choice(list(DAMAGES))
        described = f"{name} of {file}"
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)  # a hang ends the process, which is a failure
        try:
            for way in (self._restore, self._resume):
                self._damage(file, name, random)
                tally.outcomes[way(file)] += 1
        except Exception as error:  # any that is no InputError is what this looks for
            tally.failures.append(f"{described}: {type(error).__name__}: {error}"[:600])
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _damage(self, file: Path, name: str, random: Random) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.copytree(self.source, self.scratch)
        path = _step(self.scratch, self.newest) / file
        other = random.choice([each for each in _files(self.source) if each.name != file.name])
        before = path.read_bytes()
        while (after := DAMAGES[name](random, before, other.read_bytes())) == before:
            name = random.choice(list(DAMAGES))  # zeros over zeros: no damage
        path.unlink() if after is None else path.write_bytes(after)

    def _restore(self, file: Path) -> str:
        try:
            restored = engine.restore(self.scratch, step=self.newest)
        except engine.InputError as error:
            self._check_named(str(error), file)
            return "refused"
        assert restored.record.step == self.newest, f"step {restored.record.step} in place of {self.newest}"
        assert all(map(same_bits, self.weights[self.newest], weights(restored))), "a wrong model, silently"
        return "identical"

    def _resume(self, file: Path) -> str:
        said: list[str] = []
        try:
            record = open_run(self.scratch, self.config, True, False, said.append)
        except engine.InputError as error:
            self._check_named(str(error), file)
            return "refused"
        assert record is not None, "a new run, silently"
        assert not content_differences(self.content[record.step], step_content(self.scratch, record.step))
        if record.step == self.newest:
            return "identical"
        told, lost = "\n".join(said), self.newest - record.step
        self._check_named(told, file)
        assert f"{lost} step" in told, f"the loss of {lost} steps is not said: {told}"
        return "earlier"

    def _check_named(self, message: str, file: Path) -> None:
        """Fails unless a message names the file; damaged sums may blame any file of the step."""
        directory = _step(Path(), self.newest)
        wanted = directory if file.name == SUMS else directory / file
        assert str(wanted) in message, f"the file is not named: {message}"


def weights(classifier: Any) -> list[np.ndarray]:
    """All arrays of a classifier, or of the members of an ensemble."""
    models = getattr(classifier, "members", (classifier,))
    return [np.asarray(leaf) for each in models for leaf in jax.tree.leaves((each.params, each.model_state))]


def corrupt_all(reference_run: Path, scratch: Path, count: int, random: Random) -> Tally:
    """Damages every file of the newest step of a run `count` times."""
    target, tally = Target(reference_run, scratch), Tally()
    for file in target.files:
        for _ in range(count):
            target.corrupt(file, random, tally)
    return tally


def _step(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / str(step)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


if __name__ == "__main__":
    run, scratch, count, seed = sys.argv[1:]
    found = corrupt_all(Path(run), Path(scratch), int(count), Random(seed))
    print(json.dumps({"outcomes": found.outcomes, "failures": found.failures}))

"""Plays a round of a scenario, or damages all files of a checkpoint, and says how it ended."""

import json
import sys
import time
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from tests.faults.kills import KILLS
from tests.faults.processes import start
from tests.faults.rounds import Place, Reference, Round
from tests.faults.troubles import TROUBLES

SECONDS_PER_DAMAGE = 4.0
FILES_PER_STEP = 60


class Job(NamedTuple):
    """A round to come: seed and number decide all that is random in it."""

    number: int
    scenario: str
    case: str


@dataclass
class Verdict:
    """How a round ended. lost: steps reported as saved that are gone. moments: what killed processes were doing."""

    scenario: str
    case: str
    number: int
    seconds: float
    lost: int
    moments: list[str]
    note: str
    failure: str | None


def play(place: Place, reference: Reference, job: Job, seed: int = 0) -> Verdict:
    """Plays one round; what it wrote stays only if it failed."""
    each = Round(place, reference, f"{job.number} {job.scenario} {job.case}", Random(f"{seed} {job.number}"))
    started, failure = time.monotonic(), None
    try:
        {**KILLS, **TROUBLES}[job.scenario](each)
    except Exception as error:  # whatever it is, the other rounds go on and this one counts as failed
        failure = f"{type(error).__name__}: {error}"
    else:
        each.clear()
    seconds = round(time.monotonic() - started, 2)
    return Verdict(job.scenario, job.case, job.number, seconds, each.num_lost, each.moments, each.note, failure)


def corrupt(place: Place, reference: Reference, count: int, seed: int = 0) -> dict[str, Any]:
    """Damages every file of a checkpoint `count` times in a process of its own, so that a hang or crash is noticed."""
    scratch = place.directory / "corruptions" / reference.case
    arguments = [str(reference.run_dir), str(scratch), str(count), str(seed)]
    process = start([sys.executable, "-m", "tests.faults.corruptions", *arguments], scratch / "process", place.cache)
    outcome = process.end(60 + count * FILES_PER_STEP * SECONDS_PER_DAMAGE)
    if outcome.code != 0:
        return {"case": reference.case, "outcomes": {}, "failures": [f"a crash or a hang: {outcome.told()}"]}
    return {"case": reference.case, **json.loads(outcome.output.splitlines()[-1])}

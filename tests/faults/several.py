"""Several processes that train one run, of which one is hurt: all must end, soon and as they should, and go on.

`python -m tests.faults --processes 2 --rounds 100`. Every fault is done to each rank in turn; signals come at a
random moment while the processes start, train, evaluate or save. All must end within LIMIT_SECONDS, with exit codes
that go with the fault, and, started again with --resume, leave the bits of the run that nothing happened to.
"""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rich.table import Table

from engine.host.console import Console
from tests.faults.comparison import Left, differences, left_by
from tests.faults.processes import Outcome, Started, run_command, start
from tests.faults.rounds import check_none
from tests.faults.runs import write_data

LIMIT_SECONDS = 35.0  # JAX's heartbeat and five
START_LIMIT_SECONDS = 65.0  # for who waits for another that never comes
MOMENTS = {"starting": "ready", "training": "> train", "evaluating": "> eval", "saving": "> save"}
LOST, SAVED, MISTAKE, EXCEPTION = 75, 128 + signal.SIGTERM, 2, 1


@dataclass
class Fault:
    """What is done to one process, and the exit codes that it and the others may end with once they have joined.

    signal: sent at the moment. inside: faults that it is started with, as `inside` takes them.
    """

    own: tuple[int, ...]
    others: tuple[int, ...]
    signal: int | None = None
    inside: Callable[[Random], dict[str, Any]] = lambda random: {}
    ranks: tuple[int, ...] | None = None


FAULTS = {
    "SIGKILL": Fault((-signal.SIGKILL,), (LOST,), signal.SIGKILL),
    "SIGTERM": Fault((SAVED,), (SAVED,), signal.SIGTERM),
    "SIGSTOP": Fault((-signal.SIGKILL,), (LOST,), signal.SIGSTOP),
    "exception": Fault(
        (EXCEPTION,), (EXCEPTION,), inside=lambda random: {"raise_after": ["> train", random.randint(1, 6)]}
    ),
    "disk full": Fault(
        (MISTAKE, 0), (MISTAKE, 0), inside=lambda random: {"file_bytes": random.randint(500, 20_000)}, ranks=(0,)
    ),
    "slow clock": Fault((0,), (0,), inside=lambda random: {"slow": random.uniform(2, 20)}),
}


@dataclass
class Ending:
    """How a round went: seconds from the fault to the last end, and the failure, if any."""

    fault: str
    rank: int
    moment: str
    seconds: float = 0.0
    codes: list[int] = field(default_factory=list)
    failure: str | None = None


class Several:
    """A directory for the rounds of one number of processes, and the run that nothing happened to."""

    def __init__(self, directory: Path, count: int, case: str = "convnet"):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.count, self.case = directory, count, case
        self.data, self.cache = directory / "data.npz", directory / "cache"
        write_data(self.data)
        run_dir = directory / "reference" / "run"
        codes = [each.end().code for each in self.start_all(run_dir, directory / "reference")]
        assert codes == [0] * count, f"the run that nothing happened to ended with {codes}"
        self.reference: Left = left_by(run_dir)

    def start_all(self, run_dir: Path, files: Path, faults: dict[int, dict[str, Any]] | None = None) -> list[Started]:
        """The processes of a run; faults: of some ranks."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = run_command(self.case, run_dir, self.data, "--resume", "--mesh", f"data={self.count}")
        numbers = {"ENGINE_DISTRIBUTED": address, "ENGINE_NUM_PROCESSES": str(self.count), "JAX_PLATFORMS": "cpu"}
        processes = []
        for rank in range(self.count):
            own = {"run_dir": str(run_dir), **(faults or {}).get(rank, {})}
            place = (files / f"process {rank}", self.cache)
            processes.append(start(command, *place, own, {**numbers, "ENGINE_PROCESS_ID": str(rank)}))
        return processes

    def play(self, number: int, seed: int) -> Ending:
        """One round; what it wrote stays only if it failed."""
        random, names = Random(f"{seed} {number}"), [*FAULTS]
        name = names[number % len(names)]
        ranks = FAULTS[name].ranks or range(self.count)
        rank = ranks[number // len(names) % len(ranks)]
        ending = Ending(name, rank, random.choice([*MOMENTS]) if FAULTS[name].signal else "training")
        directory = self.directory / f"round {number}"
        try:
            self._hurt(ending, directory, random)
        except Exception as error:  # whatever it is, the other rounds go on
            ending.failure = f"{type(error).__name__}: {error}"
        return ending

    def _hurt(self, ending: Ending, directory: Path, random: Random) -> None:
        fault, run_dir = FAULTS[ending.fault], directory / "run"
        processes = self.start_all(run_dir, directory / "hurt", {ending.rank: fault.inside(random)})
        victim = processes[ending.rank]
        try:
            if fault.signal is not None:
                reach(victim, ending.moment, random)
                victim.send(fault.signal)
                outcomes = wait_for_all(processes, ending, fault.signal == signal.SIGSTOP)
            else:
                outcomes = [process.end(300) for process in processes]
        finally:
            for process in processes:
                process.kill()
        ending.codes = [outcome.code for outcome in outcomes]
        check_codes(ending, fault, outcomes, has_begun=all("> train" in process.trace for process in processes))
        again = [process.end(600) for process in self.start_all(run_dir, directory / "again")]
        assert all(outcome.code == 0 for outcome in again), "\n".join(outcome.told() for outcome in again)
        check_none(differences(self.reference, left_by(run_dir)), "the resumed run differs")


def reach(victim: Started, moment: str, random: Random) -> None:
    """Waits until a process is somewhere within that moment."""
    if moment == "starting":
        time.sleep(random.uniform(0, 8))
        return
    victim.reaches(re.escape(MOMENTS[moment]), random.randint(1, 4))
    time.sleep(random.uniform(0, 0.02))


def wait_for_all(processes: Sequence[Started], ending: Ending, is_stopped: bool) -> list[Outcome]:
    """How all ended, and how long that took; of one that is stopped, the others."""
    begun = time.monotonic()
    for rank, process in enumerate(processes):
        if not (is_stopped and rank == ending.rank):
            left = START_LIMIT_SECONDS - (time.monotonic() - begun)
            with contextlib.suppress(AssertionError):
                process.end(max(left, 0.1))
    ending.seconds = time.monotonic() - begun
    return [process.kill() if is_stopped and rank == ending.rank else process.end(0.1)
            for rank, process in enumerate(processes)]  # fmt: skip


def check_codes(ending: Ending, fault: Fault, outcomes: Sequence[Outcome], has_begun: bool) -> None:
    """Fails if the processes ended otherwise than the fault is due; before all train, they may not have met yet."""
    told = "\n".join(f"-- process {rank}: {outcome.told()}" for rank, outcome in enumerate(outcomes))
    if all(code == 0 for code in ending.codes):  # the run was over before
        return
    own, others = fault.own, fault.others
    if not has_begun:
        own, others = (*own, LOST, -(fault.signal or 0)), (*others, LOST, MISTAKE, -signal.SIGTERM)
    for rank, code in enumerate(ending.codes):
        due = own if rank == ending.rank else others
        assert code in due, f"process {rank} ended with {code}, {due} was due\n{told}"
    limit = LIMIT_SECONDS if has_begun else START_LIMIT_SECONDS
    assert ending.seconds <= limit, f"the end took {ending.seconds:.1f} s\n{told}"
    assert ending.codes[0] == EXCEPTION or "Traceback" not in told, told


def hurt_several(directory: Path, count: int, rounds: int, seed: int, jobs: int, case: str) -> list[Ending]:
    """Plays the rounds and prints a table of how they ended."""
    console, started = Console(), time.monotonic()
    place = Several(directory, count, case)
    endings = []
    with ThreadPoolExecutor(jobs) as pool:
        for ending in pool.map(lambda number: place.play(number, seed), range(rounds)):
            endings.append(ending)
            failure = f"FAILED: {ending.failure}" if ending.failure else ""
            text = (
                f"{ending.fault} of {ending.rank} {ending.moment}: {ending.codes} in {ending.seconds:.1f} s {failure}"
            )
            console.print(text, soft_wrap=True)
    table = Table("fault", "rounds", "ended as due, same bits", "longest end, seconds")
    for name in FAULTS:
        own = [each for each in endings if each.fault == name]
        if own:
            good = sum(each.failure is None for each in own)
            table.add_row(name, str(len(own)), str(good), f"{max(each.seconds for each in own):.1f}")
    console.print(table)
    failures = sum(each.failure is not None for each in endings)
    console.print(
        f"{failures} failures of {rounds} rounds in {time.monotonic() - started:.0f} s, {os.cpu_count()} cores"
    )
    return endings

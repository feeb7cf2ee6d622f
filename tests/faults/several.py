"""Several processes that train one run, of which one is hurt: all must end, soon and as they should, and go on.

`python -m tests.faults --processes 4 --rounds 100`. FAULTS has all that is done, to each rank and at each moment in
turn. All must end 5 s after a process counts as lost, with exit codes that go with the fault, and, started again with
--resume, leave the bits of the run that nothing happened to. `--round 17` plays one of them again.
"""

import contextlib
import pickle
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.disks import NotPermitted
from tests.faults.forked import compute_apart, fork, prepare_to_fork
from tests.faults.network import Network
from tests.faults.processes import Outcome, Started

HEARTBEAT_SECONDS, SILENT_SECONDS, START_SECONDS = 16, 5.0, 15  # of the engine's 45, 20 and 50, for shorter rounds
LIMIT_SECONDS = SILENT_SECONDS + 5.0
START_LIMIT_SECONDS = START_SECONDS + 10.0  # for who waits for another that never comes
HANG_SECONDS = 180.0
# The line of the trace that begins each, and how often it comes at most before the fault.
MOMENTS = {"starting": ("> data", 1), "training": ("> train", 6), "evaluating": ("> eval", 4), "saving": ("> save", 4)}
LOST, SAVED, MISTAKE, EXCEPTION = 75, 128 + signal.SIGTERM, 2, 1


@dataclass(frozen=True)
class Fault:
    """What is done to one process, and the exit codes that it and the others may end with once they have joined.

    signal: sent at the moment. inside: faults that it is started with, as `inside` takes them, made from the line of
    the moment, how often it comes before, and a source of chance. of_first: as `own` and `others`, for rank 0.
    variables: of its environment. uncompared: what of a run it may change.
    """

    own: tuple[int, ...]
    others: tuple[int, ...]
    signal: int | None = None
    inside: Callable[[str, int, Random], dict[str, Any]] = lambda line, count, random: {}
    of_first: tuple[int, ...] | None = None
    is_unplugged: bool = False
    case: str = "small"
    variables: tuple[tuple[str, str], ...] = ()
    uncompared: tuple[str, ...] = ()


FAULTS = {
    "SIGKILL": Fault((-signal.SIGKILL,), (LOST,), signal.SIGKILL),
    "SIGTERM": Fault((SAVED,), (SAVED,), signal.SIGTERM),
    "SIGSTOP": Fault((-signal.SIGKILL,), (LOST,), signal.SIGSTOP),
    "unplugged": Fault((LOST,), (LOST,), is_unplugged=True),
    "exception": Fault(
        (EXCEPTION,), (EXCEPTION,), inside=lambda line, count, random: {"raise_after": [line, count]}
    ),
    # Process 0 alone writes what a run cannot do without.
    "disk full": Fault(
        (0,), (0,), of_first=(MISTAKE, 0),
        inside=lambda line, count, random: {"full_after": [line, count, random.choice([0, random.randint(1, 20_000)])]},
    ),
    "slow clock": Fault((0,), (0,), inside=lambda line, count, random: {"slow": random.uniform(2, 20)}),
    # All agree to train without our C++; each evaluates its batches as it can, which changes the last digits of losses.
    "no compiler": Fault(
        (0,), (0,), case="direct", variables=(("CXX", "/nonexistent/c++"),), uncompared=("record.history", "result:")
    ),
    "less memory": Fault((0,), (0,), inside=lambda line, count, random: {"free_bytes": random.randint(0, 10_000)}),
}  # fmt: skip


@dataclass
class Ending:
    """How a round went: seconds from the fault to the last end, and the failure, if any."""

    number: int
    fault: str
    rank: int
    moment: str
    seconds: float = 0.0
    codes: list[int] = field(default_factory=list)
    resumed_seconds: float = 0.0
    failure: str | None = None


class Several:
    """A directory for the rounds of one number of processes, and the runs that nothing happened to.

    in_shares: each process saves its share, as of large states.
    """

    def __init__(self, directory: Path, count: int, in_shares: bool = False):
        prepare_to_fork()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.count, self.in_shares = directory, count, in_shares
        self.data, self.cache = directory / "data.npz", directory / "cache"
        if not self.data.exists():
            compute_apart(partial(_write_data, self.data))

    @cached_property
    def network(self) -> Network:
        """That of the processes that are unplugged."""
        return Network(self.count)

    def start_all(
        self, case: str, run_dir: Path, files: Path, network: Network | None = None,
        faults: dict[int, dict[str, Any]] | None = None, variables: dict[int, dict[str, str]] | None = None,
    ) -> list[Started]:  # fmt: skip
        """The processes of a run, each a host of the network, if there is one; faults and variables: of some ranks."""
        address = f"{network.address(0)}:{20_000}" if network else f"127.0.0.1:{find_port()}"
        options = ["--run-dir", str(run_dir), "--data.path", str(self.data), "--resume", "--mesh", f"data={self.count}"]
        processes = []
        for rank in range(self.count):
            place = files / f"process {rank}"
            own = {"trace": str(place / "trace"), "run_dir": str(run_dir), "in_shares": self.in_shares}
            own |= (faults or {}).get(rank, {})
            given = {**numbers_of(address, self.count, rank, self.cache), **(variables or {}).get(rank, {})}
            processes.append(fork(partial(_train, case, options, own, network, rank), place, given))
        return processes

    def reference(self, fault: str) -> bytes:
        """What the run that nothing happened to left; where the fault is in the environment, that of all processes."""
        case, variables = FAULTS[fault].case, dict(FAULTS[fault].variables)
        home = self.directory / f"reference {case}"
        if not (home / "left").exists():
            processes = self.start_all(
                case, home / "run", home, None, None, dict.fromkeys(range(self.count), variables)
            )
            with killing(processes):
                outcomes = [process.end(HANG_SECONDS) for process in processes]
            assert [each.code for each in outcomes] == [0] * self.count, "\n".join(each.told() for each in outcomes)
            (home / "left").write_bytes(compute_apart(partial(_left_by, home / "run")))
        return (home / "left").read_bytes()

    def play(self, number: int, seed: int, names: Sequence[str] = tuple(FAULTS)) -> Ending:
        """One round; what it wrote stays only if it failed."""
        random = Random(f"{seed} {number}")
        ending = plan_round(number, self.count, names)
        directory = self.directory / f"round {number}"
        compute_apart(partial(_remove, directory))
        try:
            self._hurt(ending, directory, random)
            compute_apart(partial(_remove, directory))
        except NotPermitted as error:
            ending.failure = f"not played: {error}"
        except Exception as error:  # whatever it is, the other rounds go on
            ending.failure = f"{type(error).__name__}: {error}"
        return ending

    def close(self) -> None:
        """Removes the network, if there is one."""
        if "network" in self.__dict__:
            self.network.close()

    def _hurt(self, ending: Ending, directory: Path, random: Random) -> None:
        fault, run_dir = FAULTS[ending.fault], directory / "run"
        reference, network = self.reference(ending.fault), self.network if fault.is_unplugged else None
        line, most = MOMENTS[ending.moment]
        faults = {ending.rank: fault.inside(line, random.randint(1, most), random)}
        variables = {ending.rank: dict(fault.variables)}
        with killing(self.start_all(fault.case, run_dir, directory / "hurt", network, faults, variables)) as processes:
            if fault.signal is not None or network:
                reach(processes[ending.rank], ending.moment, random)
            with _pulled(network, ending.rank):
                if fault.signal is not None:
                    processes[ending.rank].send(fault.signal)
                outcomes = wait_for_all(processes, ending, fault.signal == signal.SIGSTOP)
        check_end(ending, fault, outcomes, processes, self.in_shares)
        begun = time.monotonic()
        with killing(self.start_all(fault.case, run_dir, directory / "again")) as processes:
            again = [process.end(HANG_SECONDS) for process in processes]
        ending.resumed_seconds = time.monotonic() - begun
        assert all(outcome.code == 0 for outcome in again), "\n".join(outcome.told() for outcome in again)
        found = compute_apart(partial(_differences, reference, run_dir))
        found = [each for each in found if not any(part in each for part in fault.uncompared)]
        assert not found, f"the resumed run differs in {len(found)}: {'; '.join(found[:5])}"


def plan_round(number: int, count: int, names: Sequence[str]) -> Ending:
    """Faults in turn; of each fault ranks in turn; and moments so that each rank has all of them."""
    name, turn, moments = names[number % len(names)], number // len(names), [*MOMENTS]
    return Ending(number, name, turn % count, moments[(turn + turn // count) % len(moments)])


def find_port() -> int:
    """One that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def numbers_of(address: str, count: int, rank: int, cache: Path) -> dict[str, str]:
    """The environment of one of several processes."""
    return {
        "ENGINE_DISTRIBUTED": address, "ENGINE_NUM_PROCESSES": str(count), "ENGINE_PROCESS_ID": str(rank),
        "ENGINE_CACHE_DIR": str(cache), "COLUMNS": "200",
    }  # fmt: skip


def shorten_waits() -> None:
    """Lets this process take others for lost sooner."""
    from engine.processes import ends, lost, start

    lost.SILENT_SECONDS = ends.SILENT_SECONDS = SILENT_SECONDS
    start.HEARTBEAT_SECONDS, start.START_SECONDS = HEARTBEAT_SECONDS, START_SECONDS


def reach(victim: Started, moment: str, random: Random) -> None:
    """Waits until a process is somewhere within that moment."""
    if moment == "starting":
        time.sleep(random.uniform(0, 3))
        return
    line, most = MOMENTS[moment]
    victim.reaches(re.escape(line), random.randint(1, most))
    time.sleep(random.uniform(0, 0.02))


def wait_for_all(processes: Sequence[Started], ending: Ending, is_stopped: bool) -> list[Outcome]:
    """How all ended, and how long after the fault; of one that is stopped, the others."""
    begun = time.monotonic()
    while time.monotonic() - begun < HANG_SECONDS:
        waited = [each for rank, each in enumerate(processes) if not (is_stopped and rank == ending.rank)]
        if all(each.process.poll() is not None for each in waited):
            break
        time.sleep(0.01)
    hurt = [float(line.split()[1]) for line in processes[ending.rank].trace if line.startswith("hurt ")]
    ending.seconds = time.monotonic() - (hurt or [begun])[0]
    outcomes = [process.kill() for process in processes]  # of those that have ended, nothing but what they left
    ending.codes = [outcome.code for outcome in outcomes]
    return outcomes


def check_end(
    ending: Ending, fault: Fault, outcomes: Sequence[Outcome], processes: Sequence[Started], in_shares: bool = False
) -> None:
    """Fails if the processes ended otherwise than the fault is due; before all train, they may not have met yet."""
    told = "\n".join(f"-- process {rank}: {outcome.told()}" for rank, outcome in enumerate(outcomes))
    if all(code == 0 for code in ending.codes):  # the run was over before, or had to end well
        return
    have_met = all("> data" in process.trace for process in processes)
    own, others = fault.own, fault.others
    if fault.of_first and (ending.rank == 0 or in_shares):
        own = others = fault.of_first
    if not have_met:
        own, others = (*own, LOST, MISTAKE, -(fault.signal or 0)), (*others, LOST, MISTAKE)
    for rank, code in enumerate(ending.codes):
        due = own if rank == ending.rank else others
        assert code in due, f"process {rank} ended with {code}, {due} was due\n{told}"
    if 0 not in own:
        limit = LIMIT_SECONDS if have_met else START_LIMIT_SECONDS
        assert ending.seconds <= limit, f"the end took {ending.seconds:.1f} s\n{told}"
    assert ending.codes[0] == EXCEPTION or "Traceback" not in told, told
    if have_met and LOST in fault.others:
        survivors = "\n".join(each.errors for rank, each in enumerate(outcomes) if rank != ending.rank)
        assert re.search(rf"process {ending.rank}\b", survivors), f"who is lost is not named\n{told}"
    if SAVED in own and ending.moment != "starting":
        assert "stopped and saved at step" in told, f"a stop without a save\n{told}"


@contextlib.contextmanager
def killing(processes: list[Started]) -> Iterator[list[Started]]:
    """Kills them at the end, if they still run."""
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


@contextlib.contextmanager
def _pulled(network: Network | None, rank: int) -> Iterator[None]:
    if network:
        network.plug(rank, is_in=False)
    try:
        yield
    finally:
        if network:
            network.plug(rank, is_in=True)


def _train(case: str, options: list[str], faults: dict[str, Any], network: Network | None, rank: int) -> None:
    import json
    import os
    import sys

    import engine
    from tests.faults.inside import prepare
    from tests.faults.runs import CASES, CASES_OF_SEVERAL

    if network:
        network.enter(rank)
    os.environ["FAULTS"] = json.dumps(faults)
    shorten_waits()
    sys.argv = ["tests.faults.runs", case, *options]
    prepare()
    engine.main({**CASES, **CASES_OF_SEVERAL}[case](), options)


def _write_data(path: Path) -> None:
    from tests.faults.runs import write_data

    write_data(path)


def _left_by(run_dir: Path) -> bytes:
    """What a run left, pickled: to read it, JAX is imported and started."""
    from tests.faults.comparison import left_by

    return pickle.dumps(left_by(run_dir))


def _differences(reference: bytes, run_dir: Path) -> list[str]:
    from tests.faults.comparison import differences, left_by

    return differences(pickle.loads(reference), left_by(run_dir))


def _remove(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)

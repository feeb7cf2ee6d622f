"""The harness that hurts one of several processes, in its shortest form, and that it notices what it should."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HANG_SECONDS, QUICK_FLAGS
from tests.faults.disks import NotPermitted
from tests.faults.network import Network
from tests.faults.processes import REPOSITORY, Outcome
from tests.faults.several import FAULTS, LIMIT_SECONDS, MOMENTS, Ending, check_end, plan_round

MET = ["ready", "> data", "> train"]
LOST_1 = "error: process 1 on node7 is lost. What was saved before stays"


def run_harness(directory: Path, *options: str) -> str:
    """What it prints; fails if it does."""
    flags = f"{QUICK_FLAGS} {os.environ.get('XLA_FLAGS', '')}"
    command = [sys.executable, "-m", "tests.faults", "--processes", "2", "--directory", str(directory), *options]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True,
        timeout=HANG_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_processes_start_and_end_well(tmp_path: Path):
    told = run_harness(tmp_path, "--starts", "2")
    assert "2 starts of 2: median" in told
    assert "0 failures" in told


@pytest.mark.long
def test_all_end_after_a_kill_and_resume_to_the_same_bits(tmp_path: Path):
    options = ["--rounds", "1", "--only", "SIGKILL", "SIGTERM", "--json", str(tmp_path / "rounds.json")]
    told = run_harness(tmp_path / "work", "--first", "4", *options)
    ((_, rounds),) = json.loads((tmp_path / "rounds.json").read_text()).items()
    assert rounds["4"]["failure"] is None, told
    assert (rounds["4"]["fault"], rounds["4"]["rank"], rounds["4"]["moment"]) == ("SIGKILL", 0, "saving")
    assert rounds["4"]["codes"] == [-signal.SIGKILL, 75]


def test_every_fault_comes_to_each_rank_at_each_moment():
    endings = [plan_round(number, 4, [*FAULTS]) for number in range(len(FAULTS) * 4 * len(MOMENTS))]
    assert len({(each.fault, each.rank, each.moment) for each in endings}) == len(endings)


class Traced:
    """A process that has told this of its work."""

    def __init__(self, trace: list[str]):
        self.trace = trace


def check(
    codes: list[int], errors: str = LOST_1, trace: list[str] = MET, seconds: float = 1.0, fault: str = "SIGKILL"
) -> None:
    ending = Ending(0, fault, 1, "training", seconds, codes)
    processes: Any = [Traced(trace)] * len(codes)
    outcomes = [Outcome(code, "", "" if rank == 1 else errors) for rank, code in enumerate(codes)]
    check_end(ending, FAULTS[fault], outcomes, processes)


def test_an_end_that_is_due_passes():
    check([75, -9, 75])
    check([2, -9, 2], "error: fewer than all", trace=["ready"], seconds=LIMIT_SECONDS + 1)
    check([1, 1, 1], "Traceback", fault="exception")
    check([143, 143, 143], "stopped and saved at step 3", fault="SIGTERM")
    check([0, 0, 0], "", fault="slow clock")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"codes": [75, -9, -6]}, "process 2 ended with -6"),
        ({"codes": [75, 0, 75]}, "process 1 ended with 0"),
        ({"codes": [2, -9, 2]}, "process 0 ended with 2"),
        ({"codes": [75, -9, 75], "seconds": LIMIT_SECONDS + 1}, "the end took"),
        ({"codes": [75, -9, 75], "errors": "error: another is lost"}, "not named"),
        ({"codes": [75, -9, 75], "errors": f"Traceback\n{LOST_1}"}, "Traceback"),
        ({"codes": [143, 143, 143], "errors": "stopped", "fault": "SIGTERM"}, "without a save"),
        ({"codes": [75, 75, 75], "fault": "slow clock"}, "process 0 ended with 75"),
        ({"codes": [2, 2, 2], "fault": "disk full"}, "process 0 ended with 2"),
    ],
)
def test_an_end_that_is_not_due_fails(case: dict[str, Any], message: str):
    with pytest.raises(AssertionError, match=message):
        check(**case)


def test_hosts_reach_each_other_until_a_cable_is_pulled():
    try:
        network = Network(2)
    except NotPermitted:
        pytest.skip("needs the permission to make network namespaces")

    def reaches() -> bool:
        code = (
            "import sys, socket; from pathlib import Path; from tests.faults.network import Network\n"
            "there = Network.__new__(Network); there.count, there._name = 2, sys.argv[1]; there.enter(1)\n"
            "assert socket.gethostname() == '10.77.0.2'\n"
            "with socket.socket() as end:\n    end.settimeout(0.3)\n    print(end.connect_ex(('10.77.0.1', 9)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, network._name], capture_output=True, text=True, cwd=REPOSITORY
        )
        return int(done.stdout) == 111  # refused, by the host itself

    try:
        assert reaches()
        network.plug(0, is_in=False)
        assert not reaches()
        network.plug(0, is_in=True)
        assert reaches()
    finally:
        network.close()

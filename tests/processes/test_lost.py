"""Processes that are lost: who they are, and that all others end with exit code 75."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.processes import lost
from engine.processes.lost import PEER_LOST, describe, find_lost, is_cut_off, start_beating
from engine.processes.start import HEARTBEAT_SECONDS
from tests.conftest import HANG_SECONDS
from tests.processes.test_runs import ROOT, find_port

WAITS = """
import sys
from engine.commands.process import errors_as_lines, join_others
from engine.processes.together import agree
with errors_as_lines():
    join_others(None)
    agree(0)
    print("joined", flush=True)
    while True:
        agree(0)
"""


class Service:
    """A coordination service in which others said something once."""

    def __init__(self, beats: dict[str, str]):
        self.beats = beats

    def key_value_set(self, key: str, text: str, allow_overwrite: bool) -> None:
        self.beats[key] = text

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        return [*self.beats.items()]


class Ended(Exception):
    """In place of the end of the process."""


def test_process_0_ends_the_run_when_another_is_silent_and_names_it(monkeypatch: pytest.MonkeyPatch):
    class Now:
        def __init__(self, target, daemon):  # type: ignore[no-untyped-def]
            self.start = target

    monkeypatch.setattr(lost.threading, "Thread", Now)
    monkeypatch.setattr(lost, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(lost, "SILENT_SECONDS", 0.2)
    said: list[tuple[int, str]] = []

    def end(code: int, message: str) -> None:
        said.append((code, message))
        raise Ended

    with pytest.raises(Ended):
        start_beating(Service({"engine/alive/1": "7 node7", "engine/alive/12": "7 node8"}), 0, end, print)
    code, message = said[0]
    assert code == PEER_LOST
    assert message.startswith("error: process 1 on node7, process 12 on node8 has been silent for")


def test_process_that_cannot_reach_process_0_ends_by_itself_and_names_it(monkeypatch: pytest.MonkeyPatch):
    def leave(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(lost, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(lost, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(lost, "_first", ["process 0 on node7"])
    monkeypatch.setattr(lost.os, "_exit", leave)
    said: list[str] = []
    with pytest.raises(Ended, match=str(PEER_LOST)):
        lost._watch_first([time.monotonic()], said.append)
    assert said[0].startswith("error: process 0 on node7, or the connection to it, is lost.")


def test_who_is_lost_is_found_by_waiting(monkeypatch: pytest.MonkeyPatch):
    service = Service({"engine/alive/0": "1 here", "engine/alive/1": "4 node7"})
    monkeypatch.setattr(lost.time, "sleep", lambda seconds: service.beats.update({"engine/alive/0": "2 here"}))
    assert find_lost(service) == "process 1 on node7"
    monkeypatch.setattr(lost, "_first", [])
    assert find_lost(None) == "process 0"
    assert describe({"engine/alive/3": "9 a host"}) == "process 3 on a host"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: … Connection closed by peer [127.0.0.1]:23249"), True),
        (RuntimeError("UNAVAILABLE: failed to connect to coordination service"), True),
        (ValueError("operands could not be broadcast together"), False),
        (KeyError("peer"), False),
    ],
)
def test_error_of_a_lost_connection_is_told_from_others(error: Exception, expected: bool):
    assert is_cut_off(error) == expected


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.long)])
def test_one_that_is_killed_ends_the_other_with_75(victim: int):
    own = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "ENGINE_NUM_PROCESSES": "2"}
    own["ENGINE_DISTRIBUTED"] = f"127.0.0.1:{find_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WAITS], env={**own, "ENGINE_PROCESS_ID": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout
            while "joined" not in (line := process.stdout.readline()):
                assert line, process.communicate()[1]
        processes[victim].send_signal(signal.SIGKILL)
        start = time.monotonic()
        _, said = processes[1 - victim].communicate(timeout=HANG_SECONDS)
        assert processes[1 - victim].returncode == PEER_LOST, said
        assert "is lost. What was saved before stays" in said
        assert f"process {victim}" in said
        assert "Traceback" not in said
        assert time.monotonic() - start < HANG_SECONDS
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_process_whose_launcher_is_killed_is_asked_to_stop(tmp_path: Path):
    child = (
        "import pathlib, signal, sys, time\n"
        "from engine.processes.lost import leave_with_parent\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).write_text('asked'), sys.exit(0)))\n"
        "leave_with_parent(True); print('ready', flush=True); time.sleep(3600)"
    )
    command = [sys.executable, "-c", child, str(tmp_path / "told")]
    parent = f"import subprocess\nsubprocess.Popen({command!r}).wait()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        started.kill()
        started.stdout.read()  # until the child has ended too
    assert (tmp_path / "told").read_text() == "asked"


def test_who_is_silent_is_named_before_jax_gives_up():
    """JAX asks every half of its heartbeat, so it may notice after half of it."""
    assert lost.SILENT_SECONDS + 2 * lost.BEAT_SECONDS < HEARTBEAT_SECONDS / 2

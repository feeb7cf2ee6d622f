"""`engine launch`: what the processes get, how their output is merged, and how all of them end when one does."""

import io
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from engine.__main__ import main
from engine.commands.process import command_again
from engine.errors import InputError
from engine.processes import launcher
from engine.processes.ends import PEER_LOST
from engine.processes.launcher import launch_processes, resume_command, share_cores, share_devices

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups are of POSIX")


def run_shell(script: str, count: int = 2, restarts: int = 0) -> tuple[int, str, str, list[str]]:
    """(exit code, output, errors, messages) of a shell script in so many processes."""
    streams, said = {"out": io.BytesIO(), "err": io.BytesIO()}, []
    code = launch_processes(["sh", "-c", script, "script"], count, restarts, said.append, streams)
    out, err = (stream.getvalue().decode() for stream in streams.values())
    return code, out, err, said


def test_each_process_gets_its_number_and_one_address():
    code, out, err, _ = run_shell('echo "$ENGINE_PROCESS_ID/$ENGINE_NUM_PROCESSES"; echo "$ENGINE_DISTRIBUTED" >&2', 3)
    assert code == 0
    assert sorted(out.splitlines()) == ["0/3", "[1] 1/3", "[2] 2/3"]
    assert len(err.splitlines()) == 1  # the same of all
    assert "127.0.0.1:" in err


def test_a_line_is_shown_as_often_as_the_process_prints_it_that_prints_it_most():
    merger = launcher.Merger({"out": io.BytesIO(), "err": io.BytesIO()})
    for rank in (0, 1, 1, 0, 2, 1):
        merger.write(rank, "out", b"same\n")
    merger.write(1, "err", b"same, without an end")
    merger.write(1, "out", b"[Gloo] Rank 1 is connected to 1 peer ranks.\n")
    shown = {name: stream.getvalue() for name, stream in merger.streams.items()}  # type: ignore[attr-defined]
    assert shown == {"out": b"same\n[1] same\n[1] same\n", "err": b"[1] same, without an end\n"}


@pytest.mark.parametrize("code", [2, 75])
def test_one_that_fails_ends_all_with_its_code(code: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 0.2)
    found, _, _, said = run_shell(f"[ $ENGINE_PROCESS_ID = 1 ] && exit {code}; exec sleep 600")
    assert (found, said) == (code, [])


def test_one_that_is_killed_ends_all_and_the_run_is_started_again_as_often_as_granted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 0.2)
    count = tmp_path / "count"
    script = f'[ $ENGINE_PROCESS_ID = 1 ] && echo "$@" >> {count} && kill -9 $$; sleep 600 & wait'
    code, _, _, said = run_shell(script, restarts=1)
    assert code == PEER_LOST
    assert count.read_text() == "\n--resume\n"
    assert [text for text in said if "SIGKILL" in text and "process 1 of 2" in text] == [said[0], said[2]]
    assert said[1] == "starting again with --resume (1 of 1)"


def test_mistake_is_not_started_again():
    assert run_shell("exit 2", restarts=3)[0::3] == (2, [])


def test_signal_is_passed_on_and_all_may_save(tmp_path: Path):
    ready = threading.Event()

    def send() -> None:
        ready.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)

    class Ready(io.BytesIO):
        def write(self, line) -> int:  # type: ignore[no-untyped-def]
            if b"both" in bytes(line):
                ready.set()
            return super().write(line)

    streams = {"out": Ready(), "err": io.BytesIO()}
    threading.Thread(target=send).start()
    # The second one saves for longer than the first one waits for others after a failure.
    waits = "until [ -e $0.0 ] && [ -e $0.1 ]; do sleep 0.02; done; [ $ENGINE_PROCESS_ID = 0 ] && echo both"
    script = f"trap 'sleep 0.$ENGINE_PROCESS_ID; exit 143' TERM; touch $0.$ENGINE_PROCESS_ID; {waits}; sleep 600 & wait"
    before = signal.getsignal(signal.SIGTERM)
    command = ["sh", "-c", script, str(tmp_path / "ready")]
    assert launch_processes(command, 2, 3, lambda text: None, streams) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_resumed_command_keeps_its_options_but_overwrite():
    assert resume_command(["train", "--overwrite", "--resume", "-x"]) == ["train", "-x", "--resume"]


def test_cores_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7}, raising=False)
    assert [share_cores(rank, 2) for rank in range(2)] == [{2, 3}, {5, 7}]
    assert [share_cores(rank, 6) for rank in range(6)] == [{2}, {3}, {5}, {7}, {2}, {3}]
    assert share_devices(2, lambda: 4) == [{"JAX_LOCAL_DEVICE_IDS": "0,1"}, {"JAX_LOCAL_DEVICE_IDS": "2,3"}]
    assert share_devices(2, lambda: 0) == [{}, {}]
    with pytest.raises(InputError, match=r"-n: got 3; expected a number that divides the 4 GPUs of this machine"):
        share_devices(3, lambda: 4)


def test_gpus_are_counted_as_jax_would_see_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert launcher.count_gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launcher.count_gpus() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert launcher.count_gpus() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "0", "--", "ls"], "-n: got 0; expected a whole number of at least 1"),
        (["--restarts", "-1", "--", "ls"], "--restarts: got -1; expected"),
        (["-n", "2"], "command: got nothing; expected a command behind --"),
        (["--", "./nothere"], "command: got ./nothere (No such file or directory); expected"),
        (["--restarts", "1", "--", "ls", "--numbered"], "--numbered: got given; expected none with --restarts"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["launch", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_command_that_is_suggested_starts_all_processes_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["mine.py", "--mesh", "data=2"])
    alone = command_again("--resume")
    monkeypatch.setenv("ENGINE_LAUNCHED", "2")
    assert command_again("--resume").endswith(f"engine launch -n 2 -- {alone}")

"""Runs of several processes: the bits of one process with as many devices, and an end that is one for all."""

import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import engine
from engine.checkpoints.checksums import matches
from engine.checkpoints.packing import pack
from engine.checkpoints.record import Record
from engine.checkpoints.steps import checkpoints_of, choose_step, find_steps, read_record
from tests.conftest import HANG_SECONDS, QUICK_FLAGS
from tests.faults.comparison import read_arrays

ROOT = Path(__file__).parents[2]
PROGRAM = ["-m", "tests.processes.train"]


def start(kind: str, *options: str, devices: int = 1, **environment: str) -> subprocess.Popen:
    """One process of a run."""
    flags = f"{QUICK_FLAGS} --xla_force_host_platform_device_count={devices}"
    own = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *PROGRAM, kind, *options]
    return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start_all(
    count: int, kind: str, *options: str, own: dict[int, list[str]] | None = None, devices: int = 1
) -> list[subprocess.Popen]:
    """All processes of a run, each with so many devices. own: further options of some."""
    address = f"localhost:{find_port()}"
    return [
        start(
            kind, *options, *(own or {}).get(rank, []), f"--distributed={address}",
            devices=devices, ENGINE_NUM_PROCESSES=str(count), ENGINE_PROCESS_ID=str(rank),
        )
        for rank in range(count)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen], code: int = 0) -> list[str]:
    """What they print, once all have ended with that code."""
    printed = [process.communicate(timeout=HANG_SECONDS)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), "\n".join(printed)
    return printed


def last_record(run: Path) -> Record:
    return read_record(run, choose_step(run, "last"))


def assert_same_bits(ours: Record, theirs: Record) -> None:
    """Weights, optimizer state, best weights of members, totals and history, but for the time that each epoch took."""
    assert ours.checksums == theirs.checksums
    assert ours.totals == theirs.totals
    rows = ([{**row, "seconds": 0} for row in record.history] for record in (ours, theirs))
    assert next(rows) == next(rows)


IN_SHARES = """
import runpy
from engine.runs import together
together.LARGE_BYTES = 0
runpy.run_module("tests.processes.train", run_name="__main__", alter_sys=True)
"""


def test_processes_save_in_shares_what_any_other_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "shares.py").write_text(IN_SHARES)
    monkeypatch.setattr(f"{__name__}.PROGRAM", [str(tmp_path / "shares.py")])
    printed = finish(start_all(2, "members", "--mesh=member=2", f"--run-dir={tmp_path / 'run'}", "--train.epochs=1"))
    assert "checkpoints of 0.0 GB are written by all processes, in shares" in printed[0]
    record = last_record(tmp_path / "run")
    step = checkpoints_of(tmp_path / "run").resolve() / str(record.step)
    for name in record.checksums:
        arrays = jax.tree.leaves(read_arrays(step / name))
        assert matches(arrays, record.checksums[name], by_member=True)
        arrays[-1].reshape(-1).view(np.uint8)[-1] ^= 1
        assert not matches(arrays, record.checksums[name], by_member=True)
        assert {each.name for each in (step / name).glob("ocdbt.process_*")} == {"ocdbt.process_0", "ocdbt.process_1"}
    pack(tmp_path / "run", tmp_path / "run.engine")
    assert len(engine.restore(tmp_path / "run.engine", trust=True).members) == 2  # whose arrays are those hashed


KINDS = [
    ("resident", "data"),
    *(
        pytest.param(kind, "data", marks=pytest.mark.long)
        for kind in ("norm", "mixed", "thawed", "local", "accumulated", "whitened", "streamed")
    ),
    pytest.param("members", "member", marks=pytest.mark.long),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "axis"), KINDS)
def test_two_processes_give_the_bits_of_one_with_two_devices(kind: str, axis: str, tmp_path: Path):
    options, mesh = [kind, f"--mesh={axis}=2"], {name: tmp_path / name for name in ("one", "two")}
    one = start(*options, f"--run-dir={mesh['one']}", devices=2)
    log = ["--log=tensorboard"] if find_spec("tensorboardX") else []  # by process 0 alone, which the others wait for
    printed = finish(start_all(2, *options, *log, f"--run-dir={mesh['two']}"))
    finish([one])
    assert_same_bits(last_record(mesh["two"]), last_record(mesh["one"]))
    assert "best epoch" in printed[0] or "best step" in printed[0]
    assert "epoch" not in printed[1]  # process 0 speaks for all


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "mesh"),
    [("resident", "data=4"), ("norm", "data=4"), ("streamed", "data=4"), ("members", "member=2,data=2")],
)
def test_two_processes_of_two_devices_give_the_bits_of_four_of_one(kind: str, mesh: str, tmp_path: Path):
    runs = {count: tmp_path / str(count) for count in (2, 4)}
    for count, run in runs.items():
        finish(start_all(count, kind, f"--mesh={mesh}", f"--run-dir={run}", devices=4 // count))
    assert_same_bits(last_record(runs[2]), last_record(runs[4]))


@pytest.mark.long
def test_caches_of_their_own_are_of_no_matter(tmp_path: Path):
    """As on hosts that share no disk: each decodes for itself, and the second run finds what the first one left."""
    images, labels = load_digits().images, load_digits().target
    for number, (pixels, label) in enumerate(zip(images[:208], labels, strict=False)):
        (tmp_path / "data" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(tmp_path / "data" / str(label) / f"{number}.png")
    data, runs = f"--data.path={tmp_path / 'data'}", {name: tmp_path / name for name in ("one", "first", "second")}
    caches = {rank: tmp_path / f"cache {rank}" for rank in range(2)}
    own = {rank: [f"--data.cache-dir={cache}"] for rank, cache in caches.items()}
    for name in ("first", "second"):
        finish(start_all(2, "files", data, "--mesh=data=2", f"--run-dir={runs[name]}", own=own))
        assert [len([*cache.rglob("labels.npy")]) for cache in caches.values()] == [1, 1]  # one entry in each
    finish([start("files", data, "--mesh=data=2", f"--run-dir={runs['one']}", *own[0], devices=2)])
    for name in ("first", "second"):
        assert_same_bits(last_record(runs[name]), last_record(runs["one"]))


def test_processes_of_unlike_settings_are_named_and_end_together(tmp_path: Path):
    run = f"--run-dir={tmp_path / 'run'}"
    processes = start_all(2, "resident", "--mesh=data=2", run, own={1: ["--optim.learning-rate=0.1"]})
    printed = "".join(finish(processes, 2))
    assert "distributed: got other settings or data in process 1" in printed
    assert "config.optim.learning_rate" in printed
    assert not (tmp_path / "run" / "checkpoints").exists()


SLOW_DISK = """
import time
from engine.checkpoints.saving import Checkpoints
usual = Checkpoints.wait
def wait(self):
    time.sleep(4)  # longer than the farewell of the processes
    usual(self)
    print("all is on disk", flush=True)
Checkpoints.wait = wait
import runpy
runpy.run_module("tests.processes.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("receiver", [0, 1])
def test_stop_waits_until_process_0_has_saved(receiver: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The others have nothing to write and are done at once."""
    (tmp_path / "slow.py").write_text(SLOW_DISK)
    monkeypatch.setattr(f"{__name__}.PROGRAM", [str(tmp_path / "slow.py")])
    options = ["--train.epochs=1000000", f"--run-dir={tmp_path / 'run'}", "--mesh=data=2"]
    processes = start_all(2, "resident", *options, "--checkpoint.every-epochs=1000000")
    printed = ""
    while "epoch 2/" not in printed:
        assert processes[0].stdout
        line = processes[0].stdout.readline()
        assert line, printed
        printed += line
    processes[receiver].send_signal(signal.SIGTERM)
    first, second = finish(processes, 143)
    assert first.index("all is on disk") < first.index("stopped and saved at step")
    assert "stopped" not in second  # process 0 speaks for all
    assert len(find_steps(tmp_path / "run")) == 1

"""Joining other processes: what is read from the command line and the environment, and the mistakes in it."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError
from engine.processes import start
from engine.processes.sharing import compute_parts, shared_work
from engine.processes.start import join
from engine.processes.together import agree, all_succeed, exchange, from_first
from tests.conftest import HANG_SECONDS
from tests.processes.test_runs import find_port


@pytest.fixture(autouse=True)
def no_others(monkeypatch: pytest.MonkeyPatch):
    for name in ("ENGINE_DISTRIBUTED", "ENGINE_NUM_PROCESSES", "ENGINE_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)


def test_process_that_is_told_of_no_others_is_alone():
    join()
    assert (exchange({"a": 1}), from_first(lambda: [2]), agree(3.0, 4.0)) == ([{"a": 1}], [2], (3.0, 4.0))
    assert all_succeed(lambda: "own") == "own"
    with shared_work():
        assert list(compute_parts(3, lambda numbers: [n * n for n in numbers])) == [0, 1, 4]


@pytest.mark.parametrize(
    ("address", "count", "number", "message"),
    [
        ("node1", "2", "0", r"distributed: got 'node1'; expected auto or HOST:PORT"),
        ("localhost:70000", "2", "0", r"expected auto or HOST:PORT"),
        ("localhost:1234", "", "", r"ENGINE_NUM_PROCESSES=nothing, ENGINE_PROCESS_ID=nothing"),
        ("localhost:1234", "2", "2", r"ENGINE_PROCESS_ID=2; expected the number of processes, and that of this one"),
        ("localhost:1234", "two", "0", r"ENGINE_NUM_PROCESSES=two"),
    ],
)
def test_address_and_numbers_that_cannot_be_used_are_refused(
    address: str, count: str, number: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ENGINE_NUM_PROCESSES", count)
    monkeypatch.setenv("ENGINE_PROCESS_ID", number)
    with pytest.raises(InputError, match=message):
        join(address)


@pytest.mark.parametrize("host", ["localhost", "192.0.2.1"])  # the latter is of no host
def test_process_0_that_cannot_listen_says_so(host: str, monkeypatch: pytest.MonkeyPatch):
    """JAX's service fails there too, but sometimes by a segmentation fault."""
    monkeypatch.setenv("ENGINE_NUM_PROCESSES", "2")
    monkeypatch.setenv("ENGINE_PROCESS_ID", "0")
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        address = f"{host}:{other.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"^distributed: got {address} \(.*\); expected an address of this host"):
            join(address)


def test_mistake_of_one_process_is_told_as_it_is_to_one_alone():
    def fail() -> None:
        raise InputError("data: got nothing")

    with pytest.raises(InputError, match=r"^data: got nothing$"):
        from_first(fail)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0, "got 1 of 2 processes after 3 s, without process 1; expected"),
        (1, "got no answer of process 0 at localhost:"),
    ],
)
def test_process_that_does_not_come_is_named_without_the_log_of_jax(
    number: int, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ENGINE_NUM_PROCESSES", "2")
    monkeypatch.setenv("ENGINE_PROCESS_ID", str(number))
    code = "\n".join([
        "from engine.processes import start",
        "start.START_SECONDS, start.SPARE_SECONDS = 3, 2",
        f"try:\n    start.join('localhost:{find_port()}')",
        "except start.InputError as error:\n    print(error)",
    ])  # fmt: skip
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"distributed: {message}")


@pytest.mark.skipif(sys.platform != "linux", reason="sockets that are no files are of Linux")
def test_number_of_a_process_that_runs_is_refused_to_a_second_one(monkeypatch: pytest.MonkeyPatch):
    """On one host; of several, the first one hears of it from JAX."""
    monkeypatch.setenv("ENGINE_NUM_PROCESSES", "2")
    monkeypatch.setenv("ENGINE_PROCESS_ID", "1")
    address = f"127.0.0.1:{find_port()}"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0engine {address} 1")
        with pytest.raises(InputError, match=r"got ENGINE_PROCESS_ID=1 a second time; expected a number that no other"):
            join(address.replace("127.0.0.1", "localhost"))


def test_number_that_came_twice_is_read_from_the_log_of_jax():
    log = "ALREADY_EXISTS: Aborted connect attempt as there is a request from a newer incarnation."
    assert "ENGINE_PROCESS_ID=3 a second time" in start._failure("node1:1234", 3, "std::bad_cast", log)


@pytest.mark.skipif(sys.platform == "win32", reason="standard streams of POSIX")
def test_log_is_held_back_where_standard_error_is_closed(tmp_path: Path):
    """As in some services. No file that is opened later gets the number of standard error."""
    code = "\n".join([
        "import os, sys",
        "from engine.processes import start",
        "with start._holding_back_the_log() as held:",
        "    os.write(2, b'of C')",
        "    assert start._read_back(held) == b'of C'",
        "os.write(2, b'lost'); print('lost', file=sys.stderr)",
        "print(open(sys.argv[1]).fileno() > 2)",
    ])  # fmt: skip
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    done = subprocess.run(shell, stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n")


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="a policy of Linux")
def test_thread_of_gloo_does_not_preempt_others(monkeypatch: pytest.MonkeyPatch):
    """It alone: what starts it goes on as before."""
    from jax._src import xla_bridge

    seen: list[int] = []
    module: Any = getattr(xla_bridge, "_jax")  # noqa: B009  # not exported
    monkeypatch.setattr(module, "make_gloo_tcp_collectives", lambda: seen.append(os.sched_getscheduler(0)))
    start._keep_exchange_from_preempting()
    start._keep_exchange_from_preempting()
    module.make_gloo_tcp_collectives()
    assert seen == [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER

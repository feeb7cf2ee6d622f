"""Joining other processes: what is read from the command line and the environment, and the mistakes in it."""

import socket
import subprocess
import sys

import pytest

from engine.errors import InputError
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

"""Processes that are forked, where a start from nothing would spend three seconds on imports, and four of them twelve.

`prepare_to_fork` imports what a run needs, but starts no backend and no thread. What is forked then computes as if it
had been started: only the moments during the imports are not among those that can be hit.
"""

import contextlib
import gc
import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from tests.faults.processes import POLL_SECONDS, Started

IMPORTED = (
    "engine.commands.experiment", "engine.runs.loop", "engine.processes.sharing", "engine.report.page.write",
    "jax.experimental.multihost_utils", "orbax.checkpoint", "tests.faults.inside", "tests.faults.runs",
)  # fmt: skip


class Forked:
    """A forked process, with the part of subprocess.Popen that the harness uses."""

    def __init__(self, work: Callable[[], Any]):
        sys.stdout.flush()
        sys.stderr.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _work_and_exit(work)

    def poll(self) -> int | None:
        """The exit code, −signal where one ended it; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + (1e9 if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("forked", timeout or 0)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def prepare_to_fork() -> None:
    """Imports what runs need. The processes that are forked keep every program that they compile, each its own."""
    for name in IMPORTED:
        importlib.import_module(name)
    import jax._src.compiler

    import engine.host.xla_cache

    # JAX keeps those of process 0 only, though on CPUs no other process can use them.
    alone = SimpleNamespace(process_id=0, client=None)
    jax._src.compiler.distributed = SimpleNamespace(global_state=alone)  # pyright: ignore
    engine.host.xla_cache.LEAST_SECONDS = 0.0
    gc.collect()
    gc.freeze()


def fork(work: Callable[[], Any], files: Path, variables: dict[str, str]) -> Started:
    """A process, in a group of its own, that does some work; what it writes goes to files in a directory.

    variables: of its environment, beside those of this process.
    """
    files.mkdir(parents=True)

    def begin() -> Any:
        os.setsid()
        for number, name in ((1, "output"), (2, "errors")):
            os.dup2(os.open(files / name, os.O_CREAT | os.O_WRONLY), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(variables)
        return work()

    return Started(Forked(begin), files)


def compute_apart(work: Callable[[], Any]) -> Any:
    """What `work` returns, computed in a forked process, so that JAX does not start in this one."""
    out, into = os.pipe()

    def answer() -> None:
        os.close(out)
        with os.fdopen(into, "wb") as stream:
            pickle.dump(work(), stream)

    process = Forked(answer)
    os.close(into)
    with os.fdopen(out, "rb") as stream:
        data = stream.read()
    assert process.wait() == 0, "a process that compares or prepares has failed: see above"
    return pickle.loads(data)


def _work_and_exit(work: Callable[[], Any]) -> NoReturn:
    code = 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)

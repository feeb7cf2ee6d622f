"""The end of a run of several processes: when one ends by an error or a signal, all others end with the same code."""

import contextlib
import os
import sys
import threading
import time
from typing import Any, NoReturn

from engine.errors import Say
from engine.host.interrupts import SIGNALS
from engine.processes.lost import (
    PEER_LOST,
    REMEDY,
    SILENT_SECONDS,
    find_lost,
    first_name,
    is_cut_off,
    leave_with_parent,
    leaving_with,
    soften_abort,
    start_beating,
)
from engine.processes.start import LAUNCHED

KEY = "engine/ended"
STOPPED = tuple(128 + number for number in SIGNALS)  # exit codes of a stop that all processes make together
FAREWELL_SECONDS, LINGER_SECONDS = 2, 1  # the first passes only where one is lost, who will not come
LONGEST_SECONDS = 10 * 365 * 24 * 3600


def are_joined() -> bool:
    """Whether this process has joined others."""
    return _client() is not None


def watch(say: Say) -> None:
    """Ends this process as soon as another has called `end`, or is lost; `say` gets why."""
    import jax

    client, rank = _client(), _rank()

    def listen() -> None:
        try:
            text = client.blocking_key_value_get(KEY, LONGEST_SECONDS * 1000)
        except jax.errors.JaxRuntimeError:
            if not _is_over.is_set():
                _leave(PEER_LOST, f"error: {first_name()} is lost. {REMEDY}", say)
            return
        code, who, message = text.split("\n", 2)
        if int(who) != rank:
            message = message if int(code) in STOPPED else f"process {who}: {message}"
            _leave(int(code), message if rank == 0 else None, say)

    threading.Thread(target=listen, daemon=True).start()
    soften_abort(say, rank == 0)
    leave_with_parent(LAUNCHED in os.environ)
    start_beating(client, rank, lambda code, message: end(code, message, say), say)


def end_of(error: Exception) -> tuple[int, str]:
    """(exit code, message) for an error that was not caught: 75 if it is that another process is lost, else 1."""
    if not is_cut_off(error):
        return 1, "error: an exception, printed above or by that process"
    return PEER_LOST, f"error: {find_lost(_client())} is lost. {REMEDY}"


def end(code: int, message: str, say: Say) -> None:
    """Ends this process and all others with a code; the message is printed by process 0, and here unless all stop.

    Does nothing in a process that is alone.
    """
    client = _client()
    if client is None:
        return
    speaks = _rank() == 0 or code not in STOPPED
    try:
        client.key_value_set(KEY, f"{code}\n{_rank()}\n{message}")
    except Exception:  # another was first, or the service is gone: whatever it raises
        if _rank() == 0:
            threading.Event().wait()  # `watch` prints what the first one says, and ends this process
        speaks = False
    _leave(code, message if speaks else None, say)


def leave_together() -> None:
    """Waits until all processes are done with the run; then each ends, here and now. Does nothing in one alone.

    JAX's own farewell races: where process 0 is gone a moment before another has left, that is aborted.
    """
    client = _client()
    if client is None:
        return
    try:
        client.wait_at_barrier("engine/all are done", LONGEST_SECONDS * 1000)
    except Exception:  # whatever the service raises where another is lost, of which the threads tell
        threading.Event().wait(2 * SILENT_SECONDS)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """Ends this process; process 0 a moment later, because it serves the others until they have left."""
    _is_over.set()
    leaving_with.append(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if _rank() == 0:
        time.sleep(LINGER_SECONDS)
    os._exit(code)  # threads of XLA that wait for another process would keep it


_is_leaving, _is_over = threading.Lock(), threading.Event()


def _leave(code: int, message: str | None, say: Say) -> None:
    if not _is_leaving.acquire(blocking=False):
        threading.Event().wait()  # another thread is ending this process
    if message:
        say(message)
    leaving_with.append(code)  # should JAX lose patience with the process that is lost, this is still the end
    with contextlib.suppress(Exception):  # process 0 serves this to all: it stays until the others have heard it
        _client().wait_at_barrier("engine/all have heard", FAREWELL_SECONDS * 1000)
    _exit(code)


def _client() -> Any:
    """The client of the coordination service; None in a process that is alone, also where JAX is not loaded."""
    if "jax" not in sys.modules:
        return None
    from jax._src import distributed

    return distributed.global_state.client


def _rank() -> int:
    from jax._src import distributed

    return distributed.global_state.process_id

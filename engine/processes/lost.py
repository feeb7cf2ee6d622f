"""A process that is lost, killed or cut off, is named, and ends all others with exit code 75: to be started again.

JAX notices too, but then aborts what is left without a word. So each process says every second that it is alive, and
process 0 ends the run once another has been silent for SILENT_SECONDS, before JAX does. A process that cannot reach
process 0 for as long ends by itself; where the connection is closed, JAX aborts it, which is turned into the same end.
"""

import atexit
import ctypes
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from engine.errors import Say

PEER_LOST = 75  # EX_TEMPFAIL of sysexits.h
ALIVE = "engine/alive/"
BEAT_SECONDS, SILENT_SECONDS = 1.0, 20.0
REMEDY = "What was saved before stays: start all processes again, with --resume."
DOUBLED = (  # JAX ends process 0 for nothing else that we do not notice first
    "a process came with a number that another one has, as JAX says above: it was started a second time with the same "
    "ENGINE_PROCESS_ID, or again by itself after it was lost. Give each a number of its own."
)
CUT_OFF = re.compile(r"gloo|nccl|connection (closed|reset|refused)|socket closed|coordination|peer rank", re.IGNORECASE)
_first: list[str] = []  # process 0 in words, once it has said that it is alive
_kept: list[Any] = []  # what C calls must not be collected
leaving_with: list[int] = []  # the exit code that this process is about to end with, if it is


def start_beating(client: Any, rank: int, end: Callable[[int, str], None], say: Say) -> None:
    """Says from now on that this process is alive; ends the run, or this process, when others have fallen silent."""
    heard = [time.monotonic()]  # when process 0 last took in what was said

    def beat() -> None:
        seen: dict[str, tuple[str, float]] = {}
        count, last = 0, time.monotonic()
        while True:
            count, now = count + 1, time.monotonic()
            if now - last > SILENT_SECONDS / 2:  # it was this process that was stopped
                seen = {key: (text, now) for key, (text, _) in seen.items()}
            last = now
            try:
                client.key_value_set(f"{ALIVE}{rank}", f"{count} {socket.gethostname()}", allow_overwrite=True)
                found = read_beats(client) if rank == 0 or not _first else {}
            except Exception:  # whatever the service raises; the others hear of it by JAX
                return
            heard[0] = time.monotonic()
            if not _first:
                _first.extend(describe({key: text}) for key, text in found.items() if key == f"{ALIVE}0")
            for key, text in found.items():
                seen[key] = (text, now) if seen.get(key, ("", now))[0] != text else seen[key]
            silent = {key: text for key, (text, at) in seen.items() if now - at > SILENT_SECONDS}
            if silent and rank == 0:
                end(PEER_LOST, f"error: {describe(silent)} has been silent for {SILENT_SECONDS:.0f} s. {REMEDY}")
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=beat, daemon=True).start()
    if rank:
        threading.Thread(target=_watch_first, args=(heard, say), daemon=True).start()


def _watch_first(heard: list[float], say: Say) -> None:
    """Ends this process once process 0 has taken in nothing for SILENT_SECONDS: a call to it may wait for ever."""
    last = time.monotonic()
    while True:
        now = time.monotonic()
        if now - last > SILENT_SECONDS / 2:  # it was this process that was stopped
            heard[0] = now
        last = now
        if now - heard[0] > SILENT_SECONDS:
            _leave_cut_off(say)
        time.sleep(BEAT_SECONDS)


def _leave_cut_off(say: Say, is_first: bool = False) -> None:
    if leaving_with:
        os._exit(leaving_with[0])
    say(f"error: {DOUBLED if is_first else f'{first_name()}, or the connection to it, is lost.'} {REMEDY}")
    sys.stderr.flush()
    os._exit(PEER_LOST)


def first_name() -> str:
    """`process 0 on node7`; without its host where it has not been heard of."""
    return _first[0] if _first else "process 0"


def leave_with_parent(is_launched: bool) -> None:
    """If `engine launch` started this process: asks it to save and stop, by SIGTERM, once that is there no more.

    Without it the output has no reader, and a process that cannot write may wait for ever.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(BEAT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    if is_launched:
        threading.Thread(target=look, daemon=True).start()


def read_beats(client: Any) -> dict[str, str]:
    """What each process said last, by its key."""
    return dict(client.key_value_dir_get(ALIVE))


def describe(beats: dict[str, str]) -> str:
    """`process 1 on node7, process 2 on node8`: who these were."""
    return ", ".join(f"process {key.rsplit('/', 1)[-1]} on {text.split(' ', 1)[-1]}" for key, text in beats.items())


def is_cut_off(error: BaseException) -> bool:
    """Whether an error of JAX says that another process cannot be reached."""
    return type(error).__module__.split(".")[0] in ("jax", "jaxlib", "builtins") and bool(CUT_OFF.search(str(error)))


def find_lost(client: Any) -> str:
    """Who is silent now, in words, after waiting for three beats."""
    try:
        before = read_beats(client)
        time.sleep(3 * BEAT_SECONDS)
        after = read_beats(client)
    except Exception:  # whatever the service raises
        return first_name()
    silent = {key: text for key, text in after.items() if before.get(key) == text}
    return describe(silent) if silent else "another process"


def soften_abort(say: Say, is_first: bool = False) -> None:
    """Turns the abort of JAX that has lost process 0 into exit code 75."""
    if sys.platform == "win32":
        return

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def handle(number: int) -> None:
        _leave_cut_off(say, is_first)

    # Python's own handlers wait for the main thread, which waits for the process that is lost.
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, type(handle)), ctypes.c_void_p
    library.signal(signal.SIGABRT, handle)
    _kept.append(handle)
    # While the interpreter is torn down, no code of ours can run.
    atexit.register(signal.signal, signal.SIGABRT, signal.SIG_DFL)

"""What is done to a hurt run inside its process, and what it tells of itself: moments at which it can be killed.

$FAULTS, a JSON object, says what: `trace`, a file that is told of each kind of work begun and ended and of each file
operation below `run_dir`; `kill_at`, the number of the file operation before which the process kills itself;
`kill_after`, [line, count, seconds]: it does so that long after it has told that line so often; `clock`, seconds that
its clock is off; `file_bytes`, the size that no file may exceed; `raise_after`, [line, count]: raises an error when it
has told that line so often; `full_after`, [line, count, bytes]: no file may exceed that size from then on; `slow`, how
many times slower its clocks go; `free_bytes`, of memory that it takes to be free for data; `in_shares`: each of several
processes saves its share.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Audit events of the interpreter; what Orbax writes from C++ is not among them, what it renames and removes is.
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


def prepare() -> None:
    """Does what $FAULTS asks for; nothing without it."""
    faults: dict[str, Any] = json.loads(os.environ.get("FAULTS", "{}"))
    if "clock" in faults:
        _shift_clock(faults["clock"])
    if "slow" in faults:
        _slow_clocks(faults["slow"])
    if "free_bytes" in faults:
        from engine.training import feed

        feed.free_host_bytes = lambda: faults["free_bytes"]
    if faults.get("in_shares"):
        from engine.runs import together

        together.LARGE_BYTES = 0
    if "file_bytes" in faults:
        _limit_files(faults["file_bytes"])
    if "trace" in faults:
        file, counts = os.open(faults["trace"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), Counter()
        line_of_kill, count, seconds = faults.get("kill_after", (None, 0, 0.0))
        line_of_error, count_of_error = faults.get("raise_after", (None, 0))
        line_of_disk, count_of_disk, bytes_of_disk = faults.get("full_after", (None, 0, 0))

        def tell(line: str) -> None:
            with contextlib.suppress(OSError):  # the disk is full
                os.write(file, f"{line}\n".encode())  # one call, at once: nothing is lost in a buffer by a kill
            counts[line] += 1
            if line == line_of_kill and counts[line] == count:
                threading.Thread(target=_end, args=(seconds,), daemon=True).start()
            if line == line_of_error and counts[line] == count_of_error:
                os.write(file, f"hurt {time.monotonic()}\n".encode())
                raise RuntimeError("a mistake in one process")
            if line == line_of_disk and counts[line] == count_of_disk:
                os.write(file, f"hurt {time.monotonic()}\n".encode())
                _limit_files(bytes_of_disk)

        _tell_of_files(tell, str(Path(faults["run_dir"]).resolve()), faults.get("kill_at"))
        _tell_of_work(tell)
        tell("ready")


def _limit_files(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _end(seconds: float = 0.0) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def _slow_clocks(factor: float) -> None:
    """Of what a run measures: how long its steps take, and when it was saved."""
    for name in ("perf_counter", "monotonic"):
        clock = getattr(time, name)
        start = clock()
        setattr(time, name, lambda clock=clock, start=start: start + (clock() - start) / factor)


def _shift_clock(seconds: float) -> None:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + round(seconds * 1e9)


def _tell_of_work(tell: Callable[[str], None]) -> None:
    """Tells `> kind` and `< kind` around what the run's clock measures: data, compile, train, eval, save."""
    from engine.host.clock import Clock

    measure = Clock.measure

    @contextlib.contextmanager
    def told(clock: Clock, kind: str) -> Iterator[None]:
        tell(f"> {kind}")
        try:
            with measure(clock, kind):
                yield
        finally:
            tell(f"< {kind}")

    Clock.measure = told


def _tell_of_files(tell: Callable[[str], None], run_dir: str, kill_at: int | None) -> None:
    numbers = itertools.count()

    def hook(event: str, arguments: tuple) -> None:
        if event not in OPERATIONS:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        path = _path_of(event, arguments)
        if not path.startswith(run_dir + "/"):
            return
        number = next(numbers)
        tell(f"file {event.removeprefix('os.')} {path[len(run_dir) + 1 :]}")
        if number == kill_at:
            _end()

    sys.addaudithook(hook)


def _path_of(event: str, arguments: tuple) -> str:
    """The path an operation is about, also where it is named by an open directory, as shutil.rmtree does."""
    try:
        path = os.fsdecode(arguments[0])
    except TypeError:  # a file descriptor
        return ""
    directory = {"os.mkdir": 2, "os.remove": 1, "os.rmdir": 1}.get(event)
    if directory is not None and arguments[directory] >= 0:
        return f"{os.readlink(f'/proc/self/fd/{arguments[directory]}')}/{path}"
    return os.path.abspath(path)

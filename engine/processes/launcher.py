"""The processes of one run on this machine: started together, ended together, and started again when one was lost."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from engine.errors import InputError, Say, problem
from engine.host.cores import XLA_VARIABLES, num_cores
from engine.host.interrupts import SIGNALS
from engine.processes.ends import PEER_LOST, STOPPED
from engine.processes.start import DISTRIBUTED, LAUNCHED, NUM_PROCESSES, PROCESS_ID

GRACE_SECONDS = 10.0  # for the others to end by themselves, with a message, after one has failed
POLL_SECONDS = 0.05
GLOO = b"[Gloo] Rank "
MOST_LINE_BYTES, MOST_LINES = 2**16, 1000


@dataclass
class Merger:
    """Writes the lines of all processes: those of process 0 as they are, `[1] ` before those of process 1.

    A line that several print is written once, as often as that one prints it that prints it most. What gloo says on
    meeting the others, once for each set of processes that exchange arrays, is not written.
    """

    streams: Mapping[str, IO[bytes]]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _counts: dict[tuple[str, bytes], Counter[int]] = field(default_factory=dict)

    def write(self, rank: int, name: str, line: bytes) -> None:
        """Writes a line of a process to the stream of that name, unless another process has printed it."""
        if line.startswith(GLOO):
            return
        with self._lock:
            counts = self._counts.setdefault((name, line), Counter())
            is_known = counts[rank] < max(counts.values(), default=0)
            counts[rank] += 1
            if len(self._counts) > MOST_LINES:
                del self._counts[next(iter(self._counts))]
            if is_known:
                return
            end = b"" if line.endswith(b"\n") else b"\n"
            with contextlib.suppress(OSError, ValueError):  # the reader is gone: the run goes on
                self.streams[name].write((b"[%d] " % rank if rank else b"") + line + end)
                self.streams[name].flush()


def launch_processes(
    command: Sequence[str], count: int, restarts: int, say: Say, streams: Mapping[str, IO[bytes]] | None = None
) -> int:
    """Runs the command in so many processes until all have ended; the exit code of the first that failed, or 0.

    75 if one was killed; the run is then started again, with `--resume`, up to `restarts` times. Raises InputError if
    the command cannot be run, or if this machine has fewer GPUs.
    """
    merger, code, stop = Merger(streams or {"out": sys.stdout.buffer, "err": sys.stderr.buffer}), PEER_LOST, Stop()
    with stop.pass_on():
        for attempt in range(restarts + 1):
            if attempt:
                say(f"starting again with --resume ({attempt} of {restarts})")
                command = resume_command(command)
            code = run_once(command, count, merger, stop, say)
            if code != PEER_LOST or stop.number is not None:
                break
    return code


def resume_command(command: Sequence[str]) -> list[str]:
    """The command with --resume, and without --overwrite."""
    kept = [word for word in command if word not in ("--overwrite", "--resume")]
    return [*kept, "--resume"]


@dataclass
class Stop:
    """The signal that ended the work, if any, and whom signals are passed on to."""

    number: int | None = None
    receivers: Sequence[subprocess.Popen] = ()

    @contextlib.contextmanager
    def pass_on(self) -> Iterator[None]:
        """Passes Ctrl-C and SIGTERM on to all processes, which decide together at which step they stop."""

        def pass_on(number: int, frame: object) -> None:
            self.number = number
            for process in self.receivers:
                process.send_signal(number)  # nothing happens if it has ended

        before = {number: signal.signal(number, pass_on) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_once(command: Sequence[str], count: int, merger: Merger, stop: Stop, say: Say) -> int:
    """Starts the processes and waits until all have ended; the exit code of `launch_processes`."""
    shares, port, processes = share_devices(count), find_port(), []
    try:
        for rank in range(count):
            own = {
                DISTRIBUTED: f"127.0.0.1:{port}",
                NUM_PROCESSES: str(count),
                PROCESS_ID: str(rank),
                LAUNCHED: str(count),
            }
            own |= {**shares[rank], **share_threads(count)}
            processes.append(start_process(command, own, share_cores(rank, count)))
            stop.receivers = tuple(processes)
        pumps = [pump for rank, process in enumerate(processes) for pump in start_pumps(rank, process, merger)]
        if stop.number is not None:  # it came while no process was there to get it
            for process in processes:
                process.send_signal(stop.number)
        rank, code = wait_for_all(processes)
        for pump in pumps:
            pump.join(1.0)  # longer only if a process left behind holds the pipe
    finally:
        for process in processes:
            if process.poll() is None:
                end_group(process)
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    say(f"error: process {rank} of {count} was ended by {name}. What was saved before stays; --resume goes on from it.")
    return PEER_LOST


def start_process(command: Sequence[str], own: Mapping[str, str], cores: set[int]) -> subprocess.Popen:
    """One process, on these cores, in a process group of its own, so that Ctrl-C reaches it through us alone."""
    before = os.sched_getaffinity(0) if cores else set()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **own}
    try:
        if cores:
            os.sched_setaffinity(0, cores)  # of this thread; the child inherits it
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen(
            command, env=environment, stdin=nothing, stdout=pipe, stderr=pipe, process_group=0, bufsize=MOST_LINE_BYTES
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        rule = "a program that can be run, behind --"
        remedy = "Write: engine launch -n 4 -- engine train convnet --mesh data=4."
        raise InputError(problem("command", f"{command[0]} ({why})", rule, remedy)) from None
    finally:
        if cores:
            os.sched_setaffinity(0, before)


def start_pumps(rank: int, process: subprocess.Popen, merger: Merger) -> list[threading.Thread]:
    """The threads that hand on what a process prints, line by line."""

    def pump(name: str, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError), stream:
            while line := stream.readline(MOST_LINE_BYTES):
                merger.write(rank, name, line)

    assert process.stdout
    assert process.stderr
    streams = {"out": process.stdout, "err": process.stderr}
    threads = [threading.Thread(target=pump, args=each, daemon=True) for each in streams.items()]
    for thread in threads:
        thread.start()
    return threads


def wait_for_all(processes: Sequence[subprocess.Popen]) -> tuple[int, int]:
    """(number, exit code) of the first process that failed, once all have ended; code 0 if none did.

    After a failure the others get GRACE_SECONDS. One that saved after a signal is none: the others are saving too.
    """
    codes: list[int | None] = [None] * len(processes)
    first, deadline = (0, 0), None
    while True:
        before, codes = codes, [process.poll() for process in processes]
        for process in (each for each, then, now in zip(processes, before, codes, strict=True) if now and not then):
            end_group(process)  # readers of data that it left behind hold its pipes open
        failed = [(rank, code) for rank, code in enumerate(codes) if code]
        if failed and first[1] in (0, *STOPPED):
            # Of several that are found at once, one that says itself why it failed rather than one that followed it.
            worst = min(failed, key=lambda each: (each[1] in STOPPED, each[1] == PEER_LOST, each[1] < 0))
            first = worst if first[1] == 0 or worst[1] not in STOPPED else first
            if first[1] not in STOPPED:
                deadline = time.monotonic() + GRACE_SECONDS
        if None not in codes:
            return first
        if deadline is not None and time.monotonic() > deadline:
            for process in (each for each, code in zip(processes, codes, strict=True) if code is None):
                end_group(process)
        time.sleep(POLL_SECONDS)


def end_group(process: subprocess.Popen) -> None:
    """Kills a process, if it still runs, and those that it started and that outlived it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def find_port() -> int:
    """A port that is free on this machine now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def share_cores(rank: int, count: int) -> set[int]:
    """The cores of a process: its share of those that this one may use, in turn if there are fewer than processes."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // count)
    return {cores[(rank * share + i) % len(cores)] for i in range(share)}


def share_threads(count: int) -> dict[str, str]:
    """What limits the threads of each process to its share, where a cgroup allows fewer than there are cores."""
    return {XLA_VARIABLES[0]: str(max(1, num_cores() // count))}


def share_devices(count: int, count_all: Callable[[], int] | None = None) -> list[dict[str, str]]:
    """What tells each process which GPUs of this machine are its own; nothing where there are none."""
    found = (count_all or count_gpus)()
    if not found:
        return [{}] * count
    if found % count:
        rule = f"a number that divides the {found} GPUs of this machine"
        raise InputError(problem("-n", count, rule, "Set JAX_PLATFORMS=cpu to train on its processors instead."))
    share = found // count
    numbers = [range(rank * share, (rank + 1) * share) for rank in range(count)]
    return [{"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, own))} for own in numbers]


def count_gpus() -> int:
    """NVIDIA GPUs that JAX would use here: 0 if it is set to use others or none."""
    if os.environ.get("JAX_PLATFORMS", "cuda").split(",")[0] not in ("cuda", "gpu"):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit()])

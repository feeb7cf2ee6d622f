"""Inputs by number, tried in processes of their own, of which one that dies or hangs is replaced."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Queue
from threading import Thread
from typing import IO


def answers(
    command: Callable[[int, int], list[str]], numbers: Sequence[int], start_seconds: float, seconds: float
) -> Iterator[tuple[int, str, str]]:
    """(number, outcome, words) of each; the outcome of one at which its process dies or hangs is "crashed".

    command: of a worker for the numbers from the first on and before the second, which prints `ready` within
      start_seconds, and then `outcome<tab>words` for each within `seconds`.
    """
    done = 0
    while done < len(numbers):
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(
                [sys.executable, *command(numbers[done], numbers[-1] + 1)],
                stdout=subprocess.PIPE, stderr=said, text=True, bufsize=1,
            ) as worker,
        ):  # fmt: skip
            lines = _lines(worker.stdout)
            if _next(lines, start_seconds) != "ready":
                said.seek(0)
                raise RuntimeError(f"no worker: {said.read()}")
            while done < len(numbers) and (line := _next(lines, seconds)):
                name, _, words = line.partition("\t")
                yield numbers[done], name, words
                done += 1
            if done < len(numbers):
                worker.kill()  # to no effect where it has ended by itself
                said.seek(0)
                words = "no end" if line is None else f"the process ended with {worker.wait()}: {said.read()[-500:]}"
                yield numbers[done], "crashed", words
                done += 1
            else:
                said.seek(0)
                for text in sorted(set(said))[:5]:
                    print(text.rstrip(), file=sys.stderr)


def _lines(stream: IO[str] | None) -> Queue[str]:
    """The lines of a stream as they come, and an empty one at its end."""
    assert stream is not None
    lines: Queue[str] = Queue()

    def read() -> None:
        for line in stream:
            lines.put(line.rstrip("\n"))
        lines.put("")

    Thread(target=read, daemon=True).start()
    return lines


def _next(lines: Queue[str], seconds: float) -> str | None:
    """The next line, an empty one at the end; None if there is none in time."""
    try:
        return lines.get(timeout=seconds)
    except Empty:
        return None

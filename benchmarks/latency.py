"""How long does one picture take: by `classifier.predict` in a process that goes on, and by `engine predict`?

    python -m benchmarks.latency
    python -m benchmarks.latency --calls-only

Calls: of files of 28×28 pixels, decoded each time; all by one thread, then as many by four threads together.
Commands: whole processes that take turns with ones that only import jax and flax; the
difference is taken round by round.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.console import Console

from benchmarks.measure import Measuring, interleaved, median_and_spread, show_circumstances, write_json
from engine.config import RunConfig
from engine.inference.restore import restore
from engine.report.progress import Silent
from engine.runs.loop import run
from experiments import convnet

THREADS = 4


@dataclass(frozen=True)
class Options(Measuring):
    """How often to measure."""

    rounds: int = 7
    """Rounds in which the two take turns."""
    calls: int = 10_000
    """Of each kind of file."""
    calls_only: bool = False
    """Measure only the calls within a process."""


def main(options: Options) -> None:
    """Saves an untrained convnet, whose weights take as long as any, and measures."""
    console = Console(highlight=False, soft_wrap=True)
    show_circumstances(console)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "run"
        run(untrained(), directory, reporter=Silent())
        calls = measure_calls(directory, 20 if options.smoke else options.calls, console)
        if options.calls_only:
            write_json(options.json, {"calls": calls})
            return
        predict = ["-m", "engine", "predict", str(directory), str(directory / "example.png")]
        variants = {
            "predict": lambda: _seconds(predict),
            "imports": lambda: _seconds(["-c", "import jax, flax.nnx"]),
        }
        seconds = interleaved(variants, 1 if options.smoke else options.rounds)
    for name, values in seconds.items():
        median, spread = median_and_spread(values)
        console.print(f"{name}: {median:.2f} s ±{spread:.0%} over {len(values)} rounds")
    beyond = [a - b for a, b in zip(seconds["predict"], seconds["imports"], strict=True)]
    low, high = min(beyond), max(beyond)
    console.print(f"engine predict beyond the imports: {statistics.median(beyond):.2f} s ({low:.2f} to {high:.2f})")
    write_json(options.json, {"seconds": seconds, "calls": calls})


def measure_calls(directory: Path, count: int, console: Console) -> dict[str, dict[str, float]]:
    """{kind of file: ms of a call, and calls a second of one thread and of four} of the run in a directory."""
    classifier, image = restore(directory), Image.open(directory / "example.png").convert("L").resize((28, 28))
    found = {}
    for kind in ("png", "jpg"):
        image.save(path := directory.with_name(f"picture.{kind}"))
        classifier.predict(path)
        ms, rates = list[float](), dict[int, float]()
        for threads in (1, THREADS):
            start = time.perf_counter()
            ms_of_these = _call(lambda path=path: classifier.predict(path), count, threads)
            rates[threads] = count / (time.perf_counter() - start)
            ms = ms or ms_of_these
        p50, p99 = np.percentile(ms, (50, 99)).tolist()
        found[kind] = {"p50_ms": p50, "p99_ms": p99, "rate": rates[1], f"rate_of_{THREADS}": rates[THREADS]}
        text = f"{kind}, {count:,} calls: p50 {p50:.2f} ms, p99 {p99:.2f} ms; {rates[1]:,.0f} calls a second"
        console.print(f"{text}, by {THREADS} threads at once {rates[THREADS]:,.0f}")
    return found


def _call(function: Callable[[], object], count: int, threads: int) -> list[float]:
    """Milliseconds of each of so many calls, shared by threads that start together."""
    ms, together = list[float](), threading.Barrier(threads)

    def work() -> None:
        together.wait()
        for _ in range(count // threads):
            start = time.perf_counter()
            function()
            ms.append((time.perf_counter() - start) * 1e3)

    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return ms


def untrained() -> RunConfig:
    """The convnet's config with no epoch to train."""
    config = convnet.config()
    return replace(config, train=replace(config.train, epochs=0))


def _seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""How long does `engine predict` take on one image, beyond the import of jax and flax, with warm caches?

    python -m benchmarks.latency

Both are whole processes that take turns; the difference is taken round by round.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console

from benchmarks.measure import Measuring, interleaved, median_and_spread, show_circumstances, write_json
from engine.config import RunConfig
from engine.report.progress import Silent
from engine.runs.loop import run
from experiments import convnet


@dataclass(frozen=True)
class Options(Measuring):
    """How often to measure."""

    rounds: int = 7
    """Rounds in which the two take turns."""


def main(options: Options) -> None:
    """Saves an untrained convnet, whose weights take as long as any, and measures."""
    console = Console(highlight=False, soft_wrap=True)
    show_circumstances(console)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "run"
        run(untrained(), directory, reporter=Silent())
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
    write_json(options.json, {"seconds": seconds})


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

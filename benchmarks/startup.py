"""How long does it take until the first training step, and until the first prediction?

    python -m benchmarks.startup

Every figure is from a fresh process. In a round `python -m experiments.convnet` is run until its first step is done
with an empty cache (nothing decoded, nothing compiled) and again; then a saved run is restored and asked about a
picture, twice in the same way. The packages' files are in the page cache all the while.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.latency import untrained
from benchmarks.measure import Measuring, median_and_spread, show_circumstances, take_turns, write_json
from benchmarks.startup_parts import TO_FIRST_STEP
from engine.report.progress import Silent
from engine.runs.loop import run


@dataclass(frozen=True)
class Options(Measuring):
    """How often to measure."""

    rounds: int = 7
    """Rounds in which the processes take turns."""


def main(options: Options) -> None:
    """Measures and prints."""
    console = Console(width=120, highlight=False)
    show_circumstances(console)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(Path(scratch), 1 if options.smoke else options.rounds)
    for name, seconds in figures.items():
        console.print(_table(name, seconds))
    median, spread = median_and_spread(figures["training, warm"][TO_FIRST_STEP])
    console.print(f"warm, {TO_FIRST_STEP}: {median:.2f} s ±{spread:.0%}")
    write_json(options.json, {"seconds": figures})


def measure(scratch: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each part of each kind of start, in each round."""
    run(untrained(), scratch / "saved", reporter=Silent())
    caches: list[Path] = []

    def with_empty_cache() -> dict[str, float]:
        caches.append(Path(tempfile.mkdtemp(dir=scratch)))
        return in_process("until_first_step", scratch, caches[-1])

    variants: dict[str, Callable[[], dict[str, float]]] = {
        "training, cold": with_empty_cache,
        "training, warm": lambda: in_process("until_first_step", scratch, caches[-1]),
        "prediction, cold": lambda: in_process("until_first_prediction", scratch, caches[-1]),
        "prediction, warm": lambda: in_process("until_first_prediction", scratch, caches[-1]),
    }
    rows = take_turns(variants, rounds)
    return {name: {part: [row[name][part] for row in rows] for part in rows[0][name]} for name in variants}


def in_process(function: str, scratch: Path, cache: Path) -> dict[str, float]:
    """What a function of benchmarks/startup_parts.py prints in a process of its own with that cache directory."""
    program = f"import sys; from benchmarks.startup_parts import {function}; {function}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(scratch)],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=Path(__file__).parents[1], env={**os.environ, "ENGINE_CACHE_DIR": str(cache)},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def _table(name: str, seconds: dict[str, list[float]]) -> Table:
    table = Table(title=name)
    for column in ("part", "seconds"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, values in seconds.items():
        table.add_row(part, f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""Do time and memory grow no faster than the work, as images, files, classes, pixels, members and devices grow?

    python -m benchmarks.scaling
    python -m benchmarks.scaling --series classes members --rounds 1
    python -m benchmarks.scaling --processes 2

Each point is a fresh process: a whole run of a tiny net with its saving, report and scores by class (images: 4×4,
streamed from a file; files: opening a folder that was decoded before), and how much memory the process took beyond its
imports (on an accelerator: the device's peak). The exponent is the slope of a straight line through the logarithms: 1
for what grows like its work, 0 for what does not grow. What a process takes for any run, a compiler for instance, makes
small points flatter, so the slope between the two largest points is given too. Each device brings as many images and as
large a batch as the first: on accelerators the time should stay, on a CPU, whose cores all the devices that it is made
to show share, it should grow like the work.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measuring, median_and_spread, show_circumstances, take_turns, write_json
from benchmarks.scaling_processes import compare_processes, make_table, make_table_of_data, measure_data
from benchmarks.scaling_series import SERIES

SHORT = 2  # values of a series
KINDS = {"time": "seconds", "processor": "processor_seconds", "memory": "bytes"}


@dataclass(frozen=True)
class Options(Measuring):
    """What to vary and how long to measure."""

    series: tuple[str, ...] = tuple(SERIES)
    """What grows."""
    short: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only the two smallest values of each, once."""
    rounds: int = 3
    """Rounds in which the points of a series take turns."""
    processes: int = 1
    """With more than one: measures instead what so many processes of this machine cost beside one that has as many
    threads, for the convnet."""
    epochs: int = 3
    """Measured in each of these processes; the fastest counts."""


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = replace(options, series=options.series[:1], short=True, epochs=1)
    if options.short:
        options = replace(options, rounds=1)
    console = Console(width=120, highlight=False)
    show_circumstances(console)
    if options.processes > 1:
        compared = compare_processes(options.processes, options.rounds, options.epochs)
        console.print(make_table(compared))
        data = measure_data(options.processes)
        console.print(make_table_of_data(data))
        write_json(options.json, {"processes": compared, "data": data})
        return
    figures = {}
    for name in options.series:
        figures[name] = measure_series(name, options)
        console.print(_table(name, figures[name]))
        write_json(options.json, {"series": figures})


def measure_series(name: str, options: Options) -> dict[str, Any]:
    """Seconds and bytes at each value of a series in each round, the work, and the exponents of both."""
    series = SERIES[name]
    values = series.values[:SHORT] if options.short else series.values
    if name == "devices" and jax.default_backend() != "cpu":
        values = tuple(value for value in values if value <= jax.device_count())
    with tempfile.TemporaryDirectory(prefix="engine-scaling-") as scratch:
        places = {value: Path(scratch) / str(value) for value in values}
        for value, place in places.items():
            place.mkdir()
            _in_process("SERIES[sys.argv[1]].prepare(int(sys.argv[2]), Path(sys.argv[3]))", name, value, place)
        measured = "print(json.dumps(measure_point(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))"
        variants = {
            str(value): lambda value=value: json.loads(_in_process(measured, name, value, places[value]))
            for value in values
        }
        rows = take_turns(variants, options.rounds)
    work, figures = [series.work(value) for value in values], dict[str, Any]()
    for kind, field in KINDS.items():
        figures[field] = [[row[str(value)][field] for row in rows] for value in values]
        medians = [median_and_spread(one)[0] for one in figures[field]]
        figures[f"{kind}_exponent"] = exponent(work, medians)
        figures[f"last_{kind}_exponent"] = exponent(work[-2:], medians[-2:])
    return {"values": values, "work": work, **figures}


def exponent(work: list[float], costs: list[float]) -> float:
    """The slope of the least-squares line through (log work, log cost)."""
    slope, _ = np.polyfit(np.log(work), np.log(costs), 1)
    return float(slope)


def _in_process(statement: str, name: str, value: int, place: Path) -> str:
    """The last line that a statement prints in a process of its own."""
    program = (
        "import json, sys; from pathlib import Path; from benchmarks.scaling_series import SERIES, measure_point\n"
    )
    command = [sys.executable, "-c", program + statement, name, str(value), str(place)]
    shown = f"--xla_force_host_platform_device_count={value if name == 'devices' else 1}"  # of a CPU
    flags = f"{os.environ.get('XLA_FLAGS', '')} {shown}"
    root = Path(__file__).parents[1]
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root, env=environment)
    return (done.stdout.splitlines() or [""])[-1]


def _table(name: str, figures: dict[str, Any]) -> Table:
    grows = [
        f"{kind} like work^{figures[f'{kind}_exponent']:.2f} (last two: {figures[f'last_{kind}_exponent']:.2f})"
        for kind in KINDS
    ]
    table = Table(title=", ".join(grows), title_justify="left", min_width=80)
    for column in (name, "work", "seconds", "of processors", "megabytes"):
        table.add_column(column, justify="right")
    least = figures["work"][0]
    rows = zip(figures["values"], figures["work"], *(figures[field] for field in KINDS.values()), strict=True)
    for value, work, *measured in rows:
        found = [median_and_spread(each) for each in measured]
        scales, digits = (1, 1, 1e6), (3, 2, 0)
        cells = [
            f"{number / scale:,.{places}f} ±{spread:.0%}"
            for (number, spread), scale, places in zip(found, scales, digits, strict=True)
        ]
        table.add_row(f"{value:,}", f"{work / least:,.0f}", *cells)
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

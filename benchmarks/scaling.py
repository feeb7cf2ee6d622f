"""Do time and memory grow no faster than the work, as images, pixels, classes, members and devices grow?

    python -m benchmarks.scaling
    python -m benchmarks.scaling --processes 2

Each point is a fresh process that trains the convnet for one epoch unmeasured and some measured, and says how long
the fastest took and how much memory the process took beyond its imports (on an accelerator: the device's peak). The
exponent is the slope of a straight line through the logarithms: 1 for what grows like its work, 0 for what does not
grow. What a process takes for any run, a compiler for instance, makes small points flatter. Each device brings as many
images and as large a batch as the first: on accelerators the time should stay, on a CPU, whose cores all the devices
that it is made to show share, it should grow like the work.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measuring, median_and_spread, show_circumstances, take_turns, write_json
from benchmarks.scaling_processes import compare_processes, make_table
from benchmarks.throughput import Training
from benchmarks.workloads import Workload, operations, workload_of

CONVNET = workload_of("convnet")


@dataclass(frozen=True)
class Point:
    """What one process trains: a workload on so many images, with so many members; over how many devices, if at all."""

    workload: Workload
    num_images: int
    members: int = 1
    devices: int | None = None


@dataclass(frozen=True)
class Axis:
    """Something that grows: its values, the point for each, and the work there, up to a factor."""

    values: tuple[int, ...]
    point: Callable[[int], Point]
    work: Callable[[int], float]


def _with_size(pixels: int) -> Workload:
    return replace(CONVNET, input_shape=(pixels, pixels, 1))


AXES = {
    "images": Axis((1_000, 4_000, 16_000, 64_000), lambda n: Point(CONVNET, n), float),
    "image size": Axis(
        (28, 56, 112, 224), lambda size: Point(_with_size(size), 256),
        lambda size: operations(_with_size(size).model(), _with_size(size).input_shape),
    ),
    "classes": Axis((10, 100, 1_000), lambda k: Point(replace(CONVNET, num_classes=k), 4_000), float),
    "members": Axis((1, 2, 4, 8), lambda m: Point(CONVNET, 2_000, m), float),
    "devices": Axis(
        (1, 2, 4, 8), lambda n: Point(replace(CONVNET, batch_size=CONVNET.batch_size * n), 2_000 * n, 1, n), float
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options(Measuring):
    """What to vary and how long to measure."""

    axes: tuple[str, ...] = tuple(AXES)
    """What grows."""
    rounds: int = 5
    """Rounds in which the points of an axis take turns."""
    epochs: int = 3
    """Measured in each process; the fastest counts."""
    processes: int = 1
    """With more than one: measures instead what so many processes of this machine cost beside one that has as many
    threads, for the convnet."""


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = replace(options, axes=options.axes[:1], rounds=1, epochs=1)
    console = Console(width=120, highlight=False)
    show_circumstances(console)
    if options.processes > 1:
        compared = compare_processes(options.processes, options.rounds, options.epochs)
        console.print(make_table(compared))
        write_json(options.json, {"processes": compared})
        return
    figures = {}
    for name in options.axes:
        figures[name] = measure_axis(name, options)
        console.print(_table(name, figures[name]))
    write_json(options.json, {"axes": figures})


def measure_axis(name: str, options: Options) -> dict[str, Any]:
    """Seconds and bytes at each value of an axis in each round, the work, and the two exponents."""
    axis = AXES[name]
    values = axis.values[:2] if options.smoke else axis.values
    if name == "devices" and jax.default_backend() != "cpu":
        values = tuple(value for value in values if value <= jax.device_count())
    variants = {str(value): lambda value=value: _in_process(name, value, options.epochs) for value in values}
    rows = take_turns(variants, options.rounds)
    seconds = [[row[str(value)]["seconds"] for row in rows] for value in values]
    sizes = [[row[str(value)]["bytes"] for row in rows] for value in values]
    work = [axis.work(value) for value in values]
    medians = [[median_and_spread(one)[0] for one in figures] for figures in (seconds, sizes)]
    return {
        "values": values, "work": work, "seconds": seconds, "bytes": sizes,
        "time_exponent": exponent(work, medians[0]), "memory_exponent": exponent(work, medians[1]),
    }  # fmt: skip


def exponent(work: list[float], costs: list[float]) -> float:
    """The slope of the least-squares line through (log work, log cost)."""
    slope, _ = np.polyfit(np.log(work), np.log(costs), 1)
    return float(slope)


def train_point(name: str, value: int, epochs: int) -> dict[str, float]:
    """{seconds of the fastest of so many epochs, bytes taken} of one point, in this process."""
    point = AXES[name].point(value)
    config = point.workload.config()
    config = replace(config, train=replace(config.train, members=point.members))
    if point.devices is not None:
        config = replace(config, plan=replace(config.plan, mesh=f"data={point.devices}"))
    jax.block_until_ready(jax.numpy.zeros(1))  # the backend's own memory is there before the first point's
    before = _peak_bytes()
    training = Training(config, point.workload.images(point.num_images))
    training.train_epoch()
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        training.train_epoch()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "bytes": _peak_bytes() - before}


def _peak_bytes() -> int:
    """The most memory taken so far, of the device or, on a CPU, of the process."""
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats:
        return stats["peak_bytes_in_use"]
    # Not ru_maxrss, which starts at what the parent took when it forked.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024


def _in_process(name: str, value: int, epochs: int) -> dict[str, float]:
    program = "import json, sys; from benchmarks.scaling import train_point\n"
    program += "print(json.dumps(train_point(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))"
    command = [sys.executable, "-c", program, name, str(value), str(epochs)]
    shown = f"--xla_force_host_platform_device_count={AXES[name].point(value).devices or 1}"  # of a CPU
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {shown}"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _table(name: str, figures: dict[str, Any]) -> Table:
    grows = f"time like work^{figures['time_exponent']:.2f}, memory like work^{figures['memory_exponent']:.2f}"
    table = Table(title=grows, title_justify="left", min_width=50)
    for column in (name, "work", "seconds an epoch", "megabytes"):
        table.add_column(column, justify="right")
    least = figures["work"][0]
    rows = zip(figures["values"], figures["work"], figures["seconds"], figures["bytes"], strict=True)
    for value, work, seconds, sizes in rows:
        (second, spread), (size, size_spread) = median_and_spread(seconds), median_and_spread(sizes)
        megabytes = f"{size / 1e6:,.0f} ±{size_spread:.0%}"
        table.add_row(f"{value:,}", f"{work / least:.1f}", f"{second:.3f} ±{spread:.0%}", megabytes)
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

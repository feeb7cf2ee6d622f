"""What is this device capable of, and what share of it do the recipes reach?

    python -m benchmarks.roofline

Prints the highest rate of a matrix product and of an update of a large array in memory; then for each recipe the
arithmetic of training on one image, the bytes that must move for it, and the rate of the training program as a share
of what the arithmetic alone allows and of the roofline: the lower of what the arithmetic and the bytes allow
(S. Williams, A. Waterman, D. Patterson: Roofline, CACM 52(4), 2009). Nets whose arrays stay in the cache can pass it.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.measure import (
    Measuring,
    interleaved,
    median_and_spread,
    memory_bandwidth,
    product_peak,
    show_circumstances,
    write_json,
)
from benchmarks.throughput import Training, with_precision
from benchmarks.workloads import WORKLOADS, Workload, named, operations, traffic, workload_of
from engine.config import Precision

RECIPES = named(*map(workload_of, ("mlp", "convnet_wide", "convnet_no_pool", "convnet_dropout"))) | WORKLOADS


@dataclass(frozen=True)
class Options(Measuring):
    """What to measure and how long."""

    recipes: tuple[str, ...] = tuple(RECIPES)
    """Recipes with their batch sizes."""
    precision: Precision = "float32"
    """Of the products, in the recipes and in the peak."""
    rounds: int = 7
    """Rounds in which the recipes take turns."""
    seconds: float = 1.0
    """About how long a recipe trains in a round on a CPU; on a GPU it trains an epoch."""


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = replace(options, recipes=("mlp, batch 64", "convnet, batch 64"), rounds=1, seconds=0.01)
    console = Console(width=120, highlight=False)
    show_circumstances(console)
    is_cpu = jax.default_backend() == "cpu"
    peak, bandwidth = _device_limits(options, is_cpu)
    recipes = measure_recipes(options, is_cpu)
    again = _device_limits(options, is_cpu)  # the peak of a shared machine is the best of what it gives
    peak, bandwidth = max(peak, again[0]), max(bandwidth, again[1])
    console.print(f"{options.precision} matrix product: {peak / 1e9:,.0f} GFLOP/s")
    console.print(f"memory, read and written: {bandwidth / 1e9:,.1f} GB/s; {peak / bandwidth:.0f} operations a byte")
    console.print(_table(recipes, peak, bandwidth, options.rounds))
    limits = {"product_peak": peak, "memory_bandwidth": bandwidth, "precision": options.precision}
    write_json(options.json, {**limits, "recipes": recipes})


def measure_recipes(options: Options, is_cpu: bool) -> dict[str, Any]:
    """Rates, arithmetic and traffic of every recipe, taking turns."""
    workloads = {name: RECIPES[name] for name in options.recipes}
    trainings = {name: _training(workload, options, is_cpu) for name, workload in workloads.items()}
    rates = interleaved({name: training.rate for name, training in trainings.items()}, options.rounds)
    return {
        name: {
            "images_per_second": rates[name],
            "operations_per_image": operations(workload.model(), workload.input_shape),
            "bytes_per_image": traffic(workload.model(), workload.input_shape, workload.batch_size),
        }
        for name, workload in workloads.items()
    }


def _training(workload: Workload, options: Options, is_cpu: bool) -> Training:
    steps = workload.steps(options.seconds, is_cpu)
    config = with_precision(workload.config(), options.precision)
    return Training(config, workload.images(steps * workload.batch_size))


def _device_limits(options: Options, is_cpu: bool) -> tuple[float, float]:
    """(operations a second, bytes a second) at sizes beyond caches that still take well below a second."""
    if options.smoke:
        return product_peak(256, 1, options.precision), memory_bandwidth(2**20, 1)
    size, num_bytes = (2048, 2**28) if is_cpu else (8192, 2**31)
    return product_peak(size, precision=options.precision), memory_bandwidth(num_bytes)


def _table(figures: dict[str, Any], peak: float, bandwidth: float, rounds: int) -> Table:
    table = Table(title=f"training; medians of {rounds} rounds, ± half the range")
    columns = ("recipe", "images/s", "MFLOP/image", "operations a byte", "share of peak", "share of roofline")
    for name in columns:
        table.add_column(name, justify="left" if name == "recipe" else "right")
    for name, figure in figures.items():
        rate, spread = median_and_spread(figure["images_per_second"])
        work, moved = figure["operations_per_image"], figure["bytes_per_image"]
        roof = min(peak / work, bandwidth / moved)
        table.add_row(
            name, f"{rate:,.0f} ±{spread:.0%}", f"{work / 1e6:,.2f}", f"{work / moved:.1f}",
            f"{rate * work / peak:.0%}", f"{rate / roof:.0%}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

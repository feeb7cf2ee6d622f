"""How many images a second does each recipe train, and how does the convnet compare with plain Flax?

    python -m benchmarks.throughput

Prints for each 28×28 recipe: training rate with whole chunks compiled and with one call a step, compile seconds apart,
the share of this device's matrix-product peak; then the convnet side by side with the same Flax model the usual way:
nnx.Conv, nnx.max_pool and one jitted, donated call a step.
"""

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

from benchmarks.measure import (
    Measuring,
    interleaved,
    median_and_spread,
    product_peak,
    ratio,
    show_circumstances,
    write_json,
)
from benchmarks.peers_flax import FlaxPeer
from benchmarks.peers_worker import Job
from benchmarks.workloads import WORKLOADS, operations, workload_of
from engine.config import Precision, RunConfig
from engine.data.decoded.dataset import Dataset, Splits
from engine.host.clock import Clock
from engine.runs.plan_search import search_plan
from engine.runs.session import Session

RECIPES = ("mlp", "convnet_wide", "convnet", "convnet_no_pool", "convnet_dropout")


@dataclass(frozen=True)
class Options(Measuring):
    """How long to measure."""

    rounds: int = 7
    """Rounds in which the variants take turns."""
    seconds: float = 1.0
    """About how long a variant runs in a round."""
    recipes: tuple[str, ...] = RECIPES
    """Recipes to measure."""


class Training:
    """A run's own session on data in memory, epoch after epoch, without validating or saving."""

    def __init__(self, config: RunConfig, data: Dataset):
        self.clock, self.num_examples = Clock(), len(data)
        plan = search_plan(config, data, lambda text: None)
        self.session = Session(config, Splits(data), self.clock, Path("nowhere"), None, plan)

    def train_epoch(self) -> None:
        """Trains one epoch; returns when the device is done."""
        end = self.session.step + self.session.steps_per_epoch
        while self.session.step < end:
            self.session.train_chunk()
        self.session.totals = jax.tree.map(np.zeros_like, self.session.totals)

    def rate(self) -> float:
        """Images a second over an epoch."""
        start = time.perf_counter()
        self.train_epoch()
        return self.num_examples / (time.perf_counter() - start)


def with_precision(config: RunConfig, precision: Precision) -> RunConfig:
    """The config at a precision."""
    return replace(config, train=replace(config.train, precision=precision))


def measure_recipes(options: Options) -> dict[str, Any]:
    """The rates of every recipe, whole chunks against one call a step, taking turns."""
    variants: dict[str, Callable[[], float]] = {}
    trainings: dict[str, Training] = {}
    workloads = {name: workload_of(name) for name in options.recipes}
    for name, workload in workloads.items():
        config, data = workload.config(), workload.images(workload.steps(options.seconds) * workload.batch_size)
        trainings[name] = Training(config, data)
        stepwise = Training(replace(config, plan=replace(config.plan, chunk_steps=1)), data)
        variants |= {name: trainings[name].rate, f"{name} stepwise": stepwise.rate}
    rates = interleaved(variants, options.rounds)
    return {
        name: {
            "images_per_second": rates[name],
            "stepwise": rates[f"{name} stepwise"],
            "compile_seconds": trainings[name].clock.seconds["compile"],
            "operations_per_image": operations(workload.model(), workload.input_shape),
            "batch_size": workload.batch_size,
        }
        for name, workload in workloads.items()
    }


def measure_plain(options: Options) -> dict[str, list[float]]:
    """The convnet against plain Flax, taking turns."""
    workload = WORKLOADS["convnet, batch 64"]
    num_images = workload.steps(options.seconds) * workload.batch_size
    ours, plain = Training(workload.config(), workload.images(num_images)), FlaxPeer(Job("flax", workload, num_images))

    def rate_of_plain() -> float:
        start = time.perf_counter()
        plain.train(1)
        return num_images / (time.perf_counter() - start)

    return interleaved({"engine": ours.rate, "plain": rate_of_plain}, options.rounds)


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = Options(rounds=1, seconds=0.02, recipes=("mlp", "convnet"), json=options.json)
    console = Console(width=120, highlight=False)
    show_circumstances(console)
    peak = product_peak(256 if options.smoke else 2048)
    recipes, plain = measure_recipes(options), measure_plain(options)
    peak = max(peak, product_peak(256 if options.smoke else 2048))
    console.print(_table(recipes, peak, options.rounds))
    (ours, ours_spread), (theirs, theirs_spread) = (median_and_spread(plain[name]) for name in ("engine", "plain"))
    middle, low, high = ratio(plain["engine"], plain["plain"])
    console.print(
        f"convnet, batch 64: engine {ours:,.0f} images/s (±{ours_spread:.0%}), plain Flax, one jitted call a step "
        f"{theirs:,.0f} (±{theirs_spread:.0%}): {middle:.2f} times ({low:.2f} to {high:.2f})",
        highlight=False,
    )
    write_json(options.json, {"product_peak": peak, "recipes": recipes, "convnet_against_plain": plain})


def _table(figures: dict[str, Any], peak: float, rounds: int) -> Table:
    table = Table(
        title=f"training, float32; medians of {rounds} rounds, ± half the range; peak {peak / 1e9:,.0f} GFLOP/s"
    )
    for name in ("recipe", "batch", "images/s", "one call a step", "whole / stepwise", "share of peak", "compile s"):
        table.add_column(name, justify="left" if name == "recipe" else "right")
    for name, figure in figures.items():
        (whole, spread), (step, step_spread) = map(median_and_spread, (figure["images_per_second"], figure["stepwise"]))
        share = whole * figure["operations_per_image"] / peak
        gain = ratio(figure["images_per_second"], figure["stepwise"])[0]
        table.add_row(
            name, str(figure["batch_size"]), f"{whole:,.0f} ±{spread:.0%}", f"{step:,.0f} ±{step_spread:.0%}",
            f"{gain:.2f}", f"{share:.0%}", f"{figure['compile_seconds']:.1f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""What do the members of an ensemble cost, beside one, beside separate runs, and beside PyTorch's vmapped ensemble?

    python -m benchmarks.ensemble

Trains the convnet at batch 64 with 1 to 32 members in one program, in turns. The cost is the time a step of all members
takes, relative to one. PyTorch trains as many members by torch.func's vmap over stacked parameters, in a process of its
own, with the rounds in turns. Separate runs are whole processes, start to end, everything cached: so many of them one
after another against one run with as many members.
"""

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measuring, interleaved, median_and_spread, ratio, show_circumstances, write_json
from benchmarks.peers_worker import Job, Unavailable, Worker
from benchmarks.throughput import Training, with_precision
from benchmarks.workloads import Workload, workload_of
from engine.config import Precision

READY_SECONDS = 600


@dataclass(frozen=True)
class Options(Measuring):
    """How many members and how long to measure."""

    members: tuple[int, ...] = (1, 2, 5, 10, 32)
    """Sizes of ensembles; the first must be 1."""
    rounds: int = 5
    """Rounds in which all sizes take turns."""
    seconds: float = 1.0
    """About how long one member trains in a round."""
    torch_members: tuple[int, ...] = (1, 10)
    """Sizes that PyTorch trains too."""
    precision: Precision = "float32"
    """Of the products; weights are float32."""
    separate: int = 10
    """Members of the run that is compared with separate runs; 0 for no comparison."""


def measure_members(options: Options, workload: Workload) -> dict[str, list[float]]:
    """Images a second, of all members together, by "engine M" and "torch M"."""
    is_cpu = jax.default_backend() == "cpu"
    num_images = workload.steps(options.seconds, is_cpu or options.smoke) * workload.batch_size
    variants = {}
    for count in options.members:
        config = workload.config()
        config = with_precision(replace(config, train=replace(config.train, members=count)), options.precision)
        training = Training(config, workload.images(num_images))
        variants[f"engine {count}"] = lambda training=training, count=count: count * training.rate()
    with ExitStack() as stack:
        for count in options.torch_members:
            job = Job("torch_ensemble", workload, num_images, options.seconds, options={"members": count})
            try:
                worker = Worker(job, READY_SECONDS)
            except Unavailable as reason:
                print(f"torch with {count} members is left out: {reason}", file=sys.stderr)
                continue
            stack.callback(worker.close)
            variants[f"torch {count}"] = lambda worker=worker, count=count: count * worker.images_per_second()
        return interleaved(variants, options.rounds)


def measure_separate(members: int, more: tuple[str, ...] = ()) -> dict[str, float]:
    """Seconds of one run with so many members, and of a run with one, as processes with everything cached."""

    def seconds(count: int) -> float:
        with tempfile.TemporaryDirectory() as directory:
            command = [sys.executable, "-m", "experiments.convnet", "--run-dir", f"{directory}/run"]
            start = time.perf_counter()
            subprocess.run(
                [*command, "--train.members", str(count), *more],
                check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
            )  # fmt: skip
            return time.perf_counter() - start

    for count in (1, members):
        seconds(count)  # fills the caches
    return {"together": seconds(members), "one": seconds(1)}


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = Options(members=(1, 2), rounds=1, seconds=0.02, torch_members=(), separate=0, json=options.json)
    console, workload = Console(width=120, highlight=False), workload_of("convnet", 64)
    show_circumstances(console)
    rates = measure_members(options, workload)
    console.print(_table(rates, options))
    figures: dict[str, Any] = {"images_per_second": rates}
    if options.separate:
        figures["separate"] = separate = measure_separate(options.separate)
        apart = options.separate * separate["one"]
        console.print(
            f"{options.separate} members in one run: {separate['together']:.1f} s; as separate runs: {apart:.1f} s, "
            f"{apart / separate['together']:.2f} times as long",
            highlight=False,
        )
    write_json(options.json, figures)


def _table(rates: dict[str, list[float]], options: Options) -> Table:
    table = Table(title=f"convnet, batch 64; medians of {options.rounds} rounds, ± half the range")
    for name in ("members", "images/s of all", "cost of one (range)", "torch.func images/s", "engine / torch"):
        table.add_column(name, justify="right")
    one = rates["engine 1"]
    for count in options.members:
        ours, theirs = rates[f"engine {count}"], rates.get(f"torch {count}")
        rate, spread = median_and_spread(ours)
        middle, low, high = (count * cost for cost in ratio(one, ours))
        row = [str(count), f"{rate:,.0f} ±{spread:.0%}", f"{middle:.2f} ({low:.2f} to {high:.2f})"]
        if theirs:
            row += [f"{median_and_spread(theirs)[0]:,.0f}", f"{ratio(ours, theirs)[0]:.2f}"]
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

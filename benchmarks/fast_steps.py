"""Milliseconds a step of the recipes for one GPU, on random images; what determinism costs; a checkpoint on a CPU.

python -m benchmarks.fast_steps
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

import engine
from benchmarks.measure import Measuring, interleaved, median_and_spread, ratio, show_circumstances, write_json
from benchmarks.throughput import Training
from benchmarks.workloads import random_images, workload_of
from engine.config import RunConfig
from engine.data.decoded.dataset import Dataset

OUTPUTS = (
    "import sys, numpy as np, engine; np.save(sys.argv[2], engine.restore(sys.argv[1]).outputs(np.load(sys.argv[3])))"
)


@dataclass(frozen=True)
class Options(Measuring):
    """How long to measure."""

    rounds: int = 5
    """Rounds in which the variants take turns."""


def main(options: Options) -> None:
    """Measures and prints."""
    console, rounds = Console(width=120, highlight=False), 1 if options.smoke else options.rounds
    show_circumstances(console)
    variants = {name: training.rate for name, training in _trainings(options.smoke).items()}
    rates = interleaved(variants, rounds)
    for name, values in rates.items():
        console.print(f"{name}: {median_and_spread(values)[0]:,.0f} images/s (±{median_and_spread(values)[1]:.0%})")
    middle, low, high = ratio(rates["convnet"], rates["convnet, deterministic"])
    console.print(f"determinism costs the convnet {middle - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%}) of its time")
    difference = opened_on_cpu(("--data.split", "train[:640]") if options.smoke else ())
    console.print(f"a checkpoint of this device, opened on a CPU: outputs differ by {difference:.1e} at most")
    write_json(options.json, {"images_per_second": rates, "largest_difference_on_cpu": difference})


def _trainings(is_smoke: bool) -> dict[str, Training]:
    cifar, fashion, convnet = workload_of("cifar_fast"), workload_of("fashion_fast"), workload_of("convnet", 512)
    if is_smoke:
        cifar, fashion, convnet = (replace(workload, batch_size=4) for workload in (cifar, fashion, convnet))
    steps = 1 if is_smoke else 48

    def images(batch_size: int, shape: tuple[int, ...]) -> Dataset:
        return random_images(steps * batch_size, shape)

    made: dict[str, tuple[RunConfig, Dataset]] = {
        "cifar_fast": (cifar.config(), images(cifar.batch_size, (32, 32, 3))),
        "fashion_fast": (fashion.config(), images(fashion.batch_size, (28, 28, 1))),
        "convnet": (convnet.config(), images(convnet.batch_size, (28, 28, 1))),
    }
    config, data = made["convnet"]
    made["convnet, deterministic"] = replace(config, train=replace(config.train, deterministic=True)), data
    return {name: Training(*of) for name, of in made.items()}


def opened_on_cpu(more: tuple[str, ...] = ()) -> float:
    """The largest difference of a trained run's outputs on this device and, in another process, on a CPU."""
    with tempfile.TemporaryDirectory() as directory:
        run, there, images = (Path(directory) / name for name in ("run", "there.npy", "images.npy"))
        subprocess.run(
            [sys.executable, "-m", "experiments.convnet", "--run-dir", str(run), "--train.epochs", "1", *more],
            check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        np.save(images, random_images(64).images)
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", OUTPUTS, str(run), str(there), str(images)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1], env=environment)
        here = engine.restore(run).outputs(np.load(images))
        return float(np.abs(here - np.load(there)).max())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

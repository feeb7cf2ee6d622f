"""What does a recipe reach, in how much training time, over several seeds?

    python -m benchmarks.accuracy --epochs 10
    python -m benchmarks.accuracy --data.name fashion_mnist --data.manual-dir PATH

Each seed is a whole run of the shipped recipe in a temporary directory; every test image is counted.
"""

import dataclasses
import importlib
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from benchmarks.measure import Measuring, show_circumstances, write_json
from engine.config.data import DataConfig
from engine.report.progress import Silent
from engine.runs.loop import run


@dataclass(frozen=True)
class Options(Measuring):
    """Which runs to make."""

    recipe: str = "convnet"
    """Module in experiments/."""
    epochs: int | None = None
    """None for the recipe's own."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One run each."""
    data: DataConfig = field(default_factory=DataConfig)
    """What to train and test on."""


def main(options: Options) -> None:
    """Trains and prints."""
    if options.smoke:
        data = dataclasses.replace(options.data, split="train[:600]", test_split="test[:100]")
        options = dataclasses.replace(options, epochs=1, seeds=(0, 1), data=data)
    console = Console(highlight=False, soft_wrap=True)
    show_circumstances(console)
    figures = [_figures(options, seed) for seed in options.seeds]
    for seed, (accuracy, seconds, n) in zip(options.seeds, figures, strict=True):
        console.print(f"seed {seed}: test accuracy {accuracy:.4f} of {n:,} images, {seconds:.1f} s of training")
    accuracies, seconds, _ = zip(*figures, strict=True)
    spread = f" ± {statistics.stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
    console.print(
        f"{options.recipe} on {options.data.name}: {statistics.mean(accuracies):.4f}{spread} "
        f"(standard deviation, n = {len(accuracies)}), median {statistics.median(seconds):.1f} s of training"
    )
    write_json(options.json, {"recipe": options.recipe, "accuracy": accuracies, "training_seconds": seconds})


def _figures(options: Options, seed: int) -> tuple[float, float, int]:
    """(test accuracy of the best step by validation, seconds of training, test images) of one run."""
    config = importlib.import_module(f"experiments.{options.recipe}").config()
    epochs = config.train.epochs if options.epochs is None else options.epochs
    train = dataclasses.replace(config.train, seed=seed, epochs=epochs)
    config = dataclasses.replace(config, train=train, data=options.data)
    with tempfile.TemporaryDirectory() as scratch:
        result = run(config, Path(scratch) / "run", reporter=Silent())
        return result.metrics["test"]["accuracy"], result.seconds["train"], result.metrics["test"]["n"]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

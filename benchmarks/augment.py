"""What does augmentation inside the compiled step cost? The convnet's training rate with and without it.

    python -m benchmarks.augment

All variants train the same net on the same noise and take turns; the cost is the share of the rate that is lost, round
by round.
"""

import importlib
from dataclasses import dataclass, replace

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measuring, interleaved, median_and_spread, ratio, show_circumstances, write_json
from benchmarks.throughput import Training
from benchmarks.workloads import random_images
from engine.augment.config import AugmentConfig

VARIANTS = {
    "none": AugmentConfig(),
    "flip + shift + rotation + zoom": AugmentConfig(
        horizontal_flip=True, height_shift=0.1, width_shift=0.1, rotation=36, zoom=0.1
    ),
    "flip + crop": AugmentConfig(horizontal_flip=True, crop_padding=4, fill="constant"),
    "brightness + contrast": AugmentConfig(brightness=0.2, contrast=0.2),
    "equalize": AugmentConfig(equalize=0.5),
    "noise": AugmentConfig(noise=10),
    "mixup": AugmentConfig(mixup=0.2),
    "cutmix": AugmentConfig(cutmix=1.0),
    "erasing": AugmentConfig(erasing=0.5),
    "RandAugment": AugmentConfig(policy="rand_augment"),
    "TrivialAugment": AugmentConfig(policy="trivial_augment"),
}
SMOKE = ("none", "flip + crop")


@dataclass(frozen=True)
class Options(Measuring):
    """How long to measure."""

    rounds: int = 9
    """Rounds in which the variants take turns."""
    steps: int = 100
    """Steps of 64 images in each."""


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = replace(options, rounds=1, steps=2)
    console = Console(width=100, highlight=False)
    show_circumstances(console)
    variants = {name: VARIANTS[name] for name in SMOKE} if options.smoke else VARIANTS
    config = importlib.import_module("experiments.convnet").config()
    data = random_images(options.steps * config.train.batch_size)
    trainings = {name: Training(replace(config, augment=augment), data) for name, augment in variants.items()}
    rates = interleaved({name: training.rate for name, training in trainings.items()}, options.rounds)
    table = Table(
        title=f"convnet, batch {config.train.batch_size}; medians of {options.rounds} rounds, ± half the range"
    )
    for column in ("augmentation", "images/s", "cost"):
        table.add_column(column, justify="left" if column == "augmentation" else "right")
    for name, values in rates.items():
        median, spread = median_and_spread(values)
        middle, low, high = ratio(values, rates["none"])
        table.add_row(name, f"{median:,.0f} ±{spread:.0%}", f"{1 - middle:.1%} ({1 - high:.1%} to {1 - low:.1%})")
    console.print(table)
    write_json(options.json, {"images_per_second": rates})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""What does it cost to save a checkpoint each epoch, to open one, and to ask it about one image?

    python -m benchmarks.checkpoint

Saving: the convnet is trained with a save after each epoch and with one at the end, taking turns; what is compiled does
not count. Opening: fresh processes with warm caches. Latency: calls in this process, one image each.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measuring, interleaved, ratio, show_circumstances, take_turns, write_json
from benchmarks.startup import in_process
from engine.config import CheckpointConfig, RunConfig
from engine.data.decoded.dataset import Splits
from engine.data.load import load_splits
from engine.host.clock import Clock
from engine.inference.restore import restore
from engine.report.progress import Silent
from engine.runs.loop import train
from experiments import convnet

NEVER = 10**9


@dataclass(frozen=True)
class Options(Measuring):
    """How often to measure."""

    rounds: int = 5
    """Rounds in which the variants take turns."""
    epochs: int = 8
    """Epochs a training, on the 10,800 images that come with the package."""
    calls: int = 200
    """Single images to ask about."""


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = replace(options, rounds=1, epochs=2, calls=5)
    console = Console(width=120, highlight=False)
    show_circumstances(console)
    with tempfile.TemporaryDirectory() as scratch:
        seconds, blocked = saving(Path(scratch), options)
        opening = take_turns({"warm": lambda: _opened(Path(scratch))}, options.rounds + 1)[1:]  # the first fills caches
        calls = latency(Path(scratch) / "saved", options.calls)
        size = sum(file.stat().st_size for file in (Path(scratch) / "saved" / "checkpoints").rglob("*"))
    more = [share - 1 for share in ratio(seconds["each epoch"], seconds["at the end"])]
    table = Table("figure", "median", "least to most", title="checkpoints of the convnet")
    table.add_row("training time, a save each epoch", f"{more[0]:+.1%}", f"{more[1]:+.1%} to {more[2]:+.1%}")
    table.add_row("of it while the training waits", *_percent(blocked))
    table.add_row("restore and first prediction, after jax and flax", *_span([row["warm"] for row in opening], "s"))
    table.add_row("one image", *_span([1000 * each for each in calls], "ms"))
    table.add_row("size of the run's checkpoints", f"{size / 1e6:.1f} MB", "")
    console.print(table)
    figures = {"training_seconds": seconds, "blocked_shares": blocked, "latency_seconds": calls, "bytes": size}
    write_json(options.json, {**figures, "opening_seconds": [row["warm"] for row in opening]})


def saving(scratch: Path, options: Options) -> tuple[dict[str, list[float]], list[float]]:
    """(seconds to train with a save each epoch or one at the end, shares of the former in which training waits)."""
    config = convnet.config()
    config = replace(config, train=replace(config.train, epochs=options.epochs))
    if options.smoke:
        config = replace(config, data=replace(config.data, split="train[:160]", test_split="test[:64]"))
    splits, blocked = load_splits(config.data, config.train.seed, lambda text: None), []
    small = Splits(splits.train, splits.validation)

    def trained(every: int) -> Callable[[], float]:
        def seconds() -> float:
            directory = Path(tempfile.mkdtemp(dir=scratch))
            taken, clock = _train(config, small, directory, every)
            if every == 1:
                blocked.append(clock.seconds["save"] / taken)
            return taken

        return seconds

    found = interleaved({"each epoch": trained(1), "at the end": trained(NEVER)}, options.rounds)
    _train(replace(config, train=replace(config.train, epochs=1)), splits, scratch / "saved", 1)
    return found, blocked[-options.rounds :]


def latency(run: Path, calls: int) -> list[float]:
    """Seconds of each call of a restored classifier with one image."""
    classifier, seconds = restore(run), []
    images = np.random.default_rng(0).integers(0, 256, (calls, *classifier.input_spec.shape), np.uint8)
    classifier.outputs(images[:1])
    for image in images:
        start = time.perf_counter()
        classifier.outputs(image[None])
        seconds.append(time.perf_counter() - start)
    return seconds


def _train(config: RunConfig, splits: Splits, directory: Path, every: int) -> tuple[float, Clock]:
    clock, start = Clock(), time.perf_counter()
    config = replace(config, checkpoint=CheckpointConfig(every_epochs=every))
    directory.mkdir(exist_ok=True)
    train(config, splits, directory, clock, Silent())
    return time.perf_counter() - start - clock.seconds["compile"], clock


def _opened(scratch: Path) -> float:
    parts = in_process("until_first_prediction", scratch, scratch / "cache")
    return parts["import engine"] + parts["restore"] + parts["first prediction"]


def _span(values: list[float], unit: str) -> tuple[str, str]:
    return f"{statistics.median(values):.2f} {unit}", f"{min(values):.2f} to {max(values):.2f} {unit}"


def _percent(values: list[float]) -> tuple[str, str]:
    return f"{statistics.median(values):.1%}", f"{min(values):.1%} to {max(values):.1%}"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

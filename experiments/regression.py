"""A weighted sum of 32 numbers, 33 parameters: train, save, restore, train on; equal to never having stopped.

    python -m experiments.regression

Three epochs in runs/regression/stopped, then three more from what is saved there; beside it six in one go. Everything
that the last checkpoints hold (weights, optimizer state, losses) is compared, to the bit. A second of training.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

import engine
from engine.commands.process import errors_as_lines, set_up_process
from engine.host.console import Console, Table
from engine.models import Dense, Sequential

EPOCHS, STOP_AFTER = 6, 3
NUM_EXAMPLES, NUM_INPUTS, NOISE = 2000, 32, 0.1


def config() -> engine.RunConfig:
    """Adam 0.01, mean squared error, batch 32, 6 epochs."""
    train = engine.TrainConfig(epochs=EPOCHS, batch_size=32, loss="mean_squared_error", best_by="loss")
    return engine.RunConfig("regression", Sequential((Dense(),)), train=train, optim=engine.OptimConfig("adam", 0.01))


def data(seed: int = 0) -> engine.Splits:
    """Normal inputs, and as target a fixed weighted sum of them under noise of deviation 0.1."""
    draw = np.random.default_rng(seed)
    weights = draw.normal(size=(NUM_INPUTS, 1))

    def examples(count: int, name: str) -> engine.Dataset:
        inputs = draw.normal(size=(count, NUM_INPUTS))
        return engine.dataset(inputs, inputs @ weights + NOISE * draw.normal(size=(count, 1)), name=name)

    return engine.Splits(examples(NUM_EXAMPLES, "sums"), examples(NUM_EXAMPLES // 5, "held-out sums"))


@dataclass(frozen=True)
class Options:
    """Options of this experiment."""

    run_dir: Path = Path("runs/regression")
    """Where both runs are kept; earlier ones there are replaced."""


def train_both_ways(run_dir: Path) -> bool:
    """Whether the run that was stopped and gone on with is equal to the one that was not, which is shown."""
    from engine.checkpoints.steps import read_record
    from engine.report.progress import Silent

    whole, splits = config(), data()
    short = replace(whole, train=replace(whole.train, epochs=STOP_AFTER))
    places = {"stopped": run_dir / "stopped", "whole": run_dir / "whole"}
    engine.run(short, places["stopped"], splits=splits, overwrite=True, reporter=Silent())
    restored = engine.restore(places["stopped"], step="last").evaluate(splits.validation)["loss"]
    gone_on = engine.run(whole, places["stopped"], splits=splits, resume=True, reporter=Silent())
    in_one_go = engine.run(whole, places["whole"], splits=splits, overwrite=True, reporter=Silent())
    table = Table(heading="validation loss after each epoch")
    for column in ("epoch", f"stopped after {STOP_AFTER}", "never stopped"):
        table.add_column(column, justify="right")
    for ours, theirs in zip(gone_on.history, in_one_go.history, strict=True):
        table.add_row(str(ours["epoch"]), *(repr(row["validation_loss"]) for row in (ours, theirs)))
    records = [read_record(place, gone_on.history[-1]["step"]) for place in places.values()]
    losses = [[row["validation_loss"] for row in result.history] for result in (gone_on, in_one_go)]
    is_equal = losses[0] == losses[1] and records[0].checksums == records[1].checksums
    is_equal = is_equal and restored == losses[0][STOP_AFTER - 1]
    console = Console()
    console.print(table)
    console.print(f"restored after epoch {STOP_AFTER}: validation loss {restored!r}")
    verdict = "equal to the bit" if is_equal else "NOT equal"
    console.print(f"weights, optimizer state and losses of both runs: {verdict}")
    return is_equal


def main() -> None:
    """Runs the experiment with the options of the command line; exits with 1 if the runs differ."""
    with errors_as_lines():
        options = tyro.cli(Options, description="Train, save, restore and train on; equal to never having stopped.")
        set_up_process()
        if not train_both_ways(options.run_dir):
            sys.exit(1)


if __name__ == "__main__":
    main()

"""`engine lr-find` and `engine batch-find`: what to train a recipe or an experiment with, before it is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from engine.commands.experiment import read_options
from engine.commands.experiments import find_config
from engine.commands.outputs import check_picture_file
from engine.commands.process import command_name, errors_as_lines, set_up_process
from engine.commands.train import read_target
from engine.config import RunConfig
from engine.host.console import show, tell
from engine.text import counted

if TYPE_CHECKING:
    from engine.data.decoded.dataset import Splits

RATE_USAGE = (
    "usage: engine lr-find NAME|FILE [OPTIONS]",
    "",
    "Train one step at each of many learning rates, from low to high, and suggest one, with a picture of the losses.",
    "",
    "  engine lr-find convnet                           a recipe",
    "  engine lr-find mine.py --optim.name sgd          an experiment of your own, with other settings",
    "  engine lr-find convnet --low 1e-4 --high 1       in another range",
    "  engine lr-find convnet --help                    all options; settings are those of engine train",
)
BATCH_USAGE = (
    "usage: engine batch-find NAME|FILE [OPTIONS]",
    "",
    "Train for a moment with one batch size after another: memory and images a second of each.",
    "",
    "  engine batch-find convnet                        a recipe",
    "  engine batch-find mine.py --largest 1024         an experiment of your own, up to 1,024 examples a batch",
    "  engine batch-find convnet --help                 all options; settings are those of engine train",
)


@dataclass(frozen=True)
class RateOptions:
    """Options of the test."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    out: Path = Path("rates.png")
    """PNG to draw the losses to; one that was drawn before is replaced."""
    low: float = 1e-6
    """The first learning rate."""
    high: float = 10.0
    """The last one; training stops before it where the loss is four times as high as it was."""
    num_rates: int = 100
    """Rates in the range, in equal proportions, and steps to train."""


@dataclass(frozen=True)
class BatchOptions:
    """Options of the search."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    smallest: int = 16
    """The first batch size; each next one is twice as large."""
    largest: int = 4096
    """No larger one than this is tried."""


def find_rate(arguments: Sequence[str]) -> None:
    """Test learning rates for a recipe or an experiment (engine lr-find convnet): a picture and a suggestion."""
    with errors_as_lines():
        target = read_target("lr-find", arguments, RATE_USAGE)
        program = f"{command_name()} lr-find {target}"
        given = read_options(find_config(target), arguments[1:], program, RateOptions, "Test learning rates for {}.")
        check_picture_file(given.out)
        splits = _load(given.config)
        from engine.runs.lr_finder import search_rates

        found = search_rates(given.config, splits, tell, given.low, given.high, given.num_rates)
        end = ", where the loss diverges" if found.has_diverged else ""
        show(
            f"{counted(len(found.losses), 'step')} at rates from {given.low:g} to {found.rates[-1]:.2g}{end}",
            f"losses drawn: {found.draw(given.out)}",
        )
        if found.suggestion is None:
            show("no suggestion, because the loss does not fall: try a higher --high, another model or other data")
        else:
            show(f"the loss falls fastest at {found.suggestion:.2g} and is lowest at {found.lowest:.2g}")
            show(f"to train with the former: --optim.learning-rate {found.suggestion:.2g}")


def find_batch(arguments: Sequence[str]) -> None:
    """Try batch sizes for a recipe or an experiment (engine batch-find convnet): memory and speed of each."""
    with errors_as_lines():
        target = read_target("batch-find", arguments, BATCH_USAGE)
        program = f"{command_name()} batch-find {target}"
        given = read_options(find_config(target), arguments[1:], program, BatchOptions, "Try batch sizes for {}.")
        splits = _load(given.config)
        from engine.report.batches import batch_line, batch_table
        from engine.runs.batch_finder import BatchTrial, search_batch_sizes

        rows: list[tuple[int, int | None, float]] = []

        def add(trial: BatchTrial) -> None:
            rows.append((trial.batch_size, trial.step_bytes, trial.images_per_second))
            tell(batch_line(*rows[-1]))

        try:
            found = search_batch_sizes(given.config, splits, tell, given.smallest, given.largest, add)
        finally:
            if rows:  # those that were measured before Ctrl-C too
                show(batch_table(rows, f"{given.config.name}: batch sizes"))
        show(
            found.end,
            f"about as fast as the fastest: --train.batch-size {found.suggestion}",
        )


def _load(config: RunConfig) -> "Splits":
    """The data of the run, as it would load them."""
    set_up_process(config.data.cache_dir)
    from engine.runs.inputs import load_inputs

    return load_inputs(config, None, None, tell)


PARSERS = {"lr-find": find_rate, "batch-find": find_batch}

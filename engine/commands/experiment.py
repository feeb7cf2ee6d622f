"""The command line of an experiment file: `main(config())` makes every field of the config an option."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from engine.commands.process import command_again, command_name, engine_command, errors_as_lines, set_up_process
from engine.config import RunConfig
from engine.metrics.stopping import has_stopped_early
from engine.records.custom import find_custom

if TYPE_CHECKING:
    from engine.runs.result import Result


SHOWN_FILES = (
    "curves.png",
    "predictions.png",
    "reliability.png",
    "folds.csv",
    "ensemble.csv",
    "history.csv",
    "log.txt",
)


@dataclass(frozen=True)
class Options:
    """Options of an experiment."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    """Where the run is kept; None for runs/<name>."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Resume the run in that directory, if there is one; start it if there is none."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove the run in that directory and start from scratch."""


def main(config: RunConfig, arguments: Sequence[str] | None = None) -> None:
    """Runs an experiment with the options of the command line, and says what to do next.

    Exits with 2 and a message for a user's mistake, with 128 + signal after Ctrl-C or SIGTERM (everything saved).
    """
    with errors_as_lines(is_run=True):
        options = tyro.cli(
            Options,
            default=Options(config),
            args=arguments,
            prog=command_name(),
            description=f"Train {config.name}.",
        )
        # Imported only now, so that --help and mistakes are answered at once.
        set_up_process(options.config.data.cache_dir)
        from engine.report.progress import Reporter
        from engine.runs.loop import run

        reporter = Reporter()
        result = run(
            options.config,
            options.run_dir,
            resume=options.resume,
            overwrite=options.overwrite,
            reporter=reporter,
        )
        reporter.say(_next_steps(result))


def _next_steps(result: "Result") -> str:
    config, path = result.config, result.directory
    kept = [name for name in SHOWN_FILES if (path / name).exists()]
    trust = ["--trust"] if any(find_custom(replace(config, callbacks=()))) else []
    commands = [[engine_command(), "summary", str(path)]]
    if (path / "example.png").exists():
        commands.append([engine_command(), "predict", str(path), str(path / "example.png"), "--top", "3"])
    if "test" in result.metrics and config.data.test_split:
        commands.append([engine_command(), "eval", str(path), "--data.split", config.data.test_split])
    lines = [
        f"saved in {path}: {', '.join(kept)}, checkpoints/",
        "next:",
        *(f"  {shlex.join(c + trust)}" for c in commands),
    ]
    if config.train.patience is not None and has_stopped_early(config.train, result.history):
        lines.append(f"  {command_again('--resume', f'--train.patience={2 * config.train.patience}')}")
    elif config.optim.is_open_ended:
        lines.append(f"  {command_again('--resume', f'--train.epochs={max(2 * config.train.epochs, 5)}')}")
    return "\n".join(lines)

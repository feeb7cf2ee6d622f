"""The command line of a recipe or experiment: every field of its config is an option."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from engine.checkpoints.changes import CHANGEABLE_FIELDS
from engine.commands.choices import Choice, read_choices
from engine.commands.common_options import only_common
from engine.commands.nearest import check_all_known
from engine.commands.process import (
    command_again,
    command_name,
    engine_command,
    errors_as_lines,
    join_others,
    restate,
    set_up_process,
)
from engine.config import RunConfig
from engine.config.sweep import with_sweep
from engine.config.trackers import TrackerName
from engine.errors import InputError, problem
from engine.metrics.stopping import has_stopped_early
from engine.processes.ends import leave_together
from engine.records.custom import find_custom
from engine.runs.needed_kernels import begin_kernels

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from engine.runs.result import Result


SHOWN_FILES = (
    "report.html",
    "curves.png",
    "predictions.png",
    "confusion.png",
    "reliability.png",
    "folds.csv",
    "sweep.csv",
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
    numbered: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep it in a new directory of the next number: runs/<name>-1, runs/<name>-2, …"""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Resume the run in that directory, if there is one; start it if there is none."""
    allow_change: tuple[str, ...] = ()
    """Settings that the resumed run may have another value of from here on, like optim.learning-rate, where that
    stands in the experiment's file; an option given with --resume needs no mention."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove the run in that directory and start from scratch."""
    sweep: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FIELD=VALUES")] = ()
    """Train a member for each value of a number, all in one program: optim.learning-rate=1e-4:1e-1:log:8 or
    train.label-smoothing=0,0.1; given again, for each combination."""
    distributed: Annotated[str | None, tyro.conf.arg(metavar="auto|HOST:PORT")] = None
    """One of several processes that train this run: auto, as Slurm, Open MPI, a Kubernetes JobSet or a TPU pod says; or
    where process 0 can be reached, with ENGINE_NUM_PROCESSES and ENGINE_PROCESS_ID set. The mesh has all devices."""
    log: Annotated[tuple[TrackerName, ...], tyro.conf.UseAppendAction] = ()
    """Log the run there too while it trains; given again, to several."""
    report: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """At the end write report.html, a page about the run, as engine report does."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print how the run is executed, which the log in its directory always says."""


AnyOptions = TypeVar("AnyOptions", bound="DataclassInstance")


def main(config: RunConfig | Callable[..., RunConfig], arguments: Sequence[str] | None = None) -> None:
    """Runs an experiment with the options of the command line, and says what to do next.

    config: or the function that makes it, whose parameters that are a Literal of texts become options too.
    Exits with 2 and a message for a user's mistake, with 128 + signal after Ctrl-C or SIGTERM (everything saved).
    """
    with errors_as_lines(is_run=True):
        run_experiment((lambda: config) if isinstance(config, RunConfig) else config, arguments, command_name())


def run_experiment(make: Callable[..., RunConfig], arguments: Sequence[str] | None, program: str) -> None:
    """What `main` does, for a caller that reports errors; `program` is how help and mistakes call it."""
    options = read_options(make, arguments, program)
    config = with_sweep(options.config, options.sweep)
    join_others(options.distributed)
    begin_kernels(config)
    # Imported only now, so that --help and mistakes are answered at once.
    set_up_process(config.data.cache_dir)
    from engine.processes.together import is_first
    from engine.report.progress import Reporter
    from engine.runs.loop import run

    reporter = Reporter(is_verbose=options.verbose)
    result = run(
        config,
        _number_directory(options, config) if options.numbered else options.run_dir,
        resume=options.resume,
        overwrite=options.overwrite,
        allow_change=(*options.allow_change, *find_typed_changes(arguments)),
        log=options.log,
        reporter=reporter,
    )
    if is_first():
        if options.report:
            from engine.report.page.write import write_report

            write_report(result.directory, trust=True, say=reporter.say)
        reporter.say(_next_steps(result))
    leave_together()


def _number_directory(options: Options, config: RunConfig) -> Path:
    """A new directory of the next number, which the commands that are suggested later name."""
    from engine.checkpoints.run_directory import make_numbered

    for name in ("resume", "overwrite"):
        if getattr(options, name):
            rule = "off with --numbered, which makes a new directory"
            raise InputError(problem(name, True, rule, "Name the run with --run-dir."))
    path = make_numbered(options.run_dir or Path("runs") / config.name)
    restate(f"--run-dir={path}", "--numbered")
    return path


def read_options(
    make: Callable[..., RunConfig],
    arguments: Sequence[str] | None,
    program: str,
    kind: type[AnyOptions] = Options,
    about: str = "Train {}.",
) -> AnyOptions:
    """The options that the arguments give, None for those of this process. `--help` shows the usual ones, and ends.

    kind: a dataclass with `config` and options of its own, which all have defaults. about: of the config's name.
    """
    choices, given = read_choices(make, sys.argv[1:] if arguments is None else arguments)
    config = make(**{choice.name: choice.value for choice in choices})
    about = about.format(config.name)
    if "--help-all" in given:
        given = ["--help"]
    elif {"-h", "--help"} & {*given}:
        config, about = only_common(config), f"{about} These are the usual options; --help-all lists all."
    whole = _with_choices(choices, type(config), kind)
    default = whole(config)
    options, rest = tyro.cli(
        whole, default=default, args=given, prog=program, description=about, return_unknown_args=True
    )
    check_all_known(rest, default, program)
    return kind(**{each.name: getattr(options, each.name) for each in fields(kind)})


def find_typed_changes(arguments: Sequence[str] | None) -> list[str]:
    """Settings that are given as options beside --resume, which allows them to differ from before."""
    words = [word.split("=")[0].replace("_", "-") for word in (sys.argv[1:] if arguments is None else arguments)]
    return [name for name in CHANGEABLE_FIELDS if "--resume" in words and f"--{name.replace('_', '-')}" in words]


def _with_choices(choices: Sequence[Choice], config: type[RunConfig], base: type) -> Any:
    """Options of this class of config, with those of the experiment's own among them."""
    own: list[Any] = [("config", Annotated[config, tyro.conf.arg(name="")])]
    for each in choices:
        kind = Annotated[each.kind, tyro.conf.arg(help=f"Variant of the recipe: config({each.name}).")]
        own.append((each.name, kind, field(default=each.value)))
    return make_dataclass("Options", own, bases=(base,), frozen=True)


def _next_steps(result: "Result") -> str:
    config, path = result.config, result.directory
    kept = [name for name in SHOWN_FILES if (path / name).exists()]
    trust = ["--trust"] if any(find_custom(replace(config, callbacks=()))) else []
    looks = [] if (path / "report.html").exists() else [[engine_command(), "report", str(path)]]
    commands = [[engine_command(), "summary", str(path)], *looks]
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
        more = max(2 * max(config.train.epochs, len(result.history)), 5)
        lines.append(f"  {command_again('--resume', f'--train.epochs={more}')}")
    return "\n".join(lines)

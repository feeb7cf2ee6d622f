"""`engine launch`: the processes of one run on this machine."""

import inspect
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from engine.commands.process import errors_as_lines
from engine.errors import InputError, problem
from engine.host.console import tell
from engine.records import check_whole

EXAMPLE = "engine launch -n 4 -- engine train convnet --mesh data=4"
Count = Annotated[int, arg(name="num-processes", aliases=("-n",))]


def launch(arguments: Sequence[str]) -> None:
    """Runs what stands behind `--` in so many processes, and ends with their exit code."""
    given = list(arguments)
    own = given[: given.index("--")] if "--" in given else given
    about = f"{EXAMPLE}\n\n" + inspect.cleandoc(show_launch.__doc__ or "").split("\n\nArgs:")[0]
    with errors_as_lines():
        count, restarts = tyro.cli(read_options, prog="engine launch", args=own, description=about)
        command = given[len(own) + 1 :]
        if not command:
            rule = "a command behind --, with its options"
            raise InputError(problem("command", "nothing", rule, f"Write: {EXAMPLE}"))
        if restarts and "--numbered" in command:
            rule = "none with --restarts, which resumes the run in its directory"
            raise InputError(problem("--numbered", "given", rule, "Name the run with --run-dir."))
        from engine.processes.launcher import launch_processes  # of POSIX

        sys.exit(launch_processes(command, count, restarts, tell))


def read_options(num_processes: Count = 2, restarts: int = 0) -> tuple[int, int]:
    """The checked options.

    Args:
        num_processes: Processes to start; the cores and GPUs of this machine are shared out among them.
        restarts: How often the run is started again, with --resume, after a process was lost (exit code 75).
    """
    problems = check_whole("-n", num_processes, 1, "Give 2, or as many as there are GPUs.", below=1025)
    problems += check_whole("--restarts", restarts, 0, "Give 3 or so, or leave it out.")
    if problems:
        raise InputError(*problems)
    return num_processes, restarts


def show_launch(
    command: Annotated[tuple[str, ...], Positional, arg(metavar="-- COMMAND")] = (),
    num_processes: Count = 2,
    restarts: int = 0,
) -> None:
    """Run a command in several processes of this machine, as one run.

    Signals are passed on; lines of process 1 begin with [1], and a line that several print is shown once. When one
    process ends, all end, with its exit code: 0; 2 after a mistake; 130 or 143 when a signal stopped the run and all is
    saved; 75 when a process was lost and --resume goes on.

    Args:
        command: What to run, with its options, behind --.
        num_processes: Processes to start; the cores and GPUs of this machine are shared out among them.
        restarts: How often the run is started again, with --resume, after a process was lost (exit code 75).
    """


PARSERS = {"launch": launch}
COMMANDS = {"launch": show_launch}  # never called: for the list of commands and the completion of options

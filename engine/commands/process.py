"""What every command does around its work: settings of the process, and errors as lines instead of tracebacks."""

import contextlib
import logging
import os
import platform
import shlex
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import engine
from engine.errors import InputError
from engine.host.console import harden_streams, tell
from engine.host.interrupts import Interrupted, raised
from engine.processes import ends
from engine.processes.start import LAUNCHED, join
from engine.text import one_line

FLAGS = ("--overwrite", "--resume", "--numbered")  # without a value


def set_up_process(cache_dir: Path | None = None) -> None:
    """Settings that only a process of our own may make: a persistent compilation cache."""
    from engine.host.cores import limit_threads

    limit_threads()  # before NumPy is imported

    import jax

    from engine.host.xla_cache import LEAST_SECONDS, keep_programs

    keep_programs(cache_dir)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    # Of an entry that another process is just writing, or has left half written: it is compiled again.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache")


def join_others(distributed: str | None) -> None:
    """Joins the other processes of this one's run, if there are any, and ends with them."""
    join(distributed)
    if ends.are_joined():
        ends.watch(tell)


@contextlib.contextmanager
def errors_as_lines(is_run: bool = False) -> Iterator[None]:
    """Ends the process with a message and exit code 2 for a user's mistake, 128 + signal after an interrupt.

    is_run: whether the work can be resumed with --resume.
    """
    # tfds and Orbax log what a user cannot change, and with tracebacks what we catch and explain; asyncio does so for
    # all but the first of several writes that fail, as on a full disk.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    harden_streams(sys.argv)
    _drop_late_callbacks()
    try:
        with raised():
            yield
    except InputError as error:
        _end(2, f"error: {error}")
    except Interrupted as stop:
        _end(128 + stop.signal_number, f"{stop}. To go on: {command_again('--resume')}" if is_run else str(stop))
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(141) from None
    except OSError as error:
        where = f"{one_line(error.filename)}: " if error.filename else ""
        go_on = f" Fix this, then run: {command_again('--resume')}" if is_run else ""
        _end(2, f"error: {where}{error.strerror or error}. What was saved before stays.{go_on}")
    except Exception as error:  # a mistake of ours, of which the others must hear too
        if ends.are_joined():
            code, message = ends.end_of(error)
            if code == 1:
                traceback.print_exc()
            _end(code, message)
        raise


def _end(code: int, message: str) -> NoReturn:
    """Ends this process, and with it all others of its run."""
    ends.end(code, message, tell)
    tell(message)
    raise SystemExit(code)


def _drop_late_callbacks() -> None:
    """Silences tensorstore's threads where they report to Orbax's event loop after an error has closed it."""

    def is_late(error: BaseException | None) -> bool:
        return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"

    sys.excepthook = lambda kind, error, trace: None if is_late(error) else sys.__excepthook__(kind, error, trace)
    sys.unraisablehook = lambda late: None if is_late(late.exc_value) else sys.__unraisablehook__(late)


def command_name() -> str:
    """How this process was started: `engine`, `python -m experiments.convnet`, or the script."""
    if Path(sys.argv[0]).name == "engine":
        return engine_command()
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or spec.name == "__main__":
        return shlex.join([_program("python"), sys.argv[0]]) if sys.argv[0].endswith(".py") else Path(sys.argv[0]).name
    return f"{_program('python')} -m {spec.name.removesuffix('.__main__')}"


def command_again(*more: str) -> str:
    """The command that this process was started with, `more` (`--flag`, `--option=value`) in place of its own."""
    spelled = [part for argument in more for part in argument.split("=", 1)]
    again = " ".join([command_name(), shlex.join([*_without(*more, "--overwrite"), *spelled])])
    count = os.environ.get(LAUNCHED)
    return f"{engine_command()} launch -n {count} -- {again}" if count and count.isdecimal() else again


def restate(option: str, *flags: str) -> None:
    """Lets `command_again` give an option (`--option=value`) in place of its own and of some flags."""
    sys.argv[1:] = [*_without(option, *flags), *option.split("=", 1)]


def _without(*options: str) -> list[str]:
    """The arguments of this process without some: flags, and options with their values."""
    replaced = {option.split("=")[0] for option in options}
    given, rest = [], iter(sys.argv[1:])
    for argument in rest:
        if argument.split("=")[0] not in replaced:
            given.append(argument)
        elif "=" not in argument and argument not in FLAGS:
            next(rest, None)  # its value
    return given


def version_text() -> str:
    """`engine 0.1.0, Python 3.11.2, jax 0.10.2, flax 0.12.8`, without importing any of them."""
    others = (f"{name} {metadata.version(name)}" for name in ("jax", "flax"))
    return ", ".join([f"engine {engine.__version__}", f"Python {platform.python_version()}", *others])


def engine_command() -> str:
    """How to call `engine` from here."""
    return _program("engine")


def _program(name: str) -> str:
    """A program of this environment: its name where the environment is active, else its path."""
    script = Path(sys.prefix) / "bin" / name
    if not script.exists() or shutil.which(name) == str(script):
        return name
    return str(script.relative_to(Path.cwd())) if script.is_relative_to(Path.cwd()) else str(script)

"""`engine pack` and `engine unpack`: a run as one file, and back."""

import shlex
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from engine.commands.process import engine_command
from engine.commands.targets import Flag, RunDirectory
from engine.host.console import show


def pack(run: RunDirectory, out: Path | None = None, inference_only: Flag = False, overwrite: Flag = False) -> None:
    """Put a run into one file, which every command takes in place of its directory.

    Its best and its last checkpoint, config, history and results go in. Opening such a file is safe, whoever sent it.

    Args:
        run: Directory of the run.
        out: File to write; None for the run's name with .engine, here.
        inference_only: Leave out what only training on needs: optimizer state, and the last step if it is not the best.
        overwrite: Replace that file if there is one.
    """
    from engine.checkpoints.packing import SUFFIX, run_of
    from engine.checkpoints.packing import pack as write

    out = out or Path(run_of(run.resolve()).name.removesuffix(SUFFIX) + SUFFIX)
    steps = write(run, out, inference_only, overwrite)
    named = f"step{'s' * (len(steps) > 1)} {' and '.join(f'{step:,}' for step in steps)}"
    show(f"{out}: {out.stat().st_size / 1e6:,.2f} MB, {named}")
    _show_next("summary", str(out))


def unpack(
    file: Annotated[Path, Positional, arg(metavar="FILE")],
    out: Path | None = None,
) -> None:
    """Put a packed run into a new directory, to go on training it with --resume.

    Args:
        file: What `engine pack` wrote.
        out: Directory to make; None for the file's name without .engine, here.
    """
    from engine.checkpoints.packing import SUFFIX
    from engine.checkpoints.packing import unpack as write

    out = out or Path(file.name.removesuffix(SUFFIX))
    write(file, out)
    show(f"{out}/: the run in {file}")
    _show_next("summary", str(out))


def _show_next(*words: str) -> None:
    show(f"next:\n  {shlex.join([engine_command(), *words])}")


COMMANDS = {"pack": pack, "unpack": unpack}

"""`engine report`: a run as one HTML page, or several beside each other."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from engine.commands.process import set_up_process
from engine.commands.targets import Flag, find_own_classes
from engine.host.console import show, tell


def report(
    run: Annotated[Path, Positional, arg(metavar="RUN")],
    out: Path | None = None,
    trust: Flag = False,
) -> None:
    """Write a page about a run: curves, scores, mistakes, data, layers. One HTML file that needs no network.

    Args:
        run: Directory of a run, or the run packed.
        out: HTML file to write; None: report.html in the run's directory. An earlier page there is replaced.
        trust: Import the author's own code that the run names, which runs it.
    """
    set_up_process(None)
    find_own_classes(trust)
    from engine.report.page.write import write_report

    show(f"written: {write_report(run, out, trust=trust, say=tell)}")


COMMANDS = {"report": report}

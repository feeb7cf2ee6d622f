"""`engine report`: a run as one HTML page, or several beside each other."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from engine.commands.process import set_up_process
from engine.commands.targets import Flag, find_own_classes, step_of
from engine.errors import InputError, problem
from engine.host.console import show, tell


def report(
    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN …")],
    out: Path | None = None,
    step: str = "best",
    trust: Flag = False,
) -> None:
    """Write a page about a run: curves, scores, mistakes, data, layers; or one that compares several runs.

    One HTML file that needs no network. What it leaves out, it says with the reason.

    Args:
        runs: Directory of a run, or the run packed. Several, or a directory of runs: they are compared.
        out: HTML file to write; None: report.html in the run's directory, of several in the one that they are in. An
            earlier page there is replaced.
        step: Checkpoint of the run to report on: best, last or a step number; of a number, the run up to there.
        trust: Import the author's own code that the run names, which runs it.
    """
    if not runs:
        raise InputError(problem("runs", "none", "the directory of a run", "Name it: engine report runs/convnet."))
    find_own_classes(trust)
    if len(runs) == 1 and not _is_directory_of_runs(runs[0]):
        set_up_process(None)
        from engine.report.page.write import write_report

        show(f"written: {write_report(runs[0], out, trust=trust, say=tell, step=step_of(step))}")
        return
    if step != "best":
        rule, remedy = "best where runs are compared", "Leave it out, or name one run."
        raise InputError(problem("step", step, rule, remedy))
    from engine.report.page.compare import write_comparison

    show(f"written: {write_comparison(runs, out)}")


def _is_directory_of_runs(place: Path) -> bool:
    from engine.report.runs import find_runs

    return place.is_dir() and (found := find_runs(place)) != [place] and len(found) > 0


COMMANDS = {"report": report}

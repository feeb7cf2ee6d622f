"""`engine runs`: the runs in a directory, listed, chosen, sorted and compared."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from engine.commands.targets import Flag
from engine.errors import InputError, problem
from engine.host.console import show, tell

MOST_COMPARED = 8


def runs(
    places: Annotated[tuple[Path, ...], Positional, arg(metavar="PATH …")] = (Path("runs"),),
    sort: str = "changed",
    where: Annotated[tuple[str, ...], UseAppendAction, arg(metavar="CONDITION")] = (),
    compare: Flag = False,
) -> None:
    """List runs with the scores of their best epoch, the newest first; nothing of them is run.

    Args:
        places: Runs, or directories of runs.
        sort: What to sort by: a metric (accuracy, test_loss), epochs, seconds, changed, or a setting (data.name).
        where: Only runs for which this holds: "accuracy>0.9", optim.learning-rate=0.001; given again, all of them.
        compare: Show the settings in which these runs differ.
    """
    from engine.report.runs import choose, differences_table, find_runs, read_run, runs_table, sort_runs

    found, bad = [], list[str]()
    for place in places:
        if not place.is_dir():
            raise InputError(problem("places", place, "the directory of a run or of runs", "Check the path."))
        for path in find_runs(place):
            try:
                found.append(read_run(path))
            except InputError as error:
                bad.append(str(error).splitlines()[0])
    chosen = sort_runs(choose(found, where), sort)
    for line in bad:
        tell(f"left out: {line}")
    if not chosen:
        where_text = " for which this holds" if where and found else ""
        show(f"no runs{where_text} in {', '.join(map(str, places))}")
        return
    if compare and not 2 <= len(chosen) <= MOST_COMPARED:
        rule, remedy = f"2 to {MOST_COMPARED} to compare", "Name them, or choose some with --where."
        raise InputError(problem("compare", f"{len(chosen):,} runs", rule, remedy))
    show(runs_table(chosen, f"{len(chosen):,} runs" if len(chosen) > 1 else ""))
    if compare:
        show("", differences_table(chosen))


COMMANDS = {"runs": runs}

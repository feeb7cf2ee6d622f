"""Reports of a cross-validation: `folds.csv`, and a table with mean and deviation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.host.console import Table
from engine.host.storage import write_atomically
from engine.report.history import history_csv
from engine.report.tables import DEVIATION, format_metric


def report_folds(
    scores: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], steps: Sequence[int | None], path: Path, title: str
) -> Table:
    """Writes `folds.csv`, a line a fold and one each for mean and deviation; returns them as a table to show.

    scores: metrics of each fold by the member that is not trained on it, none where that failed. summary: as of
    `summarize`. steps: the best step of each member.
    """
    rows = [{"fold": k, "best_step": step, **found} for k, (step, found) in enumerate(zip(steps, scores, strict=True))]
    names = [name for name in summary if not name.endswith(DEVIATION)]
    mean = {"fold": "mean", **{name: summary[name] for name in names if name != "n"}}
    spread = {"fold": "deviation", **{name: summary[name + DEVIATION] for name in names if name != "n"}}
    write_atomically(path, history_csv([*rows, mean, spread]))
    table = Table(heading=title)
    table.add_column("fold")
    for name in names:
        table.add_column(name, justify="right")
    for row in (*rows, mean, spread):
        cells = [format_metric(name, row[name]) if name in row else "" for name in names]
        table.add_row(str(row["fold"]), *cells, end_section=row is rows[-1])
    return table

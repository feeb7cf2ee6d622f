"""Reports of a sweep: `sweep.csv`, and a table of the members' settings and scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.host.console import Table
from engine.host.storage import write_atomically
from engine.metrics.stopping import member_best_step, member_history, rank
from engine.report.history import history_csv
from engine.report.tables import format_metric


def report_sweep(
    config: RunConfig, columns: Mapping[str, Sequence[float]], history: Sequence[Mapping[str, Any]], path: Path
) -> Table:
    """Writes `sweep.csv`, a line a member with its settings and the metrics of its best epoch on the validation data.

    Returns the lines as a table to show, the best first.
    """
    train, rows = config.train, []
    for index in range(train.members):
        number = train.first_member + index
        step = member_best_step(train, history, number)
        settings = {name: values[index] for name, values in columns.items()}
        best = max(member_history(train, history, number), key=lambda metrics: rank(train, metrics), default={})
        rows.append({"member": number, **settings, **({"best_step": step} if step else {}), **best})
    write_atomically(path, history_csv(rows))
    return _make_table(config, list(columns), rows)


def _make_table(config: RunConfig, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    train = config.train
    in_order = sorted(rows, key=lambda row: rank(train, row) if "loss" in row else (-float("inf"),), reverse=True)
    best, names = in_order[0], [name for name in train.shown_metrics if name in in_order[0]]
    table = Table(heading=f"{config.name}: each member at its best epoch on the validation data, the best first")
    for name in ("member", *columns, "best_step", *names):
        table.add_column(name.replace("_", " "), justify="right")
    for row in in_order:
        numbers = [f"{row[name]:.6g}" for name in columns]
        scores = [format_metric(name, row[name]) if name in row else "" for name in ("best_step", *names)]
        table.add_row(str(row["member"]), *numbers, *scores)
    alone = " ".join(f"--{name.replace('_', '-')} {best[name]:.6g}" for name in columns)
    table.footnote = f"alone, as member {best['member']}: {alone}"
    return table

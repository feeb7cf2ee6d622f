"""Tables for the terminal."""

from collections.abc import Sequence
from typing import Any

from engine.host.console import Table

DEVIATION = "_deviation"  # at the end of a metric's name: that of the folds of a cross-validation


def metrics_table(rows: Sequence[tuple[str, dict[str, Any]]], title: str) -> Table:
    """One line per split: its metrics and the number of examples, with the total if files were skipped.

    A metric of which there is a `…_deviation` too is shown with that: `0.8521 ± 0.0060`.
    """
    every = dict.fromkeys(name for _, metrics in rows for name in metrics)
    names = [name for name in every if name != "skipped" and not name.endswith(DEVIATION)]
    table = Table(heading=title)
    table.add_column("split")
    for name in names:
        table.add_column(name, justify="right")
    for split, metrics in rows:
        table.add_row(split, *(_cell(name, metrics) for name in names))
    return table


def _cell(name: str, metrics: dict[str, Any]) -> str:
    if name == "n" and metrics.get("skipped"):
        return f"{metrics['n']:,} of {metrics['n'] + metrics['skipped']:,}"
    if name + DEVIATION in metrics:
        return f"{format_metric(name, metrics[name])} ± {format_metric(name, metrics[name + DEVIATION])}"
    return format_metric(name, metrics[name]) if name in metrics else ""


def format_metric(name: str, value: float) -> str:
    """A metric as text: counts with separators, other values with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"

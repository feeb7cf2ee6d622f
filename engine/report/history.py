"""The history of a run: one row per epoch, as a table and as curves."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.host.storage import replaced
from engine.text import CsvWriter

Row = dict[str, Any]


def history_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV text, one column for each name in them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    return text.getvalue()


def draw_curves(rows: Sequence[Row], path: Path, title: str, shown: Sequence[str] = ("loss", "accuracy")) -> None:
    """Draws the shown metrics that the history has, of training and validation over the epochs, as a PNG."""
    # The object interface draws without pyplot's global state and without a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = [name for name in shown if any(name in row or f"validation_{name}" in row for row in rows)]
    figure = Figure(figsize=(4.8 * max(len(metrics), 1), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for key, label in ((name, "training"), (f"validation_{name}", "validation")):
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, label=label)
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(title)
    with replaced(path) as file:
        figure.savefig(file, dpi=130, format="png")

"""The history of a run: one row per epoch, as a table and as curves."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.report.figures import save_figure
from engine.text import CsvWriter, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
LARGEST = 1e300  # that can be drawn
MOST_MARKED = 500  # epochs, each with a point of its own; of more the line alone, in pixels


def history_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV text, one column for each name in them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    return text.getvalue()


def read_history(rows: Sequence[Row]) -> list[Row]:
    """The epochs of a record, which may be a stranger's: those with whole numbers for epoch and step; numbers alone."""
    kept = [{name: value for name, value in row.items() if _is_number(value)} for row in rows]
    return [row for row in kept if isinstance(row.get("epoch"), int) and isinstance(row.get("step"), int)]


def is_number(value: Any) -> bool:
    """Whether a stranger's value is a number that can be drawn and added up, however large a float may be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_number(value: Any) -> bool:
    return is_number(value) or value != value


def find_curves(rows: Sequence[Row], shown: Sequence[str]) -> list[str]:
    """Those of the shown metrics that the history has."""
    return [name for name in shown if any(name in row or f"validation_{name}" in row for row in rows)]


def draw_curves(
    rows: Sequence[Row],
    title: str,
    shown: Sequence[str],
    best_epoch: int | None,
    path: Path,
) -> None:
    """Writes `curves_figure` as a PNG."""
    figure = curves_figure(rows, title, shown, best_epoch)
    save_figure(figure, path)


def curves_figure(rows: Sequence[Row], title: str, shown: Sequence[str], best_epoch: int | None = None) -> "Figure":
    """The shown metrics that the history has, of training and validation over the epochs, side by side.

    best_epoch: the one whose weights the run gives, which is marked; None: no mark.
    """
    # The object interface draws without pyplot's global state and without a screen.
    from matplotlib.figure import Figure

    metrics = find_curves(rows, shown)
    figure = Figure(figsize=(4.8 * max(len(metrics), 1), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, max(len(metrics), 1), squeeze=False)[0], metrics, strict=False):
        draw_curve(axes, rows, name, best_epoch)
        axes.set_title(name)
    figure.suptitle(one_line(title), parse_math=False)
    return figure


def curve_figure(
    rows: Sequence[Row], name: str, best_epoch: int | None, title: str, stopped_after: int | None = None
) -> "Figure":
    """One metric over the epochs as a figure. stopped_after: the epoch after which the run stopped early, or None."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    draw_curve(axes, rows, name, best_epoch)
    if stopped_after is not None:
        axes.axvline(stopped_after, color="0.5", linestyle=":", linewidth=1, label=f"stopped early, {stopped_after:,}")
        axes.legend(frameon=False)
    axes.set_title(title)
    return figure


def draw_curve(axes: Any, rows: Sequence[Row], name: str, best_epoch: int | None) -> None:
    """Draws one metric, of training and validation, over the epochs; a line marks the best epoch."""
    for key, label in ((name, "training"), (f"validation_{name}", "validation")):
        points = [(row["epoch"], row[key]) for row in rows if key in row]
        if points:
            marked: Any = {"marker": "o", "markersize": 3.5} if len(points) <= MOST_MARKED else {"rasterized": True}
            axes.plot(*zip(*points, strict=True), label=label, **marked)
    if best_epoch is not None:
        axes.axvline(best_epoch, color="0.5", linestyle="--", linewidth=1, label=f"best epoch, {best_epoch:,}")
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(rows) == 1:  # around which there is no whole number to mark
        axes.set_xticks([rows[0]["epoch"]])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)

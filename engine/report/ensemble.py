"""Ensemble reports: scores of members and of the combination, reliability diagram, per-example uncertainty."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.host.console import Table
from engine.host.storage import write_atomically
from engine.metrics.calibration import CALIBRATION_BINS, Reliability, Uncertainty, scores
from engine.metrics.combination import Combination
from engine.report.figures import save_figure
from engine.report.history import history_csv
from engine.report.tables import format_metric
from engine.text import CsvWriter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
METRICS = ("n", "accuracy", "nll", "brier", "ece")
UNCERTAINTY_COLUMNS = (
    "index", "label", "predicted", "probability", "disagreement", "predictive_entropy", "mutual_information",
)  # fmt: skip


def ensemble_rows(
    split: str,
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    combination: Combination,
    failed_steps: Sequence[int | None],
    first_member: int = 0,
) -> list[Row]:
    """One row per member, named by its number, and the row "combined", for log-probabilities [m n k] on labels int[n].

    failed_steps: for each member, the step at which it was frozen because its loss was not finite, or None. Frozen
    members are not scored, and a row omits scores that are not finite.
    """
    rows: list[Row] = []
    for i, (weight, failed_step) in enumerate(zip(combination.weights, failed_steps, strict=True)):
        status = "trained" if failed_step is None else f"frozen at step {failed_step:,}"
        row = {"split": split, "member": str(first_member + i), "status": status, "weight": weight}
        found = scores(np.exp(log_probabilities[i]), labels) if failed_step is None else {}
        rows.append({**row, **_numbers(found)})
    found = scores(combination.combine(log_probabilities), labels)
    how = {"status": combination.method, "temperature": combination.temperature}
    return [*rows, {"split": split, "member": "combined", **how, **_numbers(found)}]


def write_ensemble_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows as CSV; the status of `combined` is how it was combined."""
    write_atomically(path, history_csv(rows))


def ensemble_table(rows: Sequence[Row], title: str) -> Table:
    """The rows of one split for the terminal; with weights only if they differ."""
    members, has_weights = rows[:-1], len({row["weight"] for row in rows[:-1] if row["status"] == "trained"}) > 1
    table = Table(heading=title)
    table.add_column("member")
    if has_weights:
        table.add_column("weight", justify="right")
    for name in METRICS:
        table.add_column(name, justify="right")
    for row in rows:
        is_last_member = bool(members) and row is members[-1]
        weight = [_cell("weight", row)] if has_weights else []
        table.add_row(_name(row), *weight, *(_cell(name, row) for name in METRICS), end_section=is_last_member)
    tempered = f"temperature {rows[-1]['temperature']:.3f}; " if rows[-1]["temperature"] != 1 else ""
    table.footnote = f"{tempered}nll in nats, brier 0 to 2, ece over {CALIBRATION_BINS} bins"
    return table


def draw_reliability(combined: Reliability, members: Sequence[Reliability], title: str, path: Path) -> None:
    """Draws accuracy against confidence of an ensemble, with its members for comparison, as a PNG.

    Bars show the ensemble's accuracy, hatched boxes the gap to its confidence, thin lines Wilson's interval (1927) of
    one standard error. The line shows the members' accuracy in each bin, over all of their predictions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = reliability_figure(combined, members)
    FigureCanvasAgg(figure)
    error = combined.expected_calibration_error
    figure.suptitle(f"{title}\nECE {error:.4f} ({len(combined.counts)} bins), n = {combined.n:,}", parse_math=False)
    save_figure(figure, path)


def reliability_figure(combined: Reliability, members: Sequence[Reliability] = ()) -> "Figure":
    """What `draw_reliability` draws, as a figure without a title; without members of a single model."""
    # The object interface draws without pyplot's global state and without a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 6.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_gaps(upper, combined, "ensemble" if members else "model")
    _draw_members(upper, members)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    _draw_counts(lower, combined)
    return figure


def write_uncertainty_csv(
    path: Path, labels: np.ndarray, class_names: Sequence[str], probabilities: np.ndarray, uncertainty: Uncertainty
) -> None:
    """Writes one line per example: the names of its label int[n] and of the predicted class, and uncertainty measures.

    probabilities: [n k], combined, with the temperature if there is one; the members' uncertainty is without it.
    """
    guesses, top = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
    columns = (top, uncertainty.disagreement, uncertainty.predictive_entropy, uncertainty.mutual_information)
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.writerow(UNCERTAINTY_COLUMNS)
    for i, (label, guess, *numbers) in enumerate(zip(labels, guesses, *columns, strict=True)):
        writer.writerow([i, class_names[label], class_names[guess], *(f"{number:.6f}" for number in numbers)])
    write_atomically(path, text.getvalue())


def _numbers(found: Mapping[str, float]) -> Row:
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _name(row: Row) -> str:
    """`3`, `3: frozen at step 120` or `combined: mean`."""
    return row["member"] if row["status"] == "trained" else f"{row['member']}: {row['status']}"


def _cell(name: str, row: Row) -> str:
    return format_metric(name, row[name]) if name in row else "–"


def _draw_gaps(axes: Any, table: Reliability, name: str) -> None:
    is_used = table.counts > 0
    middles, width = (table.edges[:-1] + table.edges[1:])[is_used] / 2, 1 / len(table.counts)
    accuracy, confidence = table.accuracy[is_used], table.confidence[is_used]
    axes.plot((0, 1), (0, 1), color="0.4", linewidth=1, linestyle="--", label="perfectly calibrated", zorder=3)
    axes.bar(middles, accuracy, width, color="tab:blue", alpha=0.75, edgecolor="white", label=name)
    axes.bar(
        middles, confidence - accuracy, width, accuracy, color="none", edgecolor="firebrick", hatch="////",
        linewidth=0.8, label="gap to its confidence", zorder=2,
    )  # fmt: skip
    axes.vlines(middles, *_wilson_interval(accuracy, table.counts[is_used]), color="black", linewidth=0.8, zorder=4)


def _wilson_interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the interval for one standard error. Unlike share ± error, it has a width if the share is 0 or 1."""
    middle = (share + 1 / (2 * count)) / (1 + 1 / count)
    half = np.sqrt(share * (1 - share) / count + 1 / (4 * count**2)) / (1 + 1 / count)
    return middle - half, middle + half


def _draw_members(axes: Any, members: Sequence[Reliability]) -> None:
    if not members:
        return
    together = sum(members[1:], members[0])
    is_used = together.counts > 0
    error = np.mean([table.expected_calibration_error for table in members])
    axes.plot(
        together.confidence[is_used], together.accuracy[is_used], color="tab:orange", marker="o", markersize=3.5,
        label=f"{len(members)} members, mean ECE {error:.4f}", zorder=5,
    )  # fmt: skip


def _draw_counts(axes: Any, table: Reliability) -> None:
    axes.bar(table.edges[:-1], table.counts, 1 / len(table.counts), align="edge", color="0.6", edgecolor="white")
    axes.set(xlabel="confidence: probability of the predicted class", ylabel="examples", yscale="log")
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.minorticks_off()
    axes.grid(axis="y", alpha=0.3)

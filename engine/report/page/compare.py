"""Several runs beside each other on one page: a table, their curves, and which settings make the difference."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.config.scoring import METRICS
from engine.errors import InputError, problem
from engine.host.storage import expanded, write_atomically
from engine.report.page.charts import make_chart
from engine.report.page.material import find_damage
from engine.report.page.parts import LeftOut, Part, Rows, Section, Text, rows_of
from engine.report.page.render import render_page
from engine.report.page.write import PAGE, find_place
from engine.report.runs import RunFacts, find_differing, find_runs, read_run, runs_table, setting_text, sort_runs
from engine.report.tables import format_metric
from engine.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CURVES = 12  # runs; the curves of more cannot be distinguished
MOST_AXES = 8
MOST_REASONS = 3  # why runs cannot be read, in an error
LEAST_DISTANCE = 0.06  # of two marks along an axis, of its length
MOST_LETTERS = 24
LONGEST_SETTING = 160
LINES = ("-", "--", ":")
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")
SETTINGS_ASIDE = ("data.path", "data.cache_dir", "data.data_dir", "checkpoint")  # where things lie makes no difference


def write_comparison(places: Sequence[Path], out: Path | None = None) -> Path:
    """Writes a page that compares runs, given as runs or directories of runs; nothing of them is run.

    out: None for `report.html` in the directory that all are in. Runs that cannot be read are named on the page.
    Raises InputError where there are fewer than two.
    """
    runs, bad = read_all(places)
    if len(runs) < 2:
        got, rule = f"{len(runs)} that can be read", "two runs or more to compare, or one"
        raise InputError(problem("runs", got, rule, "Check the paths."), *(why for _, why in bad[:MOST_REASONS]))
    shared = Path(os.path.commonpath([expanded(run.path).absolute().parent for run in runs]))
    place = find_place(shared, out if out is not None else shared / PAGE)
    write_atomically(place, make_comparison(runs, bad))
    return place


def read_all(places: Sequence[Path]) -> tuple[list[RunFacts], list[tuple[str, str]]]:
    """(the runs, the best first; of each that cannot be read its name and why)."""
    runs, bad = list[RunFacts](), list[tuple[str, str]]()
    for place in places:
        for path in (find_runs(place) or [place]) if place.is_dir() else [place]:
            try:
                runs.append(read_run(path))
                if why := find_damage(path):
                    bad.append((one_line(path), why))
            except InputError as error:
                bad.append((one_line(path), str(error).splitlines()[0]))
    return (sort_runs(runs, find_score(runs)) if runs else []), bad


def find_score(runs: Sequence[RunFacts]) -> str:
    """What runs are ranked by: accuracy on test data where all have it, else on validation data, else the loss."""
    for name in ("test_accuracy", "accuracy", "test_loss"):
        if all(name in run.values for run in runs):
            return name
    return "loss" if any("loss" in run.values for run in runs) else "changed"


def make_comparison(runs: Sequence[RunFacts], bad: Sequence[tuple[str, str]]) -> str:
    """The page as HTML."""
    sections, left_out = [Section("Runs", [rows_of(runs_table(runs, f"{len(runs):,} runs, the best first"))])], [*bad]
    for title, make in (("Curves", draw_all), ("Settings", show_differences), ("What matters", draw_coordinates)):
        try:
            sections.append(Section(title, make(runs)))
        except LeftOut as reason:
            left_out.append((title, str(reason)))
    title = f"{len(runs):,} runs"
    return render_page(title, f"{title} compared by {find_score(runs).replace('_', ' ')}", sections, left_out)


def draw_all(runs: Sequence[RunFacts]) -> list[Part]:
    """The validation curves of the runs, or of the best of them, in one picture for each metric."""
    names = [
        name for name in ("loss", "accuracy") if any(f"validation_{name}" in row for run in runs for row in run.history)
    ]
    if not names:
        raise LeftOut("No run has been validated.")
    parts: list[Part] = []
    for name in names:
        label = f"validation {name} of {min(len(runs), MOST_CURVES)} runs over the epochs"
        parts.append(make_chart(_overlay(runs[:MOST_CURVES], f"validation_{name}"), label, f"all-{name}"))
    if len(runs) > MOST_CURVES:
        parts.append(Text(f"The best {MOST_CURVES} of {len(runs):,} runs."))
    return parts


def show_differences(runs: Sequence[RunFacts]) -> list[Part]:
    """The settings in which the runs differ, with their scores."""
    differing, score = _find_differing(runs), find_score(runs)
    if not differing:
        raise LeftOut("They have the same settings.")
    rows = [
        [one_line(run.path), _score_text(run, score), *(_cut_setting(run.settings.get(name, "")) for name in differing)]
        for run in runs
    ]
    return [Rows("Settings in which they differ", ("run", score.replace("_", " "), *differing), rows)]


def draw_coordinates(runs: Sequence[RunFacts]) -> list[Part]:
    """Parallel coordinates: a line for each run through its settings to its score."""
    score = find_score(runs)
    names = _find_differing(runs)[:MOST_AXES]
    having = [run for run in runs if score in run.values]
    if not names or len(having) < 2:
        raise LeftOut("It needs two runs with scores and different settings.")
    label = f"parallel coordinates: {', '.join(names)} and {score.replace('_', ' ')} of {len(having):,} runs"
    note = f"A line for each run; the best is the thickest. Up to {MOST_AXES} settings are shown."
    return [Text(note), make_chart(_coordinates(having, names, score), label, "coordinates", is_wide=True)]


def _find_differing(runs: Sequence[RunFacts]) -> list[str]:
    return [name for name in find_differing(runs) if not name.startswith(SETTINGS_ASIDE)]


def _cut_setting(value: object) -> str:
    text = setting_text(value)
    return text if len(text) <= LONGEST_SETTING else f"{text[: LONGEST_SETTING - 1]}…"


def _score_text(run: RunFacts, score: str) -> str:
    return format_metric(score, run.values[score]) if score in run.values else ""


def _overlay(runs: Sequence[RunFacts], key: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.4 + 0.17 * len(runs)), layout="constrained")
    axes: Any = figure.subplots()
    for number, run in enumerate(runs):
        points = [(row["epoch"], row[key]) for row in run.history if key in row]
        if points:
            color, style = COLORS[number % len(COLORS)], LINES[number // len(COLORS) % len(LINES)]
            look: Any = {"color": color, "linestyle": style, "marker": "o", "markersize": 3}
            axes.plot(*zip(*points, strict=True), label=_label(run.path.name), **look)
    axes.set(xlabel="epoch", title=key.replace("_", " "))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    return figure


def _label(name: str) -> str:
    """The name of a run in a legend, which leaves out what begins with an underscore."""
    return _cut(f"./{name}" if name.startswith("_") else name)


def _coordinates(runs: Sequence[RunFacts], names: Sequence[str], score: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 * (len(names) + 1) + 1, 4.2), layout="constrained")
    axes = figure.subplots()
    columns = [_place([run.settings.get(name) for run in runs]) for name in names]
    columns.append(_place([run.values[score] for run in runs]))
    best = METRICS[score.removeprefix("test_")].best_is if score.removeprefix("test_") in METRICS else "lowest"
    ranks = columns[-1][0] if best == "highest" else 1 - columns[-1][0]
    for number in np.argsort(ranks, kind="stable"):
        is_best = ranks[number] == ranks.max()
        places = [places[number] for places, _ in columns]
        color, width = ("#ff7f0e", 2.5) if is_best else ("#1f77b4", 1.0)
        axes.plot(range(len(columns)), places, color=color, linewidth=width, alpha=0.3 + 0.7 * ranks[number])
    for number, (_, ticks) in enumerate(columns):
        axes.axvline(number, color="0.5", linewidth=0.8)
        for place, text in ticks:
            axes.text(number + 0.03, place, _cut(text), fontsize=8, va="bottom", parse_math=False)
    shown = [name.replace(".", ".\n", 1).replace("_", " ") for name in (*names, score)]
    axes.set_xticks(range(len(columns)), shown, fontsize=8, parse_math=False)
    axes.set(yticks=[], xlim=(-0.1, len(columns) - 0.4), ylim=(-0.08, 1.08))
    axes.spines[:].set_visible(False)
    return figure


def _place(values: Sequence[Any]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """(where each value stands on an axis from 0 to 1, marks along it): numbers in proportion, others in a row.

    Positive numbers that differ a hundredfold or more stand by their logarithms.
    """
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, np.float64)
        if numbers.min() > 0 and numbers.max() >= 100 * numbers.min():
            numbers = np.log(numbers)
        low, spread = numbers.min(), np.ptp(numbers)
        places = (numbers - low) / spread if spread else np.full(len(numbers), 0.5)
        marks = {float(place): f"{value:.4g}" for place, value in zip(places, values, strict=True)}
    else:
        texts = [setting_text(value) for value in values]
        kinds = sorted(set(texts))
        places = np.array([kinds.index(text) for text in texts]) / max(len(kinds) - 1, 1)
        marks = {float(place): text for place, text in zip(places, texts, strict=True)}
    *ordered, last = sorted(marks.items())
    shown = list[tuple[float, str]]()
    for place, text in ordered:
        if last[0] - place >= LEAST_DISTANCE and (not shown or place - shown[-1][0] >= LEAST_DISTANCE):
            shown.append((place, text))
    return places, [*shown, last]


def _cut(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= MOST_LETTERS else f"{shown[: MOST_LETTERS - 1]}…"

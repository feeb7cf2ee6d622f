"""Scores class by class, as a table for the terminal and as a CSV file."""

from pathlib import Path

import numpy as np

from engine.host.console import Table
from engine.metrics.pairs import Pairs
from engine.metrics.per_class import ClassScores
from engine.report.predictions import csv_file
from engine.text import one_line

SHOWN_CLASSES = 20
SHOWN_MISTAKES = 5


def class_scores_table(scores: ClassScores, title: str, limit: int = SHOWN_CLASSES) -> Table:
    """A line for each class: those of the lowest F1, if there are more than `limit`; with the means over classes."""
    table = Table(heading=title)
    table.add_column("class" if isinstance(scores.counted, Pairs) else "label")
    columns = ["precision", "recall", "f1", *(["best threshold"] if scores.best_thresholds is not None else []), "n"]
    for name in columns:
        table.add_column(name, justify="right")
    numbers = np.argsort(scores.f1, kind="stable")[:limit] if len(scores.f1) > limit else range(len(scores.f1))
    for k in numbers:
        table.add_row(scores.class_names[k], *_cells(scores, int(k)), end_section=bool(k == numbers[-1]))
    means = [f"{values.mean():.4f}" for values in (scores.precision, scores.recall, scores.f1)]
    table.add_row("mean over all", *means, *[""] * (len(columns) - 4), f"{scores.support.sum():,.10g}")
    if len(scores.f1) > limit:
        table.footnote = f"the {limit} of {len(scores.f1):,} with the lowest F1"
    return table


def mistakes_text(scores: ClassScores) -> str:
    """The most frequent mistakes in words; empty where there are none."""
    found = [
        f"{one_line(name)} taken for {one_line(other)} ({count:,.10g})"
        for name, other, count in scores.most_confused[:SHOWN_MISTAKES]
    ]
    return f"most frequent mistakes: {', '.join(found)}" if found else ""


def write_class_scores(path: Path, scores: ClassScores) -> None:
    """Writes a line for each class: its scores, and how many of its examples were taken for each of the classes."""
    pairs = scores.counted if isinstance(scores.counted, Pairs) else None
    extra = [f"as {name}" for name in scores.class_names] if pairs else ["best_threshold", "missed", "wrongly given"]
    with csv_file(path) as file:
        file.writerow(["class" if pairs else "label", "n", "precision", "recall", "f1", *extra])
        for k, name in enumerate(scores.class_names):
            numbers = (scores.support[k], scores.precision[k], scores.recall[k], scores.f1[k])
            more = pairs.row(k) if pairs else _of_label(scores, k)
            file.writerow([name, *(f"{value:.10g}" for value in (*numbers, *more))])


def _of_label(scores: ClassScores, k: int) -> tuple[float, ...]:
    assert scores.best_thresholds is not None
    return float(scores.best_thresholds[k]), float(scores.confusion[k, 1, 0]), float(scores.confusion[k, 0, 1])


def _cells(scores: ClassScores, k: int) -> list[str]:
    cells = [f"{values[k]:.4f}" for values in (scores.precision, scores.recall, scores.f1)]
    cells += [f"{scores.best_thresholds[k]:.3f}"] if scores.best_thresholds is not None else []
    return [*cells, f"{scores.support[k]:,.10g}"]

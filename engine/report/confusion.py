"""The confusion matrix of a run, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.data.decoded.dataset import Dataset
from engine.metrics.pairs import Pairs, as_pairs
from engine.report.figures import save_figure
from engine.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SHOWN = 40  # classes; of more, those with the most mistakes
MOST_NUMBERED = 20  # classes whose counts can be read in a cell
NAME_LETTERS = 18
MOST_OUTPUTS = 2**28  # numbers of predictions that are in memory together


def limit_examples(data: Dataset, num_outputs: int) -> Dataset:
    """The data, or as many of the first examples as have MOST_OUTPUTS predicted numbers; the name says how many."""
    most = MOST_OUTPUTS // num_outputs
    return data if len(data) <= most else data.take(np.arange(most), f"{data.name}, the first {most:,} examples")


def choose_classes(confusion: Pairs | np.ndarray, most: int = MOST_SHOWN) -> np.ndarray:
    """int[s], in their order: all classes, or of more than `most` those that have the most to do with mistakes."""
    pairs = as_pairs(confusion)
    if pairs.num_classes <= most:
        return np.arange(pairs.num_classes)
    wrong = pairs.of_class + pairs.as_class - 2 * pairs.right
    return np.sort(np.argsort(-wrong, kind="stable")[:most])


def draw_confusion(confusion: Pairs | np.ndarray, class_names: Sequence[str], title: str, path: Path) -> None:
    """Writes `confusion_figure` as a PNG."""
    figure = confusion_figure(confusion, class_names, title)
    save_figure(figure, path)


def confusion_figure(confusion: Pairs | np.ndarray, class_names: Sequence[str], title: str) -> "Figure":
    """What was taken for what, Pairs or [k k] with a row for each class; shades are shares of a row."""
    from matplotlib.figure import Figure

    pairs = as_pairs(confusion)
    shown = choose_classes(pairs)
    table, support = pairs.among(shown), pairs.of_class[shown, None]
    shares = np.divide(table, support, out=np.zeros(table.shape), where=support > 0)
    size = 2.2 + 0.42 * min(len(shown), MOST_NUMBERED)
    figure = Figure(figsize=(size + 0.6, size + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_cut(class_names[int(k)]) for k in shown]
    font = 9 if len(shown) <= MOST_NUMBERED else 6
    axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(len(shown)), names, fontsize=font, parse_math=False)
    axes.set(xlabel="predicted as", ylabel="is")
    if len(shown) <= MOST_NUMBERED:
        for i, j in zip(*np.nonzero(table), strict=True):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{table[i, j]:,.5g}", ha="center", va="center", fontsize=7, color=color)
    which = (
        ""
        if len(shown) == pairs.num_classes
        else f"\nthe {len(shown)} of {pairs.num_classes:,} classes with most mistakes"
    )
    figure.suptitle(one_line(title) + which, fontsize=11, parse_math=False)
    return figure


def _cut(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= NAME_LETTERS else f"{shown[: NAME_LETTERS - 1]}…"

"""Predictions as tables for the terminal and as CSV files, with a progress line."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.cells import cell_len, set_cell_size
from rich.progress import BarColumn, Progress, TextColumn

from engine.errors import InputError
from engine.host.console import Console, Shortened, Table
from engine.host.storage import replaced
from engine.inference.classifier import Prediction
from engine.report.progress import LINE_SECONDS, duration_text
from engine.text import CsvWriter, one_line, rate_text

SHOWN_ROWS = 20
SHOWN_SECONDS = 0.1  # between two updates of the progress line
Answer = Prediction | InputError
Item = TypeVar("Item")


def predictions_table(predictions: Sequence[tuple[str, Prediction]], unit: str, total: int) -> Table:
    """A line for each (name, prediction), with its likeliest classes; a footnote with `total` if that is larger."""
    places = max((len(prediction.top) for _, prediction in predictions), default=1)
    has_labels = any(prediction.labels is not None for _, prediction in predictions)
    table = Table(unit, *["labels"] * has_labels, *(f"{place}." for place in range(1, places + 1)))
    for name, prediction in predictions:
        given = [", ".join(prediction.labels or ()) or "none"] * has_labels
        table.add_row(Shortened(name), *given, *(f"{label} {share:.3f}" for label, share in prediction.top))
    if total > len(predictions):
        table.footnote = f"the first {len(predictions)} of {total:,}"
    return table


def prediction_lines(prediction: Prediction) -> list[str]:
    """A line for each of the likeliest classes of one picture: `n02111889 Samoyed  95.6 %`."""
    labels = [one_line(label) for label, _ in prediction.top]
    width = max(map(cell_len, labels))
    shares = [f"{100 * share:5.1f} %" for _, share in prediction.top]
    return [f"{set_cell_size(label, width)}  {share}" for label, share in zip(labels, shares, strict=True)]


def picture_header(places: int, has_labels: bool = False) -> list[str]:
    """The columns of `picture_row`: image, label, probability, label_2, probability_2, …, error.

    has_labels: of several labels a picture, with labels behind the image.
    """
    marks = ["", *(f"_{place}" for place in range(2, places + 1))]
    columns = (column + mark for mark in marks for column in ("label", "probability"))
    return ["image", *["labels"] * has_labels, *columns, "error"]


def picture_row(name: str, answer: Answer, places: int, has_labels: bool = False) -> list[str]:
    """A line for a picture: its labels, like cat|dog, if it may have several, its likeliest classes, or the error."""
    if isinstance(answer, InputError):
        return [name, *[""] * (2 * places + has_labels), str(answer).removeprefix(f"{one_line(name)}: ")]
    given = ["|".join(answer.labels or ())] * has_labels
    return [name, *given, *(cell for label, share in answer.top for cell in (label, f"{share:.6f}")), ""]


def submission_rows(predictions: Sequence[Prediction]) -> Iterator[list[str]]:
    """`ImageId,Label` and a line for each row of a table, numbered from 1: the form of Kaggle's digit recognizer."""
    yield ["ImageId", "Label"]
    for number, prediction in enumerate(predictions, 1):
        yield [str(number), prediction.label if prediction.labels is None else "|".join(prediction.labels)]


@contextlib.contextmanager
def csv_file(path: Path) -> Iterator[CsvWriter]:
    """A CSV writer that writes each row to disk immediately, but replaces `path` only when all rows are written.

    A reader cannot tell half a table from a whole one, so an error or a kill leaves the previous file.
    """
    with replaced(path, "w", encoding="utf-8", newline="") as file:
        yield CsvWriter(file)


def shown_progress(answers: Iterable[Item], total: int, console: Console) -> Iterator[Item]:
    """The answers, with a progress line: a live one on a terminal, otherwise one every ten seconds."""
    start, last, live = time.monotonic(), time.monotonic(), None
    with contextlib.ExitStack() as stack:
        if console.is_terminal:
            columns = (
                TextColumn("{task.completed:,}/{task.total:,} images"),
                BarColumn(24),
                TextColumn("{task.description}"),
            )
            live = stack.enter_context(Progress(*columns, console=console, transient=True))
            live.add_task("compiling …", total=total)
        for done, answer in enumerate(answers, 1):
            yield answer
            now = time.monotonic()
            if now - last < (LINE_SECONDS if live is None else SHOWN_SECONDS):
                continue
            rate, last = done / (now - start), now
            text = f"{rate_text(rate)}  ETA {duration_text((total - done) / rate)}"
            if live is None:
                console.print(f"{done:,}/{total:,} images  {text}", soft_wrap=True)
            else:
                live.update(live.task_ids[0], completed=done, description=text)

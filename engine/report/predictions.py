"""Predictions as tables for the terminal and as CSV text."""

import csv
import io
from collections.abc import Iterable, Sequence

from rich.table import Table

from engine.predict import Prediction

SHOWN_ROWS = 20


def predictions_table(names: Sequence[str], predictions: Sequence[Prediction], unit: str, is_short: bool) -> Table:
    """A line for each picture, its likeliest classes side by side; if short, the first lines and the count."""
    places = max((len(prediction.top) for prediction in predictions), default=1)
    table = Table(unit, *(f"{place}." for place in range(1, places + 1)), caption_justify="left")
    count = SHOWN_ROWS if is_short else len(predictions)
    for name, prediction in zip(names[:count], predictions[:count], strict=True):
        table.add_row(name, *(f"{label} {probability:.3f}" for label, probability in prediction.top))
    if len(predictions) > count:
        table.caption = f"the first {count} of {len(predictions):,}"
    return table


def predictions_csv(names: Sequence[str], predictions: Sequence[Prediction]) -> str:
    """`image,label,probability,label_2,probability_2,…` and a line for each picture."""
    places = max((len(prediction.top) for prediction in predictions), default=1)
    header = ["image"]
    for place in range(1, places + 1):
        mark = "" if place == 1 else f"_{place}"
        header += [f"label{mark}", f"probability{mark}"]
    rows = (
        [name, *(cell for label, probability in prediction.top for cell in (label, f"{probability:.6f}"))]
        for name, prediction in zip(names, predictions, strict=True)
    )
    return _text([header, *rows])


def submission_csv(predictions: Sequence[Prediction]) -> str:
    """`ImageId,Label` and a line for each row of a table, numbered from 1: what Kaggle's digit recognizer takes."""
    rows = ([number, prediction.label] for number, prediction in enumerate(predictions, 1))
    return _text([["ImageId", "Label"], *rows])


def _text(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # File names may hold bytes that are no UTF-8, which a file of text cannot.
    return text.getvalue().encode("utf-8", "surrogateescape").decode("utf-8", "replace")

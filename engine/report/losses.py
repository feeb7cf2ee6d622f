"""The examples that a model gives the highest losses."""

from dataclasses import dataclass

import numpy as np

from engine.data.decoded.dataset import Dataset
from engine.data.pictures.shown import shown_levels
from engine.errors import InputError, problem
from engine.inference.classifier import Classifier
from engine.report.drawing import Drawing, show

LEAST = np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class Loss:
    """An example and its loss. number: its index in the data; label, predicted: names of classes, or numbers."""

    number: int
    loss: float
    label: str
    predicted: str
    image: np.ndarray


@dataclass(frozen=True, eq=False)
class TopLosses(Drawing):
    """The examples of the highest losses, the highest first, and a drawing of them."""

    examples: tuple[Loss, ...]


def find_top_losses(classifier: Classifier, dataset: Dataset, count: int) -> TopLosses:
    """Those of `count` examples of data that fits the model.

    The loss of an example is −log of the probability of its class; of several labels the mean over these, of shares of
    classes weighted by them, and of a regression the mean squared error.
    """
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise InputError(problem("count", repr(count), "a whole number of at least 1", "Give 9 or so."))
    outputs = classifier.outputs(dataset.images)
    losses = compute_losses(outputs, dataset)
    order = np.argsort(-losses, kind="stable")[:count]
    examples = tuple(
        Loss(
            int(i),
            float(losses[i]),
            *_describe(outputs[i], dataset, int(i), classifier.thresholds),
            np.asarray(dataset.images[int(i)]),
        )
        for i in order
    )
    if len(dataset.input_shape) != 3:
        raise InputError(problem("top_losses", "inputs that are no pictures", "pictures", "Use class_scores."))
    images = [shown_levels(each.image) for each in examples]
    titles = [f"{each.predicted}\nis {each.label}, {each.loss:.2f}" for each in examples]
    drawing = show(images, titles, f"Highest losses on {dataset.name}", min(5, len(images)) if count > 9 else 3)
    return TopLosses(drawing.figure, examples)


def compute_losses(outputs: np.ndarray, dataset: Dataset) -> np.ndarray:
    """float64[n] of outputs [n k]: probabilities, or numbers of a regression."""
    labels, outputs = dataset.labels, outputs.astype(np.float64)
    if dataset.task == "numbers":
        return np.square(outputs - labels).mean(1)
    if dataset.task == "labels":
        return -np.log(np.maximum(np.where(labels > 0, outputs, 1 - outputs), LEAST)).mean(1)
    logs = np.log(np.maximum(outputs, LEAST))
    return -(logs * labels).sum(1) if labels.ndim == 2 else -logs[np.arange(len(labels)), labels]


def _describe(row: np.ndarray, dataset: Dataset, number: int, thresholds: np.ndarray | None) -> tuple[str, str]:
    """(the label, the prediction) of an example as texts."""
    label, names = dataset.labels[number], dataset.class_names
    if dataset.task == "numbers":
        return ", ".join(f"{value:.4g}" for value in label), ", ".join(f"{value:.4g}" for value in row)
    if dataset.task == "labels":
        return tuple(
            ", ".join(names[k] for k in np.flatnonzero(marks)) or "none" for marks in (label, row > thresholds)
        )  # type: ignore[return-value]
    return names[int(dataset.class_numbers[number])], names[int(row.argmax())]

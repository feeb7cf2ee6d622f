"""What a config knows of losses and metrics by name, without JAX: the functions of the same names are in metrics/."""

from dataclasses import dataclass
from typing import Annotated, Literal

from engine.config.named import name_of, option
from engine.records.custom import Custom

OutputActivation = Literal["softmax", "sigmoid", "linear"]
BestIs = Literal["highest", "lowest"]
Task = Literal["classes", "labels", "numbers"]
"""What is predicted of an example: one of the classes, any of the labels, or the numbers of a regression."""


@dataclass(frozen=True)
class LossFacts:
    """What a loss expects of outputs and targets.

    activation: what predictions apply to the outputs. softmax: one output a class; sigmoid: one output for two classes;
      linear: the outputs of a regression, whose targets are numbers.
    metric: the metric that an ensemble's combined predictions are reported by as their loss; "": the loss itself.
    """

    activation: OutputActivation
    metric: str = ""
    takes_smoothing: bool = False


@dataclass(frozen=True)
class MetricFacts:
    """Which value of a metric is the best, and whether it is defined for classes or for a regression."""

    best_is: BestIs
    of_classes: bool = True


LOSSES = {
    "softmax_cross_entropy": LossFacts("softmax", "nll", takes_smoothing=True),
    "binary_cross_entropy": LossFacts("sigmoid", "nll", takes_smoothing=True),
    "focal": LossFacts("softmax", takes_smoothing=True),
    "binary_focal": LossFacts("sigmoid", takes_smoothing=True),
    "mean_squared_error": LossFacts("linear", "mean_squared_error"),
    "mean_absolute_error": LossFacts("linear", "mean_absolute_error"),
}
"""What each is computed by: engine.metrics.losses.LOSSES."""
METRICS = {
    "accuracy": MetricFacts("highest"),
    "top5": MetricFacts("highest"),
    "balanced_accuracy": MetricFacts("highest"),
    "nll": MetricFacts("lowest"),
    "brier": MetricFacts("lowest"),
    "ece": MetricFacts("lowest"),
    "mean_squared_error": MetricFacts("lowest", of_classes=False),
    "mean_absolute_error": MetricFacts("lowest", of_classes=False),
}
"""What each is computed by: engine.metrics.table.METRICS."""
LossName = Annotated[str | Custom, option(LOSSES)]
MetricName = Annotated[str | Custom, option(METRICS)]


def loss_facts(loss: str | Custom, has_classes: bool = True) -> LossFacts:
    """The facts of a loss. One of the user's own is given logits, one a class, or the outputs of a regression."""
    if isinstance(loss, Custom):
        return LossFacts("softmax" if has_classes else "linear")
    return LOSSES[loss]


def takes_numbers(loss: str | Custom) -> bool | None:
    """Whether the targets of a loss are numbers, as those of a regression are; None: either, as the data has them."""
    return None if isinstance(loss, Custom) else loss_facts(loss).activation == "linear"


def metric_name(metric: str | Custom) -> str:
    """What a metric is called in tables, histories and `best_by`: its name, or that of the user's own function."""
    return metric.name if isinstance(metric, Custom) else name_of(metric)

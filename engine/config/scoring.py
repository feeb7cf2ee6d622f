"""What a config knows of losses and metrics by name, without JAX: the functions of the same names are in metrics/."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from engine.config.named import name_of, option
from engine.records.custom import Custom

OutputActivation = Literal["softmax", "sigmoid", "sigmoids", "linear"]
BestIs = Literal["highest", "lowest"]
Task = Literal["classes", "labels", "numbers"]
"""What is predicted of an example: one of the classes, any of the labels, or the numbers of a regression."""


@dataclass(frozen=True)
class LossFacts:
    """What a loss expects of outputs and targets.

    activation: what predictions apply to the outputs. softmax: one output a class; sigmoid: one output for two classes;
      sigmoids: one output for each of several labels; linear: the outputs of a regression, whose targets are numbers.
    metric: the metric that an ensemble's combined predictions are reported by as their loss; "": the loss itself.
    """

    activation: OutputActivation
    metric: str = ""
    takes_smoothing: bool = False


@dataclass(frozen=True)
class MetricFacts:
    """Which value of a metric is the best, and what it is defined for."""

    best_is: BestIs
    tasks: tuple[Task, ...] = ("classes",)


LOSSES = {
    "softmax_cross_entropy": LossFacts("softmax", "nll", takes_smoothing=True),
    "binary_cross_entropy": LossFacts("sigmoid", "nll", takes_smoothing=True),
    "focal": LossFacts("softmax", takes_smoothing=True),
    "binary_focal": LossFacts("sigmoid", takes_smoothing=True),
    "mean_squared_error": LossFacts("linear", "mean_squared_error"),
    "mean_absolute_error": LossFacts("linear", "mean_absolute_error"),
}
"""What each is computed by: engine.metrics.losses.LOSSES."""
ELSEWHERE = {
    **dict.fromkeys(
        ("categoricalcrossentropy", "sparsecategoricalcrossentropy", "crossentropy", "crossentropyloss", "nllloss"),
        "softmax_cross_entropy",
    ),
    **dict.fromkeys(
        (
            "binarycrossentropy",
            "sigmoidcrossentropy",
            "sigmoidbinarycrossentropy",
            "bce",
            "bceloss",
            "bcewithlogitsloss",
        ),
        "binary_cross_entropy",
    ),
    **dict.fromkeys(("categoricalfocalcrossentropy", "sigmoidfocalloss"), "focal"),
    "binaryfocalcrossentropy": "binary_focal",
    **dict.fromkeys(("mse", "mseloss"), "mean_squared_error"),
    **dict.fromkeys(("mae", "l1loss"), "mean_absolute_error"),
}
"""What losses are called in Keras and PyTorch → here."""
METRICS = {
    "accuracy": MetricFacts("highest", ("classes", "labels")),
    "top5": MetricFacts("highest"),
    "balanced_accuracy": MetricFacts("highest"),
    "f1_macro": MetricFacts("highest", ("classes", "labels")),
    "f1_micro": MetricFacts("highest", ("labels",)),
    "exact_match": MetricFacts("highest", ("labels",)),
    "nll": MetricFacts("lowest", ("classes", "labels")),
    "brier": MetricFacts("lowest", ("classes", "labels")),
    "ece": MetricFacts("lowest"),
    "mean_squared_error": MetricFacts("lowest", ("numbers",)),
    "mean_absolute_error": MetricFacts("lowest", ("numbers",)),
}
"""What each is computed by: METRICS in engine.metrics.table, of several labels in engine.metrics.several."""
ACTIVATIONS: dict[Task, OutputActivation] = {"classes": "softmax", "labels": "sigmoids", "numbers": "linear"}
OF_LABELS = ("labels", "sigmoid")
LossName = Annotated[str | Custom, option(LOSSES, ELSEWHERE)]
MetricName = Annotated[str | Custom, option(METRICS)]


def loss_facts(loss: str | Custom, task: Task = "classes") -> LossFacts:
    """The facts of a loss. One of the user's own is given logits, one a class or label, or outputs of a regression."""
    if isinstance(loss, Custom):
        return LossFacts(ACTIVATIONS[task])
    facts = LOSSES[loss]
    return replace(facts, activation="sigmoids", metric="") if (task, facts.activation) == OF_LABELS else facts


def takes_numbers(loss: str | Custom) -> bool | None:
    """Whether the targets of a loss are numbers, as those of a regression are; None: either, as the data has them."""
    return None if isinstance(loss, Custom) else loss_facts(loss).activation == "linear"


def takes_several(loss: str | Custom) -> bool | None:
    """Whether columns of 0 and 1 are several labels a picture to a loss; None: as they look."""
    return None if isinstance(loss, Custom) else loss_facts(loss).activation == "sigmoid"


def read_needs(loss: str | Custom) -> tuple[bool | None, bool | None]:
    """(`takes_numbers`, `takes_several`) of a loss."""
    return takes_numbers(loss), takes_several(loss)


def metric_name(metric: str | Custom) -> str:
    """What a metric is called in tables, histories and `best_by`: its name, or that of the user's own function."""
    return metric.name if isinstance(metric, Custom) else name_of(metric)

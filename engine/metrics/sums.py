"""What a run minimizes and reports: its loss and its metrics, as sums that merge over batches."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.config import TrainConfig
from engine.config.scoring import METRICS as FACTS
from engine.config.scoring import OutputActivation, Task, loss_facts, metric_name
from engine.errors import InputError, problem, unknown
from engine.metrics.losses import LossFunction, make_loss
from engine.metrics.own_loss import check_loss
from engine.metrics.several import log_odds, make_label_metrics
from engine.metrics.table import METRICS, Metric, mean, safe_logarithms, score_outputs
from engine.records.custom import Custom

USUAL: dict[Task, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "classes": (("accuracy",), ("brier", "ece")),
    "labels": (("accuracy", "f1_macro"), ("brier",)),
    "numbers": ((), ()),
}
"""The metrics that are always reported, and those of the combined predictions of an ensemble beside them."""
NAMES: dict[Task, str] = {"classes": "classes", "labels": "several labels", "numbers": "a regression"}
WEIGHT = "weight"
"""The name of the sum of the weights of examples, which no metric has."""
BEFORE_NAMES = {"loss": "loss_sum", "accuracy": "correct", "top5": "top5"}
"""What the sums of metrics were called in older records."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Metrics:
    """Sums over the examples seen: their count, int32, and by name the sums of each metric, the loss among them.

    Of examples with weights, sums has WEIGHT too, the sum of these.
    """

    count: Any
    sums: dict[str, Any]

    def __add__(self, other: "Metrics") -> "Metrics":
        return jax.tree.map(jnp.add, self, other)

    def read(self, stored: dict[str, Any]) -> "Metrics":
        """The sums in a record, with the structure and types of these; a metric that it has not starts at 0."""
        sums = stored.get("sums") or {name: stored[was] for name, was in BEFORE_NAMES.items() if was in stored}
        found = {"count": stored["count"], "sums": {**self.sums, **{k: v for k, v in sums.items() if k in self.sums}}}
        like = {"count": self.count, "sums": self.sums}
        return Metrics(**jax.tree.map(lambda leaf, value: np.asarray(value, leaf.dtype), like, found))


@dataclass(frozen=True, eq=False)
class Scoring:
    """The loss and the metrics of a run as functions.

    loss: (outputs, targets, label smoothing) → [b]. activation: what predictions apply to the outputs.
    metrics: by name, requested ones last. combined: those of an ensemble's combined predictions.
    thresholds: of several labels a picture, the probability above which each counts as predicted.
    """

    loss: LossFunction
    activation: OutputActivation
    metrics: dict[str, Metric]
    combined: dict[str, Metric]
    num_outputs: int
    thresholds: tuple[float, ...] = ()

    def measure(
        self,
        outputs: jax.Array,
        targets: jax.Array,
        losses: jax.Array,
        mask: jax.Array,
        weights: jax.Array | None = None,
    ) -> Metrics:
        """The sums of one batch: outputs [b k], targets [b] or [b d], losses [b], examples counted where mask [b].

        weights: float32[b], how much each example counts; the losses have been multiplied by them.
        """
        if self.activation == "sigmoid":
            outputs = jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=-1)  # [b 1] → logits [b 2]
        targets = self._harden(targets)
        counted = mask if weights is None else jnp.where(mask, weights, 0)
        found = {name: metric.sums(outputs, targets, counted) for name, metric in self.metrics.items()}
        total = {} if weights is None else {WEIGHT: jnp.sum(counted)}
        return Metrics(_count(mask), {"loss": jnp.sum(jnp.where(mask, losses, 0)), **found, **total})

    def zeros(self, has_weights: bool = False) -> Metrics:
        """Nothing seen yet, as host arrays."""
        shape = (1, self.num_outputs)
        targets = (shape, jnp.float32) if self.activation in ("linear", "sigmoids") else ((1,), jnp.int32)
        arguments = ((shape, jnp.float32), targets, ((1,), jnp.float32), ((1,), jnp.bool))
        weights = [((1,), jnp.float32)] * has_weights
        found = jax.eval_shape(self.measure, *(jax.ShapeDtypeStruct(*each) for each in (*arguments, *weights)))
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)

    def means(self, found: Metrics) -> dict[str, Any]:
        """n, loss and every metric, as plain numbers; NaN where nothing was seen, or nothing that counts."""
        n, sums = int(found.count), jax.tree.map(np.asarray, found.sums)
        total = float(sums[WEIGHT]) if WEIGHT in sums else n
        every = {"loss": mean(lambda outputs, targets: outputs), **self.metrics}
        return {"n": n, **{name: e.compute(sums[name], total) if total else float("nan") for name, e in every.items()}}

    def score(self, predictions: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> dict[str, Any]:
        """n, loss and every metric of an ensemble's probabilities [n k], or of a regression's outputs [n d].

        weights: [n], how much each example counts; None: all the same.
        """
        as_outputs = {"linear": lambda outputs: outputs, "sigmoids": log_odds}.get(self.activation, safe_logarithms)
        outputs, (loss, *others) = as_outputs(predictions), self.combined
        found = score_outputs({loss: self.combined[loss]}, outputs, targets, weights)
        rest = {name: self.combined[name] for name in others}
        return {**found, **score_outputs(rest, outputs, self._harden(targets), weights)}

    def _harden(self, targets: Any) -> Any:
        """What metrics compare with: of shares [b k] for classes the likeliest class [b]."""
        return targets.argmax(-1) if targets.ndim == 2 and self.activation in ("softmax", "sigmoid") else targets


def make_scoring(train: TrainConfig, num_outputs: int, task: Task, class_names: Sequence[str] = ()) -> Scoring:
    """The loss and metrics of a run; imports those of the user's own. class_names: the labels that thresholds name.

    Raises InputError for a metric that is not defined for the targets, and for functions that do not fit them.
    """
    facts, loss = loss_facts(train.loss, task), make_loss(train.loss, train.focal_power)
    thresholds = tuple(read_thresholds(train, num_outputs, class_names)) if task == "labels" else ()
    known = make_label_metrics(thresholds) if task == "labels" else METRICS

    def as_given(outputs: np.ndarray) -> np.ndarray:
        """The outputs that the loss takes of those that metrics take: one logit in place of two."""
        return outputs[:, 1:] - outputs[:, :1] if facts.activation == "sigmoid" else outputs

    own = {metric_name(each): _load_metric(each, task, known) for each in train.asked_metrics}
    usual, sure = USUAL[task]
    top5 = ["top5"] if facts.activation == "softmax" and num_outputs > 5 else []
    own_loss = mean(lambda outputs, targets: loss(jnp.asarray(as_given(outputs), jnp.float32), targets, 0.0))
    combined = {"loss": known.get(facts.metric, own_loss), **{name: known[name] for name in (*usual, *sure)}, **own}
    metrics = {**{name: known[name] for name in (*usual, *top5)}, **own}
    scoring = Scoring(loss, facts.activation, metrics, combined, num_outputs, thresholds)
    _check_runs(train, scoring)
    return scoring


def read_thresholds(train: TrainConfig, num_outputs: int, class_names: Sequence[str]) -> list[float]:
    """The probability above which each label counts as predicted; raises InputError for labels that there are not."""
    given = dict(train.thresholds)
    for name in given:
        if name not in class_names:
            raise InputError(unknown("train.thresholds", name, class_names))
    return [given.get(name, 0.5) for name in class_names] if class_names else [0.5] * num_outputs


def _load_metric(given: str | Custom, task: Task, table: dict[str, Metric]) -> Metric:
    if not isinstance(given, Custom):
        if task not in FACTS[given].tasks:
            known = ", ".join(name for name, facts in FACTS.items() if task in facts.tasks)
            raise InputError(problem("train.metrics", given, f"a metric of {NAMES[task]}", f"Use one of {known}."))
        return table[given]
    function = given.load("train.metrics")
    if _takes_examples(function, given.arguments):
        found = mean(functools.partial(function, **given.arguments))
    else:
        found = given.make("train.metrics")
    if not isinstance(found, Metric):
        rule = "a function of (outputs [b k], targets [b]) → [b], or one that returns a Metric of engine.metrics.table"
        raise InputError(problem("train.metrics", f"{given.path}, which returns something else", rule, "Correct it."))
    return Metric(given.guard("train.metrics", found.sums), given.guard("train.metrics", found.compute))


def _takes_examples(function: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a function of the user's own takes outputs and targets, and is no factory."""
    parameters = inspect.signature(function).parameters.values()
    needed = [each for each in parameters if each.default is each.empty and each.name not in arguments]
    return len([each for each in needed if each.kind is each.POSITIONAL_OR_KEYWORD]) == 2


def _check_runs(train: TrainConfig, scoring: Scoring) -> None:
    """Raises InputError where a function of the user's own fails on arrays of the shapes it will be given."""
    outputs = jax.ShapeDtypeStruct((2, scoring.num_outputs), jnp.float32)
    targets = outputs if scoring.activation in ("linear", "sigmoids") else jax.ShapeDtypeStruct((2,), jnp.int32)
    if isinstance(train.loss, Custom):
        check_loss(train.loss, scoring.loss, outputs, targets)
    if any(isinstance(each, Custom) for each in train.asked_metrics):
        losses, mask = (jax.ShapeDtypeStruct((2,), kind) for kind in (jnp.float32, jnp.bool))
        jax.eval_shape(scoring.measure, outputs, targets, losses, mask)


def _count(mask: jax.Array) -> jax.Array:
    return jnp.sum(mask, dtype=jnp.int32)

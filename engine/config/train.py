"""TrainConfig: how long a run trains, and on what objective."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, lcm
from typing import Annotated, Any, Literal

from engine.config.matters import CHANGEABLE, NOTHING, PLAN, PROGRAM, RESULT, SCHEDULE
from engine.config.named import name_problems
from engine.config.scoring import ELSEWHERE, LOSSES, METRICS, BestIs, LossName, MetricName, loss_facts, metric_name
from engine.errors import InputError, problem
from engine.records import ADDED, check, check_all, check_whole
from engine.records.custom import Custom

Precision = Literal["float32", "tf32", "bfloat16"]
ClassWeight = Literal["balanced"] | tuple[tuple[str, float], ...]
ClassWeights = Mapping[Any, float] | Literal["balanced"]  # as they may be given in Python
Sampling = Literal["shuffled", "balanced"]


def weight_pairs(given: Any, field: str = "train.class_weight") -> Any:
    """A mapping of weights as the pairs of a config; pairs and texts as they are.

    Raises InputError for numbers without their classes: a list, or an array as scikit-learn computes them.
    """
    if isinstance(given, Mapping):
        return tuple((str(name), weight) for name, weight in given.items())
    plain = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(plain, list | tuple) and any(isinstance(each, int | float) for each in plain):
        remedy = "Give it by index: class_weight=dict(enumerate(numbers))."
        if field == "train.thresholds":
            remedy = "Give it by name: thresholds=dict(zip(class_names, numbers))."
        raise InputError(problem(field, repr(plain)[:80], "a mapping of classes to numbers", remedy))
    if isinstance(given, str) and given != "balanced" and field == "train.class_weight":
        rule = '"balanced", or a mapping of classes to numbers'
        raise InputError(problem(field, repr(given)[:80], rule, 'Write "balanced", or {"cat": 1, "dog": 5}.'))
    return given


@dataclass(frozen=True)
class TrainConfig:
    """How long and on what objective."""

    epochs: Annotated[int, SCHEDULE | CHANGEABLE] = 5
    """Times the training split is gone through; 0 evaluates and saves the untrained model."""
    batch_size: Annotated[int, RESULT | PROGRAM | PLAN | CHANGEABLE] = 64
    """Examples a step. The default is reduced to all training examples where there are fewer, and this is reported."""
    loss: LossName = "softmax_cross_entropy"
    """softmax_cross_entropy or focal on classes, binary_cross_entropy or binary_focal on one logit, mean_squared_error
    or mean_absolute_error of a regression. One of your own: custom(function, …), (outputs [b k], targets) → [b]."""
    label_smoothing: float = 0.0
    """Share of the probability spread evenly over all classes in the training loss."""
    seed: Annotated[int, RESULT] = 0
    """Every random draw is a function of this, the draw's purpose and the step or example."""
    best_by: str = "accuracy"
    """The validation metric that decides which epoch is the best: loss, or any metric by name; accuracy means loss
    for a regression."""
    best_is: BestIs | None = None
    """Whether its highest or lowest value is the best; None: as usual for the metric, lowest for loss."""
    patience: Annotated[int | None, PROGRAM] = None
    """Epochs without a better one after which the run stops early; None: it never does."""
    members: Annotated[int, RESULT | PROGRAM | PLAN] = 1
    """Models trained side by side as an ensemble, each with draws of its own for everything that is random."""
    first_member: Annotated[int, RESULT] = 0
    """Number of the first one; with one member, that member of an ensemble alone."""
    deterministic: bool = False
    """On a GPU the same bits from run to run, at a price in speed; on other devices they always are."""
    precision: Annotated[Precision, RESULT | PROGRAM | PLAN] = "float32"
    """What the network computes in; weights, batch statistics and losses are float32. tf32 needs an NVIDIA GPU."""
    metrics: tuple[MetricName, ...] = ()
    """Metrics to report beside the loss and, for classes, the accuracy: names, or custom(factory, …) of your own."""
    min_delta: Annotated[float, NOTHING] = field(default=0.0, kw_only=True, metadata=ADDED)
    """How much better than the best before an epoch must be to count as a better one for patience."""
    start_epoch: Annotated[int, NOTHING] = field(default=0, kw_only=True, metadata=ADDED)
    """Epochs at the start that patience leaves out: it neither counts them nor compares with them."""
    accumulate: Annotated[int, RESULT | PROGRAM] = field(default=1, kw_only=True, metadata=ADDED)
    """Parts of a batch that are computed one after another, adding up their gradients: the step of a whole batch, in
    the memory of a part. Batch norms use the statistics of each part."""
    folds: Annotated[int | None, RESULT | PROGRAM | PLAN] = field(default=None, kw_only=True, metadata=ADDED)
    """Cross-validation: the training split in so many parts of equal class counts; as many members, each trained on
    all parts but one and validated on that."""
    fold: Annotated[int | None, RESULT | PROGRAM] = field(default=None, kw_only=True, metadata=ADDED)
    """With folds: train the member that this one validates, counted from 0, alone."""
    average_every: Annotated[int, RESULT | PROGRAM] = field(default=1, kw_only=True, metadata=ADDED)
    """Local SGD: each device along data of --mesh trains on its share of the batches by itself, and all average weights
    and optimizer state after so many steps, and at the end of an epoch. 1: they exchange gradients at every step."""
    class_weight: Annotated[ClassWeight | None, RESULT | PROGRAM] = field(default=None, kw_only=True, metadata=ADDED)
    """What the training loss of each class is multiplied by: pairs of class and number, or of index and number, 1 for
    the others; balanced: n / (k × its examples). None: 1 for all. In Python a mapping, as of Keras."""
    sampling: Annotated[Sampling, RESULT | PROGRAM] = field(default="shuffled", kw_only=True, metadata=ADDED)
    """Which examples an epoch has: shuffled: each once; balanced: as many, drawn so that all classes are as frequent,
    those of a large class less than once and those of a small one several times."""
    thresholds: Annotated[tuple[tuple[str, float], ...], RESULT | PROGRAM] = field(
        default=(), kw_only=True, metadata=ADDED
    )
    """Of several labels a picture: pairs of a label and the probability above which it counts as predicted, 0.5 for the
    others. In Python a mapping."""
    focal_power: float = field(default=2.0, kw_only=True, metadata=ADDED)
    """Of focal losses the power γ of (1 - p): how little examples count whose label is already probable."""

    def __post_init__(self):
        object.__setattr__(self, "class_weight", weight_pairs(self.class_weight))
        object.__setattr__(self, "thresholds", weight_pairs(self.thresholds, "train.thresholds"))
        if self.folds is not None and self.fold is None and self.members == 1:
            object.__setattr__(self, "members", self.folds)
        if self.fold is not None and self.first_member == 0:
            object.__setattr__(self, "first_member", self.fold)
        check_all(self, "train", self._range_problems)

    def _range_problems(self) -> list[str]:
        problems = check_whole("train.epochs", self.epochs, 0, "Give 0 to evaluate only.")
        problems += check_whole("train.batch_size", self.batch_size, 1, "Give 64 or so.")
        problems += check_whole("train.accumulate", self.accumulate, 1, "Give 4 or so, or 1 for whole batches.")
        problems += check_whole("train.average_every", self.average_every, 1, "Give 16 or so, or leave it out.")
        if not problems and self.batch_size % self.accumulate:
            rule, size = f"a number that divides train.batch_size, {self.batch_size}", lcm(self.accumulate, 2)
            remedy = f"Change it, or set train.batch_size to {max(self.batch_size // size, 1) * size}."
            problems += check("train.accumulate", self.accumulate, False, rule, remedy)
        if self.patience is not None:
            problems += check_whole("train.patience", self.patience, 1, "Give 10 or so, or leave it out.")
        holds = 0 <= self.min_delta < float("inf")
        problems += check("train.min_delta", self.min_delta, holds, "0 or more", "Give 0.001 or so.")
        problems += check_whole("train.start_epoch", self.start_epoch, 0, "Give the number of epochs to leave out.")
        for name in ("min_delta", "start_epoch") if self.patience is None else ():
            value, remedy = getattr(self, name), "Set train.patience too, or leave it out."
            problems += check(f"train.{name}", value, not value, "0 without patience", remedy)
        problems += check_whole("train.seed", self.seed, 0, "Give any such number.", below=2**32)
        problems += check_whole("train.members", self.members, 1, "Give 10 or so, or 1 for a single model.")
        problems += check_whole("train.first_member", self.first_member, 0, "Give 0, or the number of a member.")
        problems += check(
            "train.label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1,
            "0 ≤ smoothing < 1", "Give 0.1 or so, or 0 for none.",
        )  # fmt: skip
        problems += check("train.focal_power", self.focal_power, 0 <= self.focal_power < inf, "0 or more", "Give 2.")
        problems += self._weight_problems()
        problems += name_problems("train.loss", self.loss, LOSSES, ELSEWHERE)
        for metric in self.metrics:
            problems += name_problems("train.metrics", metric, METRICS)
        if not problems and not loss_facts(self.loss).takes_smoothing:
            holds, remedy = not self.label_smoothing, "Set train.label_smoothing to 0."
            problems += check("train.label_smoothing", self.label_smoothing, holds, "0 with this loss", remedy)
        problems += self._fold_problems()
        own = [metric.name for metric in self.metrics if isinstance(metric, Custom)]
        for name in own:
            holds, rule = name not in ("n", "loss", "weight", *METRICS), "a name that no other metric has"
            problems += check("train.metrics", name, holds, rule, "Rename your function.")
        problems += name_problems("train.best_by", self.best_by, ["loss", *METRICS, *own])
        if self.best_by in own and self.best_is is None:
            rule = f"highest or lowest, because {self.best_by} is a metric of your own"
            problems += check("train.best_is", None, False, rule, "Set train.best_is.")
        return problems

    def _fold_problems(self) -> list[str]:
        if self.folds is None:
            rule = "none without train.folds"
            return check("train.fold", self.fold, self.fold is None, rule, "Set train.folds to 5 or so.")
        problems = check_whole("train.folds", self.folds, 2, "Give 5 or 10, or leave it out.")
        if self.fold is None:
            holds = self.members == self.folds and self.first_member == 0
            got = f"{self.members} from {self.first_member} on"
            rule, remedy = f"the {self.folds} of train.folds, one a fold", "Leave out train.members and first_member."
            return problems + check("train.members", got, holds, rule, remedy)
        problems += check_whole("train.fold", self.fold, 0, "Give one of the folds.", below=self.folds)
        got, holds = (self.members, self.first_member), (self.members, self.first_member) == (1, self.fold)
        return problems + check("train.members, first_member", got, holds, f"1, {self.fold}", "Leave them out.")

    def _weight_problems(self) -> list[str]:
        are_shares = all(0 < threshold < 1 for _, threshold in self.thresholds)
        problems = check(
            "train.thresholds", self.thresholds, are_shares, "probabilities between 0 and 1", "Correct it."
        )
        if not isinstance(self.class_weight, tuple):
            holds = self.class_weight is None or self.sampling == "shuffled"
            rule, remedy = (
                "not balanced with train.sampling balanced, which does the same",
                "Leave out one or the other.",
            )
            return problems + check("train.class_weight", self.class_weight, holds, rule, remedy)
        weights, names = [weight for _, weight in self.class_weight], [name for name, _ in self.class_weight]
        holds, rule = all(0 <= weight < inf for weight in weights), "a number of 0 or more for each class"
        problems += check("train.class_weight", self.class_weight, holds, rule, "Correct it.")
        holds, rule = 0 < len(names) == len(set(names)), "at least one class, each once"
        return problems + check("train.class_weight", self.class_weight, holds, rule, "Correct it.")

    @property
    def asked_metrics(self) -> tuple[str | Custom, ...]:
        """The metrics requested beyond those that are always reported: `metrics`, and what `best_by` needs."""
        names = [metric_name(metric) for metric in self.metrics]
        needed = () if self.best_by in ("loss", "accuracy", *names) else (self.best_by,)
        return (*self.metrics, *needed)

    @property
    def shown_metrics(self) -> tuple[str, ...]:
        """The names of the metrics on progress lines and curves, where there are such values."""
        return tuple(dict.fromkeys(("loss", "accuracy", *map(metric_name, self.asked_metrics))))

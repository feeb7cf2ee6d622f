"""TrainConfig: how long a run trains, and on what objective."""

from dataclasses import dataclass
from typing import Annotated, Literal

from engine.config.matters import PLAN, PROGRAM, RESULT, SCHEDULE
from engine.errors import problem
from engine.records import check, check_all, check_whole

Loss = Literal["softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error"]
BestBy = Literal["accuracy", "loss"]
BestIs = Literal["highest", "lowest"]
Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class TrainConfig:
    """How long and on what objective."""

    epochs: Annotated[int, SCHEDULE] = 5
    """Times the training split is gone through; 0 evaluates and saves the untrained model."""
    batch_size: Annotated[int, RESULT | PROGRAM | PLAN] = 64
    """Examples a step. The default is reduced to all training examples where there are fewer, and this is reported."""
    loss: Loss = "softmax_cross_entropy"
    """softmax_cross_entropy on integer labels, binary_cross_entropy on one logit, or mean_squared_error."""
    label_smoothing: float = 0.0
    """Share of the probability spread evenly over all classes in the training loss."""
    seed: Annotated[int, RESULT] = 0
    """Every random draw is a function of this, the draw's purpose and the step or example."""
    best_by: BestBy = "accuracy"
    """What of the validation data decides which epoch is the best: the highest accuracy or the lowest loss."""
    best_is: BestIs | None = None
    """Whether the highest or the lowest of it is the best; None: what is usual for it."""
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

    def __post_init__(self):
        check_all(self, "train", self._range_problems)

    def _range_problems(self) -> list[str]:
        problems = check_whole("train.epochs", self.epochs, 0, "Give 0 to evaluate only.")
        problems += check_whole("train.batch_size", self.batch_size, 1, "Give 64 or so.")
        if self.patience is not None:
            problems += check_whole("train.patience", self.patience, 1, "Give 10 or so, or leave it out.")
        problems += check_whole("train.seed", self.seed, 0, "Give any such number.", below=2**32)
        problems += check_whole("train.members", self.members, 1, "Give 10 or so, or 1 for a single model.")
        problems += check_whole("train.first_member", self.first_member, 0, "Give 0, or the number of a member.")
        problems += check(
            "train.label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1,
            "0 ≤ smoothing < 1", "Give 0.1 or so, or 0 for none.",
        )  # fmt: skip
        if self.loss == "mean_squared_error" and self.label_smoothing:
            remedy = "Set train.label_smoothing to 0."
            problems.append(problem("train.label_smoothing", self.label_smoothing, "0 with this loss", remedy))
        return problems

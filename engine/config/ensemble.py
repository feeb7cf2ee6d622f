"""EnsembleConfig: how the members of an ensemble differ, and how they are combined."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Suppress

from engine.records import ADDED, check, check_all

CombinationKind = Literal["mean", "logits", "vote", "weighted", "greedy"]
OPTIM_NUMBERS = (
    "momentum", "clip_norm", "beta_1", "beta_2", "epsilon", "rho", "average_decay", "sam_radius",
)  # fmt: skip
"""Fields of OptimConfig that a compiled program can be given, beside those that have a list of their own."""


@dataclass(frozen=True)
class MemberNumbers:
    """A field of OptimConfig with its value for each member."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class EnsembleConfig:
    """How the members of an ensemble differ, and how they are combined. Without effect for a single model."""

    bootstrap: bool = False
    """Each member trains on as many examples as there are, drawn with replacement."""
    shared_order: bool = False
    """All members see the same batches, those of the first one."""
    learning_rates: tuple[float, ...] | None = None
    """One a member, in place of optim.learning_rate."""
    weight_decays: tuple[float, ...] | None = None
    """One a member, in place of optim.weight_decay."""
    label_smoothings: tuple[float, ...] | None = None
    """One a member, in place of train.label_smoothing."""
    combine: CombinationKind = "mean"
    """Mean of the probabilities, of the logits, majority vote, or with weights or a greedy choice fitted on the
    validation data."""
    temperature: bool = False
    """Scale the combined probabilities by a temperature fitted on the validation data."""
    select_best: bool = field(default=False, kw_only=True, metadata=ADDED)
    """Predict by one member alone, that which is best on the validation data by train.best_by."""
    shared_seed: bool = field(default=False, kw_only=True, metadata=ADDED)
    """All members draw the same: initial weights, order, dropout and augmentation."""
    numbers: Annotated[tuple[MemberNumbers, ...], Suppress] = field(default=(), kw_only=True, metadata=ADDED)
    """Other numbers of the optimizer, one a member, as a sweep sets them."""

    def __post_init__(self):
        check_all(self, "ensemble", self._range_problems)

    def _range_problems(self) -> list[str]:
        problems = []
        for name, holds, rule in (
            ("learning_rates", all(rate > 0 for rate in self.learning_rates or ()), "positive numbers"),
            ("weight_decays", all(decay >= 0 for decay in self.weight_decays or ()), "numbers of 0 or more"),
            ("label_smoothings", all(0 <= s < 1 for s in self.label_smoothings or ()), "numbers from 0 to below 1"),
        ):
            problems += check(f"ensemble.{name}", getattr(self, name), holds, rule, "Correct it.")
        for each in self.numbers:
            rule = f"one of {', '.join(OPTIM_NUMBERS)}"
            problems += check("ensemble.numbers", each.name, each.name in OPTIM_NUMBERS, rule, "Correct it.")
        has_one_way = not self.select_best or (self.combine == "mean" and not self.temperature)
        got, rule = f"with combine {self.combine}", "combine mean without temperature, where one member predicts"
        return problems + check("ensemble.select_best", got, has_one_way, rule, "Leave out one or the other.")

"""EnsembleConfig: how the members of an ensemble differ, and how they are combined."""

from dataclasses import dataclass
from typing import Literal

from engine.records import check, check_all

CombinationKind = Literal["mean", "logits", "vote", "weighted", "greedy"]


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
        return problems

"""OptimConfig: the optimizer of a run and the course of its learning rate."""

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, cast

from engine.config.named import name_of, name_problems, option
from engine.records import check, check_all, check_whole
from engine.records.custom import Custom

OptimizerRules = Literal["keras", "optax"]
_OF_MOMENTUM, _OF_ADAM = ("momentum", "nesterov"), ("beta_1", "beta_2", "epsilon", "amsgrad")


@dataclass(frozen=True)
class OptimizerFacts:
    """The options that an optimizer has, where any other must keep its default; and its default learning rate."""

    options: tuple[str, ...] = ()
    learning_rate: float = 1e-3


OPTIMIZERS = {
    "sgd": OptimizerFacts(_OF_MOMENTUM, 0.01),
    "momentum": OptimizerFacts(_OF_MOMENTUM, 0.01),
    "rmsprop": OptimizerFacts(("momentum", "rho", "epsilon", "centered")),
    "adam": OptimizerFacts(_OF_ADAM),
    "adamw": OptimizerFacts(_OF_ADAM),
}
"""What each is computed by: engine.training.optim.OPTIMIZERS."""
SCHEDULES = {"constant": True, "cosine": False, "linear": False, "step": True}
"""Whether a schedule does not depend on the number of epochs, so that a run may be resumed for more of them.

What each is computed by: engine.training.optim.SCHEDULES."""
OptimizerName = Annotated[str | Custom, option(OPTIMIZERS)]
ScheduleName = Annotated[str | Custom, option(SCHEDULES)]


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and the course of its learning rate."""

    RECORD_VERSION: ClassVar[int] = 2  # 1: before `rules`, when Adam, decay and momentum were those of "optax"

    name: OptimizerName = "adam"
    """sgd, momentum, rmsprop, adam or adamw: the algorithms and constants of Keras under these names. One of your own:
    custom(factory, …), called as factory(rate, …), the rate an Optax schedule, gives an Optax transformation."""
    learning_rate: float = cast(float, None)  # a number once the config is built
    """The rate after warm-up; by default 0.01 for sgd and momentum, else 0.001."""
    momentum: float | None = None
    """Of sgd, momentum and rmsprop; by default 0.9 for momentum, none for the others."""
    weight_decay: float | None = None
    """Share of all weights, times the rate, that each step takes off. None: 0.004 for adamw, 0 for the others."""
    clip_norm: float | None = None
    """Gradients are scaled down to this global norm when it is exceeded."""
    schedule: ScheduleName = "constant"
    """Course of the rate after warm-up: constant, cosine or linear to final_fraction, or step. One of your own:
    custom(factory, …), called as factory(steps, …), gives the share of learning_rate at each step."""
    final_fraction: float = 0.0
    """What cosine and linear end at, as a share of learning_rate."""
    warmup_epochs: float = 0.0
    """Epochs, or parts of one, over which the rate rises linearly from 0."""
    step_epochs: int = 10
    """Epochs between two drops of the step schedule."""
    step_factor: float = 0.1
    """What the step schedule multiplies the rate by at each drop."""
    average_decay: float | None = None
    """Decay, at each step, of a running average of the weights, which then is the model: what is evaluated and saved.
    Near the start the average follows faster."""
    nesterov: bool = False
    """Momentum as of Nesterov."""
    beta_1: float = 0.9
    """Decay of Adam's mean of gradients."""
    beta_2: float = 0.999
    """Decay of Adam's mean of their squares."""
    epsilon: float = 1e-7
    """What rmsprop, adam and adamw add to what they divide by."""
    amsgrad: bool = False
    """Adam divides by the largest mean of squares so far."""
    rho: float = 0.9
    """Decay of rmsprop's mean of squares."""
    centered: bool = False
    """rmsprop divides by the spread of gradients about their mean."""
    rules: OptimizerRules = "keras"
    """keras, or optax, as runs were trained before: Adam's epsilon beside the corrected root, weight_decay on kernels
    alone, added to the gradient (adamw: decoupled, None is 0.0001), the rate outside the momentum."""

    def __post_init__(self):
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", self.facts.learning_rate)
        if self.momentum is None and self.name == "momentum":
            object.__setattr__(self, "momentum", 0.9)
        check_all(self, "optim", self._range_problems)

    @property
    def facts(self) -> OptimizerFacts:
        """What is known of the optimizer; of one of the user's own, nothing."""
        return OPTIMIZERS.get(name_of(self.name), OptimizerFacts())

    @property
    def is_open_ended(self) -> bool:
        """Whether the schedule does not depend on the number of epochs."""
        return SCHEDULES.get(name_of(self.schedule), False)

    def _range_problems(self) -> list[str]:
        problems = name_problems("optim.name", self.name, OPTIMIZERS)
        problems += name_problems("optim.schedule", self.schedule, SCHEDULES)
        problems += check_whole("optim.step_epochs", self.step_epochs, 1, "Give 10 or so.")
        for name, holds, rule in (
            ("learning_rate", self.learning_rate > 0, "a positive number"),
            ("momentum", self.momentum is None or 0 <= self.momentum < 1, "0 ≤ momentum < 1"),
            ("weight_decay", self.weight_decay is None or self.weight_decay >= 0, "0 or more"),
            ("clip_norm", self.clip_norm is None or self.clip_norm > 0, "a positive number"),
            ("final_fraction", 0 <= self.final_fraction <= 1, "0 to 1"),
            ("warmup_epochs", self.warmup_epochs >= 0, "0 or more"),
            ("step_factor", 0 < self.step_factor <= 1, "above 0, at most 1"),
            ("average_decay", self.average_decay is None or 0 < self.average_decay < 1, "between 0 and 1, like 0.999"),
            ("beta_1", 0 <= self.beta_1 < 1, "0 ≤ beta_1 < 1"),
            ("beta_2", 0 <= self.beta_2 < 1, "0 ≤ beta_2 < 1"),
            ("rho", 0 <= self.rho < 1, "0 ≤ rho < 1"),
            ("epsilon", self.epsilon > 0, "a positive number"),
        ):
            problems += check(f"optim.{name}", getattr(self, name), holds, rule, "Correct it.")
        return problems + self._option_problems()

    def _option_problems(self) -> list[str]:
        """Options that the optimizer would ignore."""
        defaults, problems = {field.name: field.default for field in fields(self)}, []
        if name_of(self.name) not in OPTIMIZERS and not isinstance(self.name, Custom):
            return []
        for name in sorted({each for facts in OPTIMIZERS.values() for each in facts.options}):
            holds = name in self.facts.options or getattr(self, name) == defaults[name]
            rule = f"{defaults[name]!r} with {name_of(self.name)}, which has no such option"
            users = " or ".join(user for user, facts in OPTIMIZERS.items() if name in facts.options)
            problems += check(f"optim.{name}", getattr(self, name), holds, rule, f"Leave it out, or use {users}.")
        if self.name == "sgd" and self.nesterov and not self.momentum:
            problems += check("optim.nesterov", True, False, "a momentum with it", "Set optim.momentum to 0.9 or so.")
        return problems

    @classmethod
    def upgraded(cls, given: dict[str, Any], version: int) -> dict[str, Any]:
        """The fields of a record of an earlier version, in today's terms."""
        is_momentum = given.get("name") == "momentum"
        unused = () if is_momentum else ("momentum",)  # it had a number for every optimizer
        kept = {name: value for name, value in given.items() if name not in unused}
        return {**kept, "rules": "optax", "nesterov": is_momentum}

"""OptimConfig: the optimizer of a run and the course of its learning rate."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, cast

from engine.config.matters import CHANGEABLE, PROGRAM, RESULT
from engine.config.named import name_of, name_problems, option
from engine.records import ADDED, check, check_all, check_whole
from engine.records.custom import Custom

COURSE = RESULT | PROGRAM | CHANGEABLE
OptimizerRules = Literal["keras", "optax"]
BASE_BATCH_SIZE, SCALED_WARMUP_EPOCHS = 256, 5.0  # of Goyal et al. 2017, arXiv 1706.02677
_OF_MOMENTUM, _OF_ADAM = ("momentum", "nesterov"), ("beta_1", "beta_2", "epsilon", "amsgrad")


@dataclass(frozen=True)
class OptimizerFacts:
    """The options that an optimizer has, where any other must keep its default; its default rate and momentum.

    is_adaptive: it divides gradients by their size, so that the rate for a larger batch grows by the root.
    """

    options: tuple[str, ...] = ()
    learning_rate: float = 1e-3
    momentum: float | None = None
    is_adaptive: bool = False


OPTIMIZERS = {
    "sgd": OptimizerFacts(_OF_MOMENTUM, 0.01),
    "momentum": OptimizerFacts(_OF_MOMENTUM, 0.01, 0.9),
    "rmsprop": OptimizerFacts(("momentum", "rho", "epsilon", "centered"), is_adaptive=True),
    "adam": OptimizerFacts(_OF_ADAM, is_adaptive=True),
    "adamw": OptimizerFacts(_OF_ADAM, is_adaptive=True),
    "lion": OptimizerFacts(("beta_1",), is_adaptive=True),
    "lamb": OptimizerFacts(("beta_1", "beta_2", "epsilon"), is_adaptive=True),
    "lars": OptimizerFacts(_OF_MOMENTUM, 0.1, 0.9),
    "muon": OptimizerFacts(("momentum", "beta_1", "beta_2"), 1e-3, 0.95, is_adaptive=True),
}
"""What each is computed by: engine.training.optim.OPTIMIZERS."""
BY_OPTAX = ("sgd", "momentum", "rmsprop", "adam", "adamw")  # those that there were with the rules "optax"


@dataclass(frozen=True)
class ScheduleFacts:
    """Whether a schedule does not depend on the number of epochs, so that a run may be resumed for more of them.

    options: those that it alone has. has_warmup: whether there may be a warm-up before it.
    """

    is_open_ended: bool = False
    options: tuple[str, ...] = ()
    has_warmup: bool = True


SCHEDULES = {
    "constant": ScheduleFacts(True),
    "cosine": ScheduleFacts(),
    "linear": ScheduleFacts(),
    "polynomial": ScheduleFacts(options=("power",)),
    "step": ScheduleFacts(True),
    "exponential": ScheduleFacts(True),
    "cosine_restarts": ScheduleFacts(True, ("restart_factor",)),
    "one_cycle": ScheduleFacts(has_warmup=False),
    "plateau": ScheduleFacts(True),
}
"""What each is computed by: engine.training.schedules.SCHEDULES."""
OptimizerName = Annotated[str | Custom, option(OPTIMIZERS)]
ScheduleName = Annotated[str | Custom, option(SCHEDULES)]


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and the course of its learning rate."""

    RECORD_VERSION: ClassVar[int] = 2  # 1: before `rules`, when Adam, decay and momentum were those of "optax"

    name: OptimizerName = "adam"
    """sgd, momentum, rmsprop, adam, adamw, lion or lamb: the algorithms and constants of Keras under these names; lars
    or muon: those of Optax. One of your own: custom(factory, …), called as factory(rate, …), the rate an Optax
    schedule, gives an Optax transformation."""
    learning_rate: Annotated[float, COURSE] = cast(float, None)  # a number once the config is built
    """The rate after warm-up; by default 0.01 for sgd and momentum, 0.1 for lars, else 0.001."""
    momentum: float | None = None
    """Of sgd, momentum, rmsprop, lars and muon; by default 0.9 for momentum and lars, 0.95 for muon, else none."""
    weight_decay: Annotated[float | None, COURSE] = None
    """Share of all weights, times the rate, that each step takes off. None: 0.004 for adamw, 0 for the others."""
    clip_norm: float | None = None
    """Gradients are scaled down to this global norm when it is exceeded."""
    schedule: Annotated[ScheduleName, COURSE] = "constant"
    """Course of the rate after warm-up. constant; cosine, linear or polynomial: down to final_fraction by the end; step
    or exponential: times step_factor every step_epochs, at once or smoothly; cosine_restarts: cosine after cosine, the
    first of step_epochs; one_cycle: up over the first 30 % of the run, then down; plateau: times step_factor after
    step_epochs without a better epoch (train.best_by). One of your own: custom(factory, …), called as
    factory(steps, …), gives the share of learning_rate at each step."""
    final_fraction: Annotated[float, COURSE] = 0.0
    """What cosine, linear, polynomial and cosine_restarts end at, and plateau at the least, as a share of
    learning_rate."""
    warmup_epochs: Annotated[float, COURSE] = 0.0
    """Epochs, or parts of one, over which the rate rises linearly from 0."""
    step_epochs: Annotated[int, COURSE] = 10
    """Epochs between two drops of the step schedule; what they are for others, schedule says."""
    step_factor: Annotated[float, COURSE] = 0.1
    """What step multiplies the rate by at each drop, exponential in as many epochs, and plateau."""
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
    power: Annotated[float, COURSE] = field(default=2.0, kw_only=True, metadata=ADDED)
    """Exponent of the polynomial schedule: 1 is linear; with a larger one the rate falls fast first."""
    restart_factor: Annotated[int, COURSE] = field(default=1, kw_only=True, metadata=ADDED)
    """How many times as long as the one before each cosine of cosine_restarts is."""
    sam_radius: float | None = field(default=None, kw_only=True, metadata=ADDED)
    """Sharpness-aware minimization (SAM) around the optimizer, 0.05 or so: the gradient is taken where a step of this
    length uphill leads, which takes twice the time. None: at the weights themselves."""
    scale_rate_with: Annotated[Literal["batch"] | None, COURSE] = field(default=None, kw_only=True, metadata=ADDED)
    """batch: learning_rate is that of a batch of 256; of another, it is multiplied by batch_size / 256 (sgd, momentum,
    lars, your own) or by its root (the others), and above 256, warmup_epochs of 0 means 5. None: it is used as it is.
    """

    def __post_init__(self):
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", self.facts.learning_rate)
        if self.momentum is None:
            object.__setattr__(self, "momentum", self.facts.momentum)
        check_all(self, "optim", self._range_problems)

    @property
    def facts(self) -> OptimizerFacts:
        """What is known of the optimizer; of one of the user's own, nothing."""
        return OPTIMIZERS.get(name_of(self.name), OptimizerFacts())

    @property
    def is_open_ended(self) -> bool:
        """Whether the schedule does not depend on the number of epochs."""
        return SCHEDULES.get(name_of(self.schedule), ScheduleFacts()).is_open_ended

    @property
    def is_flat(self) -> bool:
        """Whether the rate does not depend on the step."""
        return name_of(self.schedule) in ("constant", "plateau") and not self.warmup_epochs

    def scaled_to(self, batch_size: int) -> "OptimConfig":
        """The config with the rate and the warm-up that `scale_rate_with` gives to batches of that size.

        Linear scaling and warm-up: Goyal et al. 2017, arXiv 1706.02677. By the root: You et al. 2020, arXiv 1904.00962,
        and, of Adam and RMSProp, Malladi et al. 2022, arXiv 2205.10287.
        """
        if self.scale_rate_with is None:
            return self
        factor = (batch_size / BASE_BATCH_SIZE) ** (0.5 if self.facts.is_adaptive else 1)
        is_short = self.warmup_epochs or factor <= 1 or self.schedule == "one_cycle"
        warmup = self.warmup_epochs if is_short else SCALED_WARMUP_EPOCHS
        rate = self.learning_rate * factor
        return replace(self, learning_rate=rate, warmup_epochs=warmup, scale_rate_with=None)

    def _range_problems(self) -> list[str]:
        problems = name_problems("optim.name", self.name, OPTIMIZERS)
        problems += name_problems("optim.schedule", self.schedule, SCHEDULES)
        problems += check_whole("optim.step_epochs", self.step_epochs, 1, "Give 10 or so.")
        problems += check_whole("optim.restart_factor", self.restart_factor, 1, "Give 1 or 2.")
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
            ("power", self.power > 0, "a positive number"),
            ("sam_radius", self.sam_radius is None or self.sam_radius > 0, "a positive number, like 0.05"),
        ):
            problems += check(f"optim.{name}", getattr(self, name), holds, rule, "Correct it.")
        return problems + self._option_problems() + self._schedule_problems()

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
        if self.rules == "optax" and self.name not in BY_OPTAX and not isinstance(self.name, Custom):
            problems += check("optim.rules", f"optax with {self.name}", False, "keras", "Leave optim.rules out.")
        return problems

    def _schedule_problems(self) -> list[str]:
        """Options of another schedule, and a warm-up before one that has its own."""
        if name_of(self.schedule) not in SCHEDULES:
            return []
        facts, defaults, problems = SCHEDULES[name_of(self.schedule)], type(self), []
        for user, name in ((user, name) for user, each in SCHEDULES.items() for name in each.options):
            holds = name in facts.options or getattr(self, name) == getattr(defaults, name)
            rule = f"{getattr(defaults, name)} with {self.schedule}, which has no such option"
            problems += check(f"optim.{name}", getattr(self, name), holds, rule, f"Leave it out, or use {user}.")
        holds, rule = facts.has_warmup or not self.warmup_epochs, f"0 with {self.schedule}, which starts low by itself"
        return problems + check("optim.warmup_epochs", self.warmup_epochs, holds, rule, "Leave it out.")

    @classmethod
    def upgraded(cls, given: dict[str, Any], version: int) -> dict[str, Any]:
        """The fields of a record of an earlier version, in today's terms."""
        is_momentum = given.get("name") == "momentum"
        unused = () if is_momentum else ("momentum",)  # it had a number for every optimizer
        kept = {name: value for name, value in given.items() if name not in unused}
        return {**kept, "rules": "optax", "nesterov": is_momentum}

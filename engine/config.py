"""Frozen dataclasses that describe a run completely; checked when built; to and from JSON without loss."""

import re
from dataclasses import dataclass, field, replace
from math import gcd
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from engine.augment.config import AugmentConfig
from engine.augment.preset_config import PresetConfig
from engine.augment.rules import crop_problems
from engine.checks import check, check_all, check_whole
from engine.data.config import DataConfig
from engine.errors import InputError, problem
from engine.finetuning import FineTuneConfig, name_problems
from engine.json_files import read_json
from engine.models.layers import Layer
from engine.models.specs import Model, Sequential, custom
from engine.optim_config import OPEN_ENDED_SCHEDULES as OPEN_ENDED_SCHEDULES
from engine.optim_config import OptimConfig
from engine.optim_config import OptimizerName as OptimizerName
from engine.optim_config import ScheduleName as ScheduleName
from engine.records import from_json, to_json

Loss = Literal["softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error"]
BestBy = Literal["accuracy", "loss"]
BestIs = Literal["highest", "lowest"]
Precision = Literal["float32", "tf32", "bfloat16"]
DataPlacement = Literal["resident", "streamed"]
MemberMapping = Literal["outer", "vmap", "map"]
CombinationKind = Literal["mean", "logits", "vote", "weighted", "greedy"]
Lowering = Literal["direct", "eigen", "matrix", "native"]
LoweringName = Literal["auto", Lowering]


@dataclass(frozen=True)
class TrainConfig:
    """How long and on what objective."""

    epochs: int = 5
    """Times the training split is gone through; 0 evaluates and saves the untrained model."""
    batch_size: int = 64
    """Examples a step. The default is reduced to all training examples where there are fewer, and this is reported."""
    loss: Loss = "softmax_cross_entropy"
    """softmax_cross_entropy on integer labels, binary_cross_entropy on one logit, or mean_squared_error."""
    label_smoothing: float = 0.0
    """Share of the probability spread evenly over all classes in the training loss."""
    seed: int = 0
    """Every random draw is a function of this, the draw's purpose and the step or example."""
    best_by: BestBy = "accuracy"
    """What of the validation data decides which epoch is the best: the highest accuracy or the lowest loss."""
    best_is: BestIs | None = None
    """Whether the highest or the lowest of it is the best; None: what is usual for it."""
    patience: int | None = None
    """Epochs without a better one after which the run stops early; None: it never does."""
    members: int = 1
    """Models trained side by side as an ensemble, each with draws of its own for everything that is random."""
    first_member: int = 0
    """Number of the first one; with one member, that member of an ensemble alone."""
    deterministic: bool = False
    """On a GPU the same bits from run to run, at a price in speed; on other devices they always are."""
    precision: Precision = "float32"
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


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved, and which of its checkpoints are kept."""

    every_epochs: int = 1
    """Epochs between two saves; the last one is always saved. The best step is the best of those saved."""
    every_steps: int | None = None
    """Save after so many steps too, in the middle of an epoch."""
    every_seconds: float | None = None
    """Save once so many seconds have passed since the last save, too."""
    keep_last: int = 2
    """How many of the newest checkpoints stay; with 2, one is left if the last is damaged."""
    keep_best: int = 1
    """How many of those with the best validation metric stay (train.best_by)."""

    def __post_init__(self):
        check_all(self, "checkpoint", self._range_problems)

    def _range_problems(self) -> list[str]:
        problems = []
        for name in ("every_epochs", "keep_last", "keep_best"):
            problems += check_whole(f"checkpoint.{name}", getattr(self, name), 1, "Give 1 or more.")
        if self.every_steps is not None:
            problems += check_whole("checkpoint.every_steps", self.every_steps, 1, "Leave it out to save by epochs.")
        holds = self.every_seconds is None or self.every_seconds > 0
        problems += check("checkpoint.every_seconds", self.every_seconds, holds, "above 0", "Give 600 or so.")
        return problems


@dataclass(frozen=True)
class PlanConfig:
    """How the run is executed on the device. The defaults choose by themselves; pin them to compare."""

    lowering: LoweringName = "auto"
    """Convolutions by our own code for this processor (direct), in the form of Eigen, as matrix products or as the
    backend's own; auto: on the CPU direct, or eigen where there is no C++ compiler; native elsewhere."""
    chunk_steps: int | None = None
    """Most steps a compiled call runs; None: as many as take about one second."""
    data: Literal["auto", DataPlacement] = "auto"
    """Training images on the device as a whole (resident) or read ahead while it trains (streamed); auto: by size."""
    resident_megabytes: int | None = None
    """Most megabytes of training images that auto keeps on the device; None: half of the memory that is free."""
    readers: int = 0
    """Processes that read streamed images ahead; 0: threads of this one."""
    members: Literal["auto", MemberMapping] = "auto"
    """How the members of an ensemble run: one after another around the loop over steps (outer), or within each step
    side by side (vmap) or in turn (map); auto: outer on the CPU, vmap elsewhere."""

    mode: Annotated[str, arg(name="plan", prefix_name=False, metavar="auto|fast|safe|FILE")] = "auto"
    """How that is chosen: auto, by rule, or measured where no rule is clear and the run is long; fast, always measured;
    safe, the backend's own operations; or a file that `engine plan RUN --out FILE` wrote."""
    mesh: Annotated[str | None, arg(name="mesh", prefix_name=False)] = None
    """Devices that share the work, like data=8 (the examples of a batch), member=2 (the members of an ensemble) or
    member=2,data=4; None: one device, or those that the run to resume was trained on."""

    def __post_init__(self):
        check_all(self, "plan", self._range_problems)

    def _range_problems(self) -> list[str]:
        problems = check_whole("plan.readers", self.readers, 0, "Give 0, or 2 or so.")
        if self.resident_megabytes is not None:
            problems += check_whole("plan.resident_megabytes", self.resident_megabytes, 1, "Leave it out to choose.")
        if self.chunk_steps is not None:
            problems += check_whole("plan.chunk_steps", self.chunk_steps, 1, "Leave it out to choose by time.")
        axis = r"(member|data)=[1-9]\d*"
        if self.mesh is not None and not re.fullmatch(rf"{axis}(,(?!\1){axis})?", self.mesh):
            rule = "numbers of devices along the axes member, data or both"
            problems.append(problem("plan.mesh", repr(self.mesh), rule, "Give it like data=8 or member=2,data=4."))
        return problems


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes."""

    name: Annotated[str, Suppress]
    """Its directory below runs/."""
    model: Annotated[Model, Suppress]
    """Layer specs, or custom(YourNNXClass, …)."""
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    finetune: FineTuneConfig = field(default_factory=FineTuneConfig)

    def __post_init__(self):
        check_model(self.model)
        if isinstance(self.augment, PresetConfig):
            object.__setattr__(self, "data", self.augment.data.added_to(self.data))
            object.__setattr__(self, "augment", self.augment.plain())
        check_all(self, "", self._range_problems)
        if not re.fullmatch(r"[\w][\w.\- ]*", self.name):
            raise InputError(
                problem("name", repr(self.name), "a plain directory name", "Use letters, digits, - and _.")
            )

    def _range_problems(self) -> list[str]:
        problems, size = [], self.train.batch_size
        if isinstance(self.model, Sequential):  # of a class of one's own when it is built
            problems += name_problems(self.finetune, self.model.layer_names)
        if self.augment.pairs_examples:
            rule = "an even number with mixup or cutmix, which mix pairs"
            problems += check("train.batch_size", size, size % 2 == 0, rule, "Use one more or one less.")
        problems += crop_problems(self.augment.random_crop, self.data.crop_height_width)
        for name in ("learning_rates", "weight_decays", "label_smoothings"):
            given, rule = getattr(self.ensemble, name), f"one a member, {self.train.members} of them (train.members)"
            holds = given is None or len(given) == self.train.members
            problems += check(f"ensemble.{name}", given, holds, rule, "Give as many, or leave it out.")
        if self.ensemble.label_smoothings is not None and self.train.loss == "mean_squared_error":
            got, rule = self.ensemble.label_smoothings, "none with this loss"
            problems.append(problem("ensemble.label_smoothings", got, rule, "Leave it out."))
        shares, members = mesh_shape(self.plan.mesh)[0], self.train.members
        if members % shares:
            rule = f"a number along member that divides the members ({members}, train.members)"
            problems.append(problem("plan.mesh", self.plan.mesh, rule, f"Give {gcd(members, shares)}, or data alone."))
        return problems

    def as_computed(self) -> "RunConfig":
        """The config without what its compiled programs do not depend on, which only see arrays of it."""
        epochs = 0 if self.optim.schedule in OPEN_ENDED_SCHEDULES else self.train.epochs
        train, finetune = replace(self.train, epochs=epochs, seed=0, first_member=0), replace(self.finetune, init=None)
        return replace(
            self,
            name="any",
            data=DataConfig(center_crop=self.data.center_crop),
            train=train,
            checkpoint=CheckpointConfig(),
            finetune=finetune,
        )

    def of_member(self, index: int) -> "RunConfig":
        """The config that trains one member of this ensemble alone, counted from 0."""

        def own(values: tuple[float, ...] | None, common: Any) -> Any:
            return common if values is None else values[index]

        ensemble, train = self.ensemble, self.train
        smoothing = own(ensemble.label_smoothings, train.label_smoothing)
        rate = own(ensemble.learning_rates, self.optim.learning_rate)
        decay = own(ensemble.weight_decays, self.optim.weight_decay)
        return replace(
            self,
            train=replace(train, members=1, first_member=train.first_member + index, label_smoothing=smoothing),
            optim=replace(self.optim, learning_rate=rate, weight_decay=decay),
            plan=replace(self.plan, mesh=None),
            ensemble=replace(
                ensemble,  # still of one a member: the program is then the same, and so are its bits
                learning_rates=ensemble.learning_rates and (rate,),
                weight_decays=ensemble.weight_decays and (decay,),
                label_smoothings=ensemble.label_smoothings and (smoothing,),
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `RunConfig.from_json` turns back into an equal config."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: Any) -> "RunConfig":
        """The config that `to_json` wrote; raises InputError naming the field that does not fit."""
        return from_json(cls, value, "config")

    def in_terms_of_version_1(self, *parts: Literal["model", "optim"]) -> "RunConfig":
        """The config with what names in its parts meant before activations and optimizers were those of Keras."""
        value = self.to_json()
        for part in parts:
            value[part].pop("version", None)
        return RunConfig.from_json(value)

    def with_batch_within(self, num_examples: int) -> "RunConfig":
        """The config with the default batch size reduced to all examples, where these are fewer."""
        most = num_examples + (self.augment.pairs_examples and num_examples % 2)  # of an odd one, the last is masked
        if self.train.batch_size != TrainConfig.batch_size or most >= self.train.batch_size:
            return self
        return replace(self, train=replace(self.train, batch_size=max(most, 1)))

    @classmethod
    def read(cls, path: Path) -> "RunConfig":
        """The config in a JSON file."""
        return cls.from_json(read_json(path, "the JSON of a run's config", "Use another run."))


def mesh_shape(mesh: str | None) -> tuple[int, int]:
    """(member, data): the devices along each axis of a mesh like "member=2,data=4"; 1 where an axis is not named."""
    axes = dict(axis.split("=") for axis in mesh.split(",")) if mesh else {}
    return int(axes.get("member", 1)), int(axes.get("data", 1))


def check_model(model: Any) -> None:
    """Raises InputError unless `model` is something a checkpoint can rebuild."""
    if isinstance(model, Model):
        return
    rule = f"layer specs ({Sequential.__name__}, cnn(), mlp()) or {custom.__name__}(YourNNXClass, …)"
    remedy = "Build it of the layers of engine.models."
    if isinstance(model, list | tuple | Layer):
        remedy = "Put the layers into Sequential((…))."
    elif callable(model):
        remedy = "Pass the class itself to custom(), not an instance."
    raise InputError(problem("model", repr(model)[:80], rule, remedy))

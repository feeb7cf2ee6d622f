"""Frozen dataclasses that describe a run completely; checked when built; to and from JSON without loss."""

import re
from dataclasses import dataclass, field, replace
from math import gcd
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Suppress

from engine.augment.config import AugmentConfig
from engine.augment.preset_config import PresetConfig
from engine.augment.rules import crop_problems
from engine.config.checkpoint import CheckpointConfig
from engine.config.data import DataConfig
from engine.config.ensemble import EnsembleConfig, MemberNumbers
from engine.config.finetune import FineTuneConfig, layer_names, name_problems
from engine.config.matters import NOTHING, PLAN, PROGRAM, RESULT, SCHEDULE, Matters, read_marks
from engine.config.matters import Path as FieldPath
from engine.config.optim import OptimConfig
from engine.config.plan import PlanConfig, mesh_shape
from engine.config.scoring import loss_facts
from engine.config.train import TrainConfig
from engine.errors import InputError, problem
from engine.host.json_files import read_json
from engine.models.layer import Layer
from engine.models.specs import Model, Sequential
from engine.records import ADDED, check, check_all, from_json, to_json
from engine.records.custom import Custom, custom


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes."""

    name: Annotated[str, Suppress, NOTHING]
    """Its directory below runs/."""
    model: Annotated[Model, Suppress, RESULT | PROGRAM | PLAN]
    """Layer specs, or custom(YourNNXClass, …)."""
    data: Annotated[DataConfig, RESULT] = field(default_factory=DataConfig)
    train: Annotated[TrainConfig, RESULT | PROGRAM] = field(default_factory=TrainConfig)
    optim: Annotated[OptimConfig, RESULT | PROGRAM] = field(default_factory=OptimConfig)
    plan: Annotated[PlanConfig, RESULT | PROGRAM] = field(default_factory=PlanConfig)
    augment: Annotated[AugmentConfig, RESULT | PROGRAM | PLAN] = field(default_factory=AugmentConfig)
    ensemble: Annotated[EnsembleConfig, RESULT | PROGRAM] = field(default_factory=EnsembleConfig)
    checkpoint: Annotated[CheckpointConfig, NOTHING] = field(default_factory=CheckpointConfig)
    finetune: Annotated[FineTuneConfig, RESULT | PROGRAM] = field(default_factory=FineTuneConfig)
    callbacks: Annotated[tuple[Custom, ...], Suppress, NOTHING] = field(default=(), kw_only=True, metadata=ADDED)
    """Called while the run trains: custom(Class, …) of classes like engine.Callback."""

    def __post_init__(self):
        check_model(self.model)
        _check_callbacks(self.callbacks)
        if isinstance(self.augment, PresetConfig) and isinstance(self.data, DataConfig):
            object.__setattr__(self, "data", self.augment.data.added_to(self.data))
            object.__setattr__(self, "augment", self.augment.plain())
        if (
            isinstance(self.train, TrainConfig)
            and self.train.folds is not None
            and self.data.validation_fraction == DataConfig.validation_fraction
        ):
            object.__setattr__(self, "data", replace(self.data, validation_fraction=0.0))
        check_all(self, "", self._range_problems)
        if not re.fullmatch(r"[\w][\w.\- ]*", self.name):
            raise InputError(
                problem("name", repr(self.name), "a plain directory name", "Use letters, digits, - and _.")
            )

    def _range_problems(self) -> list[str]:
        problems, size = [], self.train.batch_size
        if self.model.is_layered:  # names in a class of one's own are checked when it is built
            problems += name_problems(self.finetune, layer_names(self.model.named))
        if self.augment.pairs_examples:
            rule = "an even number with mixup or cutmix, which mix pairs"
            problems += check("train.batch_size", size, size % 2 == 0, rule, "Use one more or one less.")
        problems += crop_problems(self.augment.random_crop, self.data.crop_height_width)
        for name in ("learning_rates", "weight_decays", "label_smoothings"):
            given, rule = getattr(self.ensemble, name), f"one a member, {self.train.members} of them (train.members)"
            holds = given is None or len(given) == self.train.members
            problems += check(f"ensemble.{name}", given, holds, rule, "Give as many, or leave it out.")
        for each in self.ensemble.numbers:
            rule = f"one a member, {self.train.members} of them (train.members)"
            holds = len(each.values) == self.train.members
            problems += check(f"ensemble.numbers {each.name}", each.values, holds, rule, "Give as many.")
        if self.ensemble.label_smoothings is not None and not loss_facts(self.train.loss).takes_smoothing:
            got, rule = self.ensemble.label_smoothings, "none with this loss"
            problems.append(problem("ensemble.label_smoothings", got, rule, "Leave it out."))
        problems += self._fold_problems()
        if self.train.sampling == "balanced":
            whole, bootstrap = self.train.folds is None or self.train.fold is not None, self.ensemble.bootstrap
            remedy = "Leave out one or the other."
            problems += check(
                "ensemble.bootstrap", bootstrap, not bootstrap, "off with train.sampling balanced", remedy
            )
            remedy = "Use train.class_weight balanced."
            problems += check("train.sampling", "balanced", whole, "shuffled with train.folds", remedy)
        every, is_local = self.checkpoint.every_steps, self.train.average_every > 1
        rule = "none with train.average_every, between whose averages there is no one model"
        remedy = "Leave it out, or set checkpoint.every_seconds."
        problems += check("checkpoint.every_steps", every, every is None or not is_local, rule, remedy)
        shares, members = mesh_shape(self.plan.mesh)[0], self.train.members
        if members % shares:
            rule = f"a number along member that divides the members ({members}, train.members)"
            problems.append(problem("plan.mesh", self.plan.mesh, rule, f"Give {gcd(members, shares)}, or data alone."))
        return problems

    def _fold_problems(self) -> list[str]:
        if self.train.folds is None:
            return []
        given, combine = self.data.validation_fraction, self.ensemble.combine
        rule = "none with train.folds, each of which validates"
        problems = check("data.validation_fraction", given, not given, rule, "Leave it out.")
        rule = "mean, logits or vote with train.folds, which leave no data to fit weights on"
        problems += check("ensemble.combine", combine, combine in ("mean", "logits", "vote"), rule, "Leave it out.")
        selects, rule = self.ensemble.select_best, "off with train.folds, whose members are scored on different data"
        problems += check("ensemble.select_best", selects, not selects, rule, "Leave it out.")
        has_temperature, rule = self.ensemble.temperature, "off with train.folds, which leave no data to fit it on"
        return problems + check("ensemble.temperature", has_temperature, not has_temperature, rule, "Leave it out.")

    def marks(self) -> dict[FieldPath, Matters]:
        """What each field matters for in this run: the number of epochs only if the schedule depends on it."""
        scheduled = NOTHING if self.optim.is_open_ended else RESULT | PROGRAM
        return {path: scheduled if SCHEDULE in mark else mark for path, mark in read_marks(type(self)).items()}

    def as_computed(self) -> "RunConfig":
        """The config with defaults in all fields that its compiled programs do not depend on."""
        unseen = [path for path, mark in self.marks().items() if PROGRAM not in mark and path != ("name",)]
        changed: dict[str, Any] = {"name": "any"}
        for section in {path[0] for path in unseen}:
            names = [name for first, *rest in unseen for name in rest if first == section]
            value, default = getattr(self, section), type(getattr(self, section))()
            changed[section] = replace(value, **{each: getattr(default, each) for each in names}) if names else default
        return replace(self, **changed)

    @property
    def scaled_optim(self) -> OptimConfig:
        """The optimizer with the learning rate that it has for the batch size of this run."""
        return self.optim.scaled_to(self.train.batch_size)

    @property
    def without_source(self) -> "RunConfig":
        """The same for uses that neither open its data nor train: without code of the author's own for these."""
        return replace(self, data=replace(self.data, source=None), callbacks=())

    def of_member(self, index: int) -> "RunConfig":
        """The config that trains one member of this ensemble alone, counted from 0."""

        def own(values: tuple[float, ...] | None, common: Any) -> Any:
            return common if values is None else values[index]

        ensemble, train = self.ensemble, self.train
        smoothing = own(ensemble.label_smoothings, train.label_smoothing)
        rate = own(ensemble.learning_rates, self.optim.learning_rate)
        decay = own(ensemble.weight_decays, self.optim.weight_decay)
        numbers = {each.name: each.values[index] for each in ensemble.numbers}
        fold = {} if train.folds is None else {"fold": index}
        return replace(
            self,
            train=replace(train, members=1, first_member=train.first_member + index, label_smoothing=smoothing, **fold),
            optim=replace(self.optim, learning_rate=rate, weight_decay=decay, **numbers),
            plan=replace(self.plan, mesh=None),
            ensemble=replace(
                ensemble,  # still of one a member: the program is then the same, and so are its bits
                learning_rates=ensemble.learning_rates and (rate,),
                weight_decays=ensemble.weight_decays and (decay,),
                label_smoothings=ensemble.label_smoothings and (smoothing,),
                numbers=tuple(MemberNumbers(name, (value,)) for name, value in numbers.items()),
                select_best=False,
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
        most = max(most - most % self.train.accumulate, self.train.accumulate)
        return replace(self, train=replace(self.train, batch_size=max(most, 1)))

    @classmethod
    def read(cls, path: Path) -> "RunConfig":
        """The config in a JSON file."""
        return cls.from_json(read_json(path, "the JSON of a run's config", "Use another run."))


def _check_callbacks(given: Any) -> None:
    """Raises InputError for objects, which a record cannot hold: a config names classes."""
    for each in given if isinstance(given, list | tuple) else (given,):
        if not isinstance(each, Custom | dict):
            name = each.__name__ if isinstance(each, type) else type(each).__name__
            got = f"the class {name}" if isinstance(each, type) else f"an object of {name}"
            remedy = f"Write callbacks=(engine.custom({name}),), or engine.run(config, callbacks=[{name}(…)])."
            raise InputError(problem("callbacks", got, "engine.custom(Class, …), which a record can hold", remedy))


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

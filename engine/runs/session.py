"""Session: what a run carries while it trains, how it is saved, and how it is taken up again."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from engine.checkpoints.record import Record
from engine.checkpoints.saving import Checkpoints
from engine.checkpoints.steps import choose_step, find_steps, read_record, restore_arrays
from engine.config import RunConfig
from engine.config.plan import Plan, PlanFile
from engine.data.contract import input_spec
from engine.data.decoded.dataset import Dataset, Splits, names_text
from engine.data.load import num_outputs
from engine.devices.mesh import check_mesh, has_enough_devices
from engine.devices.precision import check_precision
from engine.errors import InputError, Say, problem
from engine.host.clock import Clock
from engine.host.versions import device_text, versions
from engine.inference.classifier import Classifier, check_can_augment
from engine.kernels.lowerings import evaluation_lowering
from engine.metrics.stopping import has_stopped_early, score
from engine.metrics.sums import Metrics, zero_metrics
from engine.networks.network import Tree, network_of
from engine.runs.start import restore_source
from engine.runs.trainer import Trainer
from engine.training.batches import num_batches
from engine.training.feed import Feed, choose_placement
from engine.training.members_in_turn import OneByOne
from engine.training.memory import batch_errors
from engine.training.optim import schedule
from engine.training.program import NEVER, Pacer, Program
from engine.training.state import TrainState

COUNTS = ("n", "skipped")  # the same in every epoch


class NotFinite(InputError):
    """A loss that is no number: the run stops, its last good checkpoint stays."""


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its row of the history, metrics on the validation data, number of images trained on."""

    row: dict[str, Any]
    validation: dict[str, Any]
    num_images: int


class Session:
    """The model, its program, its state and what has happened so far."""

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        clock: Clock,
        directory: Path,
        resumed: Record | None = None,
        plan: PlanFile | None = None,
        source: Classifier | None = None,
    ):
        check_mesh(config.plan.mesh)
        _check_goes_together(config, splits)
        check_precision(config.train.precision, jax.devices()[0])
        self.config, self.splits, self.clock, self.directory = config, splits, clock, directory
        self.num_outputs = num_outputs(config, splits.train)
        source = source or (None if resumed else restore_source(config))
        given_contract = resumed or source
        self.input_spec = given_contract.input_spec if given_contract else input_spec(config.data, splits.train)
        self.steps_per_epoch = num_batches(len(splits.train), config.train.batch_size)
        self.learning_rate = schedule(config.optim, self.steps_per_epoch, config.train.epochs)
        self.device = device_text()
        self.step, self.totals = 0, self._zero_totals()
        self.history: list[dict[str, Any]] = []
        self._epoch_seconds = 0.0
        self._order: tuple[int, Any] = (-1, None)
        spec, precision = self.input_spec, config.train.precision
        with clock.measure("compile"):  # as direct convolutions are, the first time on a machine
            lowering = evaluation_lowering(config.plan)
        self._network, _ = network_of(
            config.model, spec.network_shape, self.num_outputs, lowering, spec.whiten, precision
        )
        self.alternatives = resumed.alternatives if resumed else plan.alternatives if plan else ()
        self._build(resumed, self._given_plan(resumed, plan), source)

    def _build(self, resumed: Record | None, plan: Plan | None, source: Classifier | None) -> None:
        # What is saved after the last step of an epoch is still like that epoch's state.
        epoch = max(resumed.step - 1, 0) // self.steps_per_epoch if resumed else 0
        of_data = (self.splits, self.input_spec, self.num_outputs, self.steps_per_epoch)
        trainer = Trainer(self.config, *of_data, self.clock, plan, resumed is not None, epoch)
        self.trainer, self.plan, self.devices = trainer, trainer.plan, trainer.devices
        self.num_params, self.pacer = trainer.num_params, Pacer(trainer.plan)
        self._executables = trainer.executables("whole models")
        if resumed:
            self._take_up(resumed, trainer.abstract())
        else:
            self.state: TrainState = trainer.first_state(self._executables, source)

    @property
    def _program(self) -> Program | OneByOne:
        return self.trainer.ready(self._model)[0]

    @property
    def _feed(self) -> Feed:
        return self.trainer.ready(self._model)[1]

    def report_to(self, say: Say) -> None:
        """Prints the messages collected so far; later ones are printed immediately."""
        self.trainer.report_to(say)

    def _given_plan(self, resumed: Record | None, plan: PlanFile | None) -> Plan | None:
        if resumed and resumed.device.startswith(jax.default_backend()):
            # The same bits, even where a newer version or another machine would choose otherwise.
            return resumed.plan if has_enough_devices(resumed.plan.mesh) else replace(resumed.plan, mesh=None)
        return replace(plan.plan, placement=choose_placement(self.config.plan, self.splits.train)) if plan else None

    def _take_up(self, record: Record, abstract: TrainState) -> None:
        if record.data_fingerprint != self.splits.train.fingerprint:
            stored, given = record.data_fingerprint[:12], self.splits.train.fingerprint[:12]
            rule = f"the data the run was started with ({stored})"
            raise InputError(problem("data", f"content {given}", rule, "Restore that data, or start another run."))
        if record.validation_fingerprint and record.validation_fingerprint != _fingerprint(self.splits.validation):
            rule = "the one the run was started with, which its best step and patience were judged by"
            remedy = "Restore that data, or start another run."
            raise InputError(problem("data", "another validation split", rule, remedy))
        if record.class_names != self.splits.train.class_names:
            got, rule = names_text(self.splits.train.class_names), names_text(record.class_names)
            raise InputError(problem("data", f"classes {got}", f"{rule}, as the run was started", "Restore them."))
        arrays = restore_arrays(self.directory, record, **_items_of(abstract))
        whole = _state_of(*jax.device_put((arrays["model"], arrays["optimizer"])))
        self.state = self.trainer.placed(self.trainer.phase.apart(whole))
        self.step, self.history = record.step, [dict(row) for row in record.history]
        self._epoch_seconds = record.epoch_seconds
        if record.totals:
            zeros = vars(self.totals)
            self.totals = Metrics(**{name: np.asarray(record.totals[name], zero.dtype) for name, zero in zeros.items()})

    @property
    def epoch(self) -> int:
        """Whole epochs trained: the index of the one under way."""
        return self.step // self.steps_per_epoch

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained, or those that early stopping grants."""
        is_between_epochs = self.position == 0
        has_stopped = is_between_epochs and has_stopped_early(self.config.train, self.history)
        return self.epoch >= self.config.train.epochs or has_stopped

    @property
    def position(self) -> int:
        """Batches done in the epoch under way."""
        return self.step % self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.config.train.epochs

    @property
    def images_per_second(self) -> float:
        """The rate of the last compiled call."""
        return self.config.train.batch_size / max(self.pacer.seconds_per_step, 1e-9)

    @property
    def images_per_epoch(self) -> int:
        """Images trained on in the epoch that is under way."""
        return len(self.splits.train)

    def train_chunk(self, at_most: int | None = None) -> None:
        """Trains as many steps as one compiled call takes, at most to the end of the epoch, or so many."""
        self.state = self.trainer.entered(self.state, self.epoch)
        program, feed = self.trainer.ready(self._model)
        if self._order[0] != self.epoch:
            self._order = (self.epoch, program.order(self.epoch, len(self.splits.train)))
        before = self.clock.seconds["train"]
        with self.clock.measure("data"):
            window = feed.window(self.epoch, self.position, self._order[1])
        with self.clock.measure("train"), batch_errors(self.config.train.batch_size, self.state.params):
            count = self.pacer.steps(min(window.end - self.position, at_most or NEVER))
            place = (len(self.splits.train), self._order[1], self.position, count)
            self.state, self.totals, bad_step = program.train(
                self.state, window, *place, self.totals, self._is_active()
            )
        seconds = self.clock.seconds["train"] - before
        self._epoch_seconds += seconds
        self._note_bad_steps(bad_step)
        self.pacer.ran(count, seconds)
        self.step += count

    def finish_epoch(self) -> Epoch:
        """Validates, and adds a row to the history."""
        num_images, validation = self.images_per_epoch, self.validate()
        row: dict[str, Any] = {"epoch": self.epoch, "step": self.step}
        row.update((name, value) for name, value in self.training_metrics().items() if name != "n")
        row.update((f"validation_{name}", value) for name, value in validation.items() if name not in COUNTS)
        row.update(self._member_columns())
        row["learning_rate"] = float(np.asarray(self.learning_rate(self.step - 1)))
        row["seconds"] = round(self._epoch_seconds, 3)
        self.history.append(row)
        self.totals, self._epoch_seconds = self._zero_totals(), 0.0
        return Epoch(row, validation, num_images)

    def _is_active(self) -> Any:
        """Whether the model is trained on; of an ensemble bool[m]."""
        return True

    def _note_bad_steps(self, bad_step: np.ndarray) -> None:
        if bad_step != NEVER:
            raise NotFinite(self._not_finite("loss", int(bad_step)))

    def _member_columns(self) -> dict[str, Any]:
        """What the history keeps of the single members of an ensemble."""
        return {}

    def _items(self) -> dict[str, Any]:
        """Host copies of all arrays: the next compiled call writes over the donated ones while Orbax still reads."""
        return jax.tree.map(lambda leaf: np.array(leaf), _items_of(self.trainer.phase.whole(self.state)))

    def _check_finite(self, model: Tree) -> None:
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model) if leaf.dtype.kind == "f"):
            raise NotFinite(self._not_finite("weight", self.step))

    def _zero_totals(self) -> Metrics:
        return zero_metrics()

    def training_metrics(self) -> dict[str, Any]:
        """Means over the examples of this epoch trained on so far, each before its update."""
        return self._means(self.totals)

    def validate(self) -> dict[str, Any]:
        """Metrics of the current weights on the validation data; empty if there is none."""
        if self.splits.validation is None:
            return {}
        with self.clock.measure("eval"):
            sums = self.trainer.metrics_on_features(self._model())
        metrics = self._means(sums) if sums else self.evaluate(self.classifier(), self.splits.validation)
        if not np.isfinite(metrics["loss"]):
            raise NotFinite(self._not_finite("validation loss", self.step))
        return metrics

    def save(self, checkpoints: Checkpoints, validation: dict[str, Any] | None = None) -> None:
        """Starts to save everything; `validation` metrics, at the end of an epoch, say how good this step is."""
        with self.clock.measure("save"):
            items = self._items()
            self._check_finite(items["model"])
            checkpoints.save(self._record(validation or {}), **items)

    def best(self) -> tuple[Classifier, int]:
        """(the classifier of the best saved step, that step)."""
        step = choose_step(self.directory, "best")
        record, (params, model_state) = read_record(self.directory, step), self._model()
        if step != self.step:
            arrays = restore_arrays(self.directory, record, model=(params, model_state))
            params, model_state = jax.device_put(arrays["model"])
        return Classifier(record, self._network, params, model_state, self._executables), step

    def classifier(self) -> Classifier:
        """The model as it is now, on the arrays that the next step writes over: good until that is trained."""
        return Classifier(self._record({}), self._network, *self._model(), self._executables)

    def _model(self) -> tuple[Tree, Tree]:
        """Weights and model state where they are evaluated: on one device, which has all of a single model."""
        return self.devices.on_one(self.whole_model)

    @property
    def whole_model(self) -> tuple[Tree, Tree]:
        """(parameters, other state) of the whole model, frozen layers among them; stacked [m …] of an ensemble."""
        return self.trainer.phase.whole(self.state).model

    def evaluate(self, classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
        """Metrics over a dataset, the time taken note of."""
        with self.clock.measure("eval"):
            return classifier.evaluate(dataset)

    def close(self) -> None:
        """Stops reading ahead."""
        self.trainer.close()

    def _means(self, metrics: Metrics) -> dict[str, Any]:
        return metrics.means(self.config.train.loss, self.num_outputs)

    def _record(self, validation: dict[str, Any]) -> Record:
        totals = {name: np.asarray(value).tolist() for name, value in vars(self.totals).items()}
        return Record(
            config=self.config,
            input_spec=self.input_spec,
            class_names=self.splits.train.class_names,
            num_outputs=self.num_outputs,
            data_fingerprint=self.splits.train.fingerprint,
            step=self.step,
            steps_per_epoch=self.steps_per_epoch,
            score=score(self.config.train, validation) if validation else None,
            plan=self.plan,
            alternatives=self.alternatives,
            validation_fingerprint=_fingerprint(self.splits.validation),
            passed_over=self.splits.passed_over,
            skipped={name: len(split.skipped) for name, split in self.splits.named.items() if split.skipped},
            several_frames={k: split.several_frames for k, split in self.splits.named.items() if split.several_frames},
            history=tuple(self.history),
            totals=totals,
            epoch_seconds=self._epoch_seconds,
            versions=versions(),
            device=self.device,
        )

    def _not_finite(self, quantity: str, step: int) -> str:
        epoch = (step - 1) // self.steps_per_epoch + 1
        kept = f"The last good checkpoint in {self.directory} is kept. " if find_steps(self.directory) else ""
        remedy = f"{kept}Lower --optim.learning-rate or set --optim.clip-norm 1."
        return problem(quantity, f"no finite number at step {step} (epoch {epoch})", "a finite number", remedy)


def _items_of(state: TrainState) -> dict[str, Any]:
    """The items of a checkpoint: the model, and what else it takes to train on."""
    rest = (state.step, state.opt_state)
    return {"model": state.model, "optimizer": rest if state.averaged is None else (*rest, state.params)}


def _state_of(model: tuple[Tree, Tree], optimizer: tuple) -> TrainState:
    """The state that `_items_of` took apart."""
    (params, model_state), (step, opt_state, *trained) = model, optimizer
    if not trained:
        return TrainState(step, params, model_state, opt_state)
    return TrainState(step, trained[0], model_state, opt_state, params)


def _fingerprint(dataset: Dataset | None) -> str:
    return "" if dataset is None else dataset.fingerprint


def _check_goes_together(config: RunConfig, splits: Splits) -> None:
    train = splits.train
    size, is_all = config.train.batch_size, config.augment.pairs_examples and len(train) % 2
    if size > len(train) + is_all:
        rule = f"at most {len(train)}, the training examples of {train.name}"
        remedy = f"Give {max(len(train) - is_all, 1 + config.augment.pairs_examples)} or fewer."
        raise InputError(problem("train.batch_size", size, rule, remedy))
    if config.train.patience is not None and splits.validation is None:
        rule, remedy = "validation data to judge by", "Set --data.validation-fraction."
        raise InputError(problem("train.patience", config.train.patience, rule, remedy))
    if config.augment.is_active:
        check_can_augment("augment", train.input_shape, train.images.dtype.name)

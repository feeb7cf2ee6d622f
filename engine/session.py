"""Session: what a run carries while it trains, how it is saved, and how it is taken up again."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from engine.batches import num_batches
from engine.checkpoint import Checkpoints, Record, choose_step, find_steps, read_record, restore_arrays
from engine.clock import Clock
from engine.config import Lowering, RunConfig
from engine.data.dataset import Dataset, Splits, names_text
from engine.data.fitting import whitening
from engine.data.load import input_spec, num_outputs
from engine.errors import InputError, problem
from engine.feed import choose_placement, make_feed
from engine.members import Settings, draw_of, settings_of, tuned
from engine.metrics import Metrics, zero_metrics
from engine.one_by_one import program_of
from engine.optim import optimizer, schedule
from engine.parallel import Devices, check_mesh, fits
from engine.plan import Plan, PlanFile, given_plan, keeps_lowering
from engine.precision import check_precision
from engine.predict import EVALUATION_LOWERING, Classifier, check_can_augment
from engine.program import NEVER, Executables, Pacer, Program, choose_lowering, choose_plan
from engine.state import AnyNetwork, TrainState, Tree, init_state, network_of, num_params
from engine.step import Task
from engine.stopping import has_stopped_early, score
from engine.versions import device_text, versions


class NotFinite(InputError):
    """A loss that is no number: the run stops, its last good checkpoint stays."""


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
    ):
        check_mesh(config.plan.mesh)
        _check_goes_together(config, splits)
        check_precision(config.train.precision, jax.devices()[0])
        self.config, self.splits, self.clock, self.directory = config, splits, clock, directory
        self.num_outputs = num_outputs(config, splits.train)
        self.input_spec = resumed.input_spec if resumed else input_spec(config.data, splits.train)
        self.steps_per_epoch = num_batches(len(splits.train), config.train.batch_size)
        self.learning_rate = schedule(config.optim, self.steps_per_epoch, config.train.epochs)
        self.device = device_text()
        self.step, self.totals = 0, self._zero_totals()
        self.history: list[dict[str, Any]] = []
        self._epoch_seconds = 0.0
        self._order: tuple[int, Any] = (-1, None)
        self._executables = Executables(clock)
        self._network, _ = self._network_of(EVALUATION_LOWERING)
        self.alternatives = resumed.alternatives if resumed else plan.alternatives if plan else ()
        self._build(resumed, self._given_plan(resumed, plan))

    def _build(self, resumed: Record | None, plan: Plan | None) -> None:
        config, platform = self.config, jax.default_backend()
        is_given = plan is not None and keeps_lowering(config.plan, plan)
        lowering = plan.lowering if plan and is_given else choose_lowering(config.plan, platform)
        placement = choose_placement(config.plan, self.splits.train)
        chain = optimizer(config.optim, self.steps_per_epoch, config.train.epochs)
        network, init = self._network_of(lowering)
        loss, smoothing = config.train.loss, config.train.label_smoothing
        task = Task(network, loss, smoothing, chain, self.input_spec, config.augment)
        settings, draw, tune = settings_of(config), draw_of(config), partial(tuned, config, self.steps_per_epoch)

        def make(settings: Settings) -> TrainState:
            def of_one(settings: Settings, params: Tree, model_state: Tree) -> TrainState:
                return init_state(params, model_state, tune(task, settings).optimizer)

            of_all = jax.vmap(of_one) if settings.seed.ndim else of_one
            return of_all(settings, *init(settings.seed))

        is_ensemble = config.train.members > 1
        abstract = jax.eval_shape(make, jax.tree.map(lambda leaf: leaf[0], settings) if is_ensemble else settings)
        self.num_params = num_params(abstract.params)
        self.plan: Plan = choose_plan(config.plan, lowering, platform, task, abstract, placement)
        if plan:
            self.plan = given_plan(config.plan, self.plan, plan)
        self.pacer, self.devices = Pacer(self.plan), Devices(self.plan.mesh)
        batch_size = config.train.batch_size
        program = Program(task, self.plan, settings, draw, batch_size, self._executables, tune, self.devices)
        self._program = program_of(program, self._executables)
        if resumed:
            self._take_up(resumed, jax.eval_shape(make, settings))
        else:
            self.state: TrainState = self._executables.call("init", make, settings)
            self._fit_whitening()
        self.state = self.devices.place(self.state, is_ensemble)
        data = (self.splits.train, draw, batch_size, config.plan.readers)
        self._feed = make_feed(self.plan.placement, *data, self.devices)

    def _given_plan(self, resumed: Record | None, plan: PlanFile | None) -> Plan | None:
        if resumed and resumed.device.startswith(jax.default_backend()):
            # The same bits, even where a newer version or another machine would choose otherwise.
            return resumed.plan if fits(resumed.plan.mesh) else replace(resumed.plan, mesh=None)
        return replace(plan.plan, placement=choose_placement(self.config.plan, self.splits.train)) if plan else None

    def _network_of(self, lowering: Lowering) -> tuple[AnyNetwork, Callable[[Any], tuple[Any, Any]]]:
        spec, config = self.input_spec, self.config
        return network_of(config.model, spec.shape, self.num_outputs, lowering, spec.whiten, config.train.precision)

    def _fit_whitening(self) -> None:
        if self.input_spec.whiten:
            fitted = whitening(self.splits.train, self.input_spec.scale, self.config.data.whiten_epsilon)
            empty, inner_state = self.state.model_state
            of_all = jax.tree.map(lambda leaf, own: np.broadcast_to(leaf, own.shape), fitted, empty)
            self.state = replace(self.state, model_state=(jax.device_put(of_all), inner_state))

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
        model, state = (abstract.params, abstract.model_state), (abstract.step, abstract.opt_state)
        arrays = restore_arrays(self.directory, record, model=model, optimizer=state)
        (params, model_state), (step, opt_state) = jax.device_put((arrays["model"], arrays["optimizer"]))
        self.state = TrainState(step, params, model_state, opt_state)
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

    def train_chunk(self) -> None:
        """Trains as many steps as one compiled call takes, at most to the end of the epoch."""
        if self._order[0] != self.epoch:
            self._order = (self.epoch, self._program.order(self.epoch, len(self.splits.train)))
        before = self.clock.seconds["train"]
        with self.clock.measure("data"):
            window = self._feed.window(self.epoch, self.position, self._order[1])
        with self.clock.measure("train"):
            count = self.pacer.steps(window.end - self.position)
            place = (len(self.splits.train), self._order[1], self.position, count)
            self.state, self.totals, bad_step = self._program.train(
                self.state, window, *place, self.totals, self._is_active()
            )
        seconds = self.clock.seconds["train"] - before
        self._epoch_seconds += seconds
        self._note_bad_steps(bad_step)
        self.pacer.ran(count, seconds)
        self.step += count

    def finish_epoch(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the epoch's row, which is added to the history, the metrics on the validation data)."""
        validation = self.validate()
        row: dict[str, Any] = {"epoch": self.epoch, "step": self.step}
        row.update((name, value) for name, value in self.training_metrics().items() if name != "n")
        row.update((f"validation_{name}", value) for name, value in validation.items() if name != "n")
        row.update(self._member_columns())
        row["learning_rate"] = float(np.asarray(self.learning_rate(self.step - 1)))
        row["seconds"] = round(self._epoch_seconds, 3)
        self.history.append(row)
        self.totals, self._epoch_seconds = self._zero_totals(), 0.0
        return row, validation

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
        model, state = (self.state.params, self.state.model_state), (self.state.step, self.state.opt_state)
        return jax.tree.map(lambda leaf: np.array(leaf), {"model": model, "optimizer": state})

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
        metrics = self.evaluate(self.classifier(), self.splits.validation)
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
        return self.devices.on_one((self.state.params, self.state.model_state))

    def evaluate(self, classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
        """Metrics over a dataset, the time taken note of."""
        with self.clock.measure("eval"):
            return classifier.evaluate(dataset)

    def close(self) -> None:
        """Stops reading ahead."""
        self._feed.close()

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


def _fingerprint(dataset: Dataset | None) -> str:
    return "" if dataset is None else dataset.fingerprint


def _check_goes_together(config: RunConfig, splits: Splits) -> None:
    train = splits.train
    if config.train.batch_size > len(train):
        rule = f"at most {len(train)}, the training examples of {train.name}"
        raise InputError(problem("train.batch_size", config.train.batch_size, rule, "Use a smaller batch."))
    if config.train.patience is not None and splits.validation is None:
        rule, remedy = "validation data to judge by", "Set --data.validation-fraction."
        raise InputError(problem("train.patience", config.train.patience, rule, remedy))
    if config.augment.is_active:
        check_can_augment("augment", train.input_shape, train.images.dtype.name)

"""Session: a run while it trains: its state and history, how it is trained, validated, saved and resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.checkpoints.changes import describe_new, list_changes
from engine.checkpoints.record import Record
from engine.checkpoints.saving import Saves
from engine.config import RunConfig
from engine.config.finetune import shortened
from engine.config.plan import PlanFile
from engine.data.contract import input_spec
from engine.data.decoded.dataset import Dataset, Splits
from engine.errors import Say
from engine.host.clock import Clock
from engine.host.memory import give_back_freed_memory
from engine.host.versions import device_text, versions
from engine.inference.classifier import Classifier
from engine.metrics.plateau import rate_factors
from engine.processes.sharing import shared_work
from engine.processes.together import agree
from engine.runs.changed import follow_changes, shapes_before_changes
from engine.runs.checks import check_average, check_run, check_same_data, validation_fingerprint
from engine.runs.epoch import Epoch
from engine.runs.fold_members import make_members
from engine.runs.run_plan import find_given_plan, make_architecture
from engine.runs.setup import Model, Setup
from engine.runs.stage import Equipment, equip, start_stage
from engine.runs.start import restore_source
from engine.runs.together import plan_together, restore_together, row_from_first
from engine.training.memory import batch_errors
from engine.training.program import NEVER, Pacer
from engine.training.schedules import schedule
from engine.training.state import TrainState, make_items, make_state, restructured

COUNTS = ("n", "skipped")  # the same in every epoch


class Session:
    """A run of one model or of an ensemble, from its first step or from a saved one.

    resumed: the record of the run to resume. plan: one that was measured. source: a model at hand to start from.
    """

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
        self._messages: list[str] = []
        self._say: Say = self._messages.append
        check_run(config, splits)
        source = source or (None if resumed else restore_source(config))
        given, known = find_given_plan(config, splits, resumed, plan), resumed or source
        begun = resumed or (source.record if source else None)
        self._provenance = begun.provenance if begun else None
        contract = known.input_spec if known else input_spec(config.data, splits.train)
        model = make_architecture(config, splits, contract, given, self._say)
        with clock.measure("compile"):  # layers are traced, which waits for our C++ where none is shipped
            chosen, measured = plan_together(config, splits, model, given, resumed is not None), resumed or plan
        check_average(config, chosen.mesh)
        alternatives = measured.alternatives if measured else ()
        setup = Setup(config, splits, clock, directory, model, chosen, alternatives)
        self.setup = follow_changes(setup, resumed, self._say) if resumed else setup
        self.config, self.splits, self.clock, self.directory = config, splits, clock, directory
        self.plan, self.steps_per_epoch = self.setup.plan, self.setup.steps_per_epoch
        self.members, self.pacer = make_members(self.setup), Pacer(self.plan)
        counts = self.steps_per_epoch, config.train.epochs
        self.learning_rate = schedule(config.scaled_optim, *counts, steps_ahead=self.setup.steps_ahead)
        self.device = device_text()
        self.step, self.totals = 0, self.members.make_totals()
        self.history: list[dict[str, Any]] = []
        self.is_resumed, self._changes = resumed is not None, list_changes(resumed, config) if resumed else ()
        of_schedule = (each.step for each in self._changes if each.field in ("optim.schedule", "optim.learning_rate"))
        self.schedule_since = max(of_schedule, default=0)
        self.is_stopped = resumed is not None and resumed.is_stopped_for(config)
        self._epoch_seconds = 0.0
        self._order: tuple[int, Any] = (-1, None)
        self._equipment: Equipment | None = None
        # What is saved after the last step of an epoch is still like that epoch's state.
        self.stage = start_stage(self.setup, resumed.last_epoch if resumed else 0)
        if resumed:
            self._resume(resumed, self.stage.abstract_state())
        else:
            self.state: TrainState = self.stage.make_first_state(source, self._say)

    def report_to(self, say: Say) -> None:
        """Prints the messages collected so far; later ones are printed immediately."""
        self._say = say
        while self._messages:
            say(self._messages.pop(0))

    def _resume(self, record: Record, shapes: TrainState) -> None:
        check_same_data(record, self.splits)
        arrays = restore_together(
            self.directory, record, **make_items(shapes_before_changes(self.stage, record, shapes))
        )
        whole = make_state(*jax.device_put((arrays["model"], arrays["optimizer"])))
        whole = replace(whole, opt_state=restructured(whole.opt_state, shapes.opt_state, whole.step))
        self.state = self.stage.place(self.stage.phase.apart(whole))
        self.step, self.history = record.step, [dict(row) for row in record.history]
        self._epoch_seconds = record.epoch_seconds
        if record.totals:
            self.totals = self.totals.read(record.totals)
        self.members.resume(record, self.make_record(), shapes.model)

    @property
    def epoch(self) -> int:
        """Whole epochs trained: the index of the one under way."""
        return self.course_step // self.steps_per_epoch

    @property
    def course_step(self) -> int:
        """What the step were if the batch size had never changed."""
        return self.step + self.setup.steps_ahead

    @property
    def position(self) -> int:
        """Batches done in the epoch under way."""
        return self.course_step % self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.config.train.epochs - self.setup.steps_ahead

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained, or those that early stopping and callbacks grant."""
        has_stopped = self.position == 0 and self.members.have_stopped(self.history)
        return self.epoch >= self.config.train.epochs or has_stopped or self.is_stopped

    @property
    def images_per_second(self) -> float:
        """Images that members were trained on, by the last compiled call."""
        return self.config.train.batch_size / max(self.pacer.seconds_per_step, 1e-9) * self._count_active()

    @property
    def images_per_epoch(self) -> int:
        """Images that members are trained on in the epoch under way."""
        if (subsets := self.setup.subsets) is not None:
            return int(subsets.counts @ self.members.are_active(self.history))
        return len(self.splits.train) * self._count_active()

    @property
    def whole_model(self) -> Model:
        """(parameters, other state) of the whole model, frozen layers among them; stacked [m …] of an ensemble."""
        return self.setup.devices.at_hand(self.stage.phase.whole(self.state).model)

    @property
    def equipment(self) -> Equipment:
        """What trains the present stage, made when it is first needed."""
        if self._equipment is None:
            devices = self.setup.devices
            self._equipment = equip(self.stage, lambda: devices.on_one(self.whole_model), self._say)
        return self._equipment

    def train_chunk(self, at_most: int | None = None) -> None:
        """Trains as many steps as one compiled call takes, at most to the end of the epoch, or so many."""
        self._enter_stage()
        program, feed = self.equipment.program, self.equipment.feed
        if self._order[0] != self.epoch:
            self._order = (self.epoch, program.order(self.epoch, len(self.splits.train)))
        before = self.clock.seconds["train"]
        with self.clock.measure("data"):
            window = feed.window(self.epoch, self.position, self._order[1])
        with self.clock.measure("train"), batch_errors(self.config.train.batch_size, self.state.params):
            left = min(window.end - self.position, at_most or NEVER)
            count = self.pacer.steps(left, self.config.train.average_every)
            place = (len(self.splits.train), self._order[1], self.position, count)
            varying = (
                self.members.are_active(self.history),
                rate_factors(self.config, self.history, self.schedule_since),
            )
            self.state, self.totals, bad_step = program.train(self.state, window, *place, self.totals, *varying)
        seconds, *_ = agree(self.clock.seconds["train"] - before)  # by which the next call is as long everywhere
        self._epoch_seconds += seconds
        self.members.check_losses(bad_step)
        self.pacer.ran(count, seconds)
        self.step += count

    def finish_epoch(self) -> Epoch:
        """Validates, and adds a row to the history."""
        usual = self.members.usual_metrics(self.totals, self.history)
        num_images, validation = self.images_per_epoch, self.validate()
        row: dict[str, Any] = {"epoch": self.epoch, "step": self.step}
        row.update((name, value) for name, value in self.training_metrics().items() if name != "n")
        row.update((f"validation_{name}", value) for name, value in validation.items() if name not in COUNTS)
        row.update(self.members.columns)
        row["learning_rate"] = float(np.asarray(self.learning_rate(self.step - 1)))
        row["seconds"] = round(self._epoch_seconds, 3)
        row.update(describe_new(self._changes, self.history))
        self.members.complete_row(row, rate_factors(self.config, self.history, self.schedule_since))
        self.history.append(row_from_first(row))  # it steers the run
        self.totals, self._epoch_seconds = self.members.make_totals(), 0.0
        return Epoch(row, validation, num_images, usual)

    def training_metrics(self) -> dict[str, Any]:
        """Means over the examples of this epoch trained on so far, each before its update; empty if none is trained."""
        totals = self.members.sum_totals(self.totals, self.history)
        return self.setup.scoring.means(totals) if totals is not None else {}

    def validate(self) -> dict[str, Any]:
        """Metrics on the validation data; empty if there is none."""
        if not self.splits.are_validated:
            return {}
        with self.clock.measure("eval"), shared_work():
            model = self.whole_model
            sums = self._equipment.evaluate_features(model) if self._equipment else None
            return self.members.validate(self.make_record(), model, sums)

    def save(
        self,
        checkpoints: Saves,
        validation: dict[str, Any] | None = None,
        callbacks: dict[str, Any] | None = None,
    ) -> None:
        """Starts to save everything, states of callbacks too; `validation` metrics say how good this step is."""
        with self.clock.measure("save"):
            of_state = self.state, self.members.extra_items(), checkpoints.is_shared
            items, is_finite = self.stage.items_to_save(*of_state)
            self.members.check_weights(is_finite, self.step)
            checkpoints.save(replace(self.make_record(validation), callbacks=callbacks), **items)

    def best(self) -> tuple[Classifier, int]:
        """(the classifier of the best step, or of the best step of each member, that step)."""
        return self.members.make_best(self.make_record(), self.whole_model)

    def classifier(self) -> Classifier:
        """The model as it is now, on a copy of its arrays, which the next step would write over."""
        return self.members.make_classifier(self.make_record(), jax.tree.map(jnp.copy, self.whole_model))

    def evaluate(self, classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
        """Metrics over a dataset; the time counts as "eval"."""
        with self.clock.measure("eval"), shared_work():
            return classifier.evaluate(dataset)

    def close(self) -> None:
        """Stops reading ahead, and gives back the memory of what is done."""
        if self._equipment is not None:
            self._equipment.feed.close()
        give_back_freed_memory()

    def make_record(self, validation: dict[str, Any] | None = None) -> Record:
        """What is saved beside the arrays."""
        totals = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), vars(self.totals))
        return Record(
            config=self.config,
            input_spec=self.setup.model.inputs,
            class_names=self.splits.train.class_names,
            num_outputs=self.setup.model.num_outputs,
            data_fingerprint=self.splits.train.fingerprint,
            step=self.step,
            steps_per_epoch=self.steps_per_epoch,
            score=self.members.compute_score(validation or {}),
            plan=self.plan,
            alternatives=self.setup.alternatives,
            validation_fingerprint=validation_fingerprint(self.splits),
            passed_over=self.splits.passed_over,
            skipped={name: len(split.skipped) for name, split in self.splits.named.items() if split.skipped},
            several_frames={k: split.several_frames for k, split in self.splits.named.items() if split.several_frames},
            history=tuple(self.history),
            totals=totals,
            epoch_seconds=self._epoch_seconds,
            versions=versions(),
            device=self.device,
            failed_steps=tuple(self.members.failed_steps),
            combination=self.members.combination,
            provenance=self._provenance,
            has_several_labels=self.splits.train.task == "labels",
            is_stopped=self.is_stopped,
            changes=self._changes or None,
            steps_ahead=self.setup.steps_ahead,
        )

    def _enter_stage(self) -> None:
        """Moves on to the stage of the epoch under way, if more layers train in it."""
        if unfrozen := self.stage.layers_unfrozen_by(self.epoch):
            self.close()
            self._equipment = None
            self.stage, self.state = self.stage.advance(self.epoch, self.state)
            in_order = [name for name in self.setup.model.layers.names if name in unfrozen]
            self._say(f"from epoch {self.epoch + 1} on these train too: {shortened(in_order)}")

    def _count_active(self) -> int:
        return int(np.sum(self.members.are_active(self.history)))

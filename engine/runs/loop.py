"""run(config) → Result: the story of a run on one screen. No maths here.

RunConfig → Splits → Batches → TrainState → chunk program → Metrics → History → Checkpoint → Classifier
"""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.checkpoints.record import Record
from engine.checkpoints.run_directory import claimed, clear_run, in_terms_of, open_run, write_config, write_skipped
from engine.checkpoints.saving import Checkpoints, SaveTimes
from engine.config import RunConfig
from engine.config.correction import put_right
from engine.data.coverage import check_several_classes, class_notes
from engine.data.decoded.dataset import Dataset, Splits
from engine.data.in_memory import fitting
from engine.data.load import load_splits, load_splits_intact, skipped_files
from engine.devices.mesh import check_mesh
from engine.devices.precision import computes
from engine.host.clock import Clock
from engine.host.interrupts import Interrupted, Wish, deferred
from engine.host.storage import expanded, write_atomically
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.report.augmentation import augmentation_text
from engine.report.history import draw_curves, history_csv
from engine.report.members import frozen_lines, report_members
from engine.report.pictures import draw_predictions, save_picture
from engine.report.progress import Reporter, epoch_text
from engine.report.tables import metrics_table
from engine.runs.ensemble_session import session_of
from engine.runs.own_outputs import outputs_of
from engine.runs.plan_search import planned
from engine.runs.result import Result
from engine.runs.session import Session
from engine.runs.start import as_source, data_of, order_of, record_of


def run(
    config: RunConfig,
    run_dir: str | os.PathLike[str] | None = None,
    *,
    splits: Splits | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Result:
    """Trains what `config` describes, in `run_dir` (default runs/<name>), and evaluates its best step.

    splits: data at hand, in place of what the config names.
    resume: go on with the run in that directory, if there is one. overwrite: remove it and start anew.
    Raises InputError for anything in the config, the data or the directory that cannot be used, and Interrupted, a
    KeyboardInterrupt, after Ctrl-C or SIGTERM, once everything is saved.
    """
    reporter, clock = reporter or Reporter(), Clock()
    directory = expanded(run_dir or Path("runs") / config.name)
    with claimed(directory):
        record = open_run(directory, config, resume, overwrite, reporter.say)
        if record:  # what was put right when it started stays so
            stored, given, config = record.config, config, in_terms_of(record, config)
            if config.optim != given.optim:
                reporter.say("optimizer and activations mean what they did when the run was begun (optim.rules optax)")
            elif config.model != given.model:
                reporter.say("activations mean what they did when the run was begun")
            config = replace(config, model=stored.model, data=replace(config.data, scale=stored.data.scale))
        check_mesh(config.plan.mesh)  # before the data, which may take a while
        with clock.measure("data"):
            start = record or record_of(config)
            order = order_of(record, start)
            if splits is None:
                load = load_splits_intact if record else load_splits
                splits = load(data_of(config, start), config.train.seed, reporter.say, order)
            splits = splits.in_classes(order(splits.train.class_names), reporter.say)
        return train(config, splits, directory, clock, reporter, record, overwrite)


@computes
def train(
    config: RunConfig,
    splits: Splits,
    directory: Path,
    clock: Clock,
    reporter: Reporter,
    resumed: Record | None = None,
    overwrite: bool = False,
    source: Classifier | None = None,
) -> Result:
    """Trains on data that is already loaded, in a directory that `open_run` found fit.

    source: a model at hand to start from, in place of what the config names.
    """
    splits, notes = fitting(splits, config.train.loss), list[str]()
    check_several_classes(splits.train)
    if resumed is None:
        has_contract = source is not None or config.finetune.init is not None
        gives = outputs_of(config, splits.train)
        has_levels = splits.train.images.dtype == "uint8"
        config, notes = put_right(config, splits.train.extremes, has_contract, gives, has_levels)
        config, more = as_source(config, source.record if source else record_of(config))
        notes += more
        config, more = _with_batch_within(config, splits.train)
        notes += more
    with clock.measure("plan"):
        plan = None if resumed else planned(config, splits.train, reporter.say)
    session = session_of(config, splits, clock, directory, resumed, plan, source)
    if overwrite:  # only now, when config, data and model are known to go together
        clear_run(directory)
    if resumed is None or not resumed.is_complete_for(config):
        write_config(directory, config)
    reporter.log_to(directory / "log.txt")
    reporter.say(_opening(session, resumed))
    for note in [*notes, *(class_notes(splits) if resumed is None else [])]:
        reporter.say(note)
    if config.train.epochs == 0 and resumed is None:
        reporter.say("warning: 0 epochs: nothing is trained; the model is evaluated and saved as it starts")
    session.tell(reporter.say)
    write_skipped(directory, skipped_files(splits))
    saving = Checkpoints(directory, config.checkpoint, reporter.say, reporter.log)
    times = SaveTimes(config.checkpoint)
    with contextlib.closing(session), saving as checkpoints:
        with deferred() as wish, reporter.progress(session.total_steps, session.step):
            while not session.is_done:
                _train_epoch(session, checkpoints, times, reporter, wish)
                num_trained = session.images_per_epoch
                row, validation = session.finish_epoch()
                if times.is_due_after(session.epoch) or session.is_done or wish:
                    session.save(checkpoints, validation)
                    times.saved()
                write_atomically(directory / "history.csv", history_csv(session.history))
                reporter.epoch_line(epoch_text(row, validation, num_trained, config.train.epochs))
                if wish and not session.is_done:
                    _stop(session, checkpoints, wish)
            if config.train.epochs == 0 and resumed is None:
                session.save(checkpoints, session.validate())
            if session.is_done and session.epoch < config.train.epochs:
                reporter.say(f"stopped early: no better epoch in the last {config.train.patience}")
            checkpoints.wait()  # still deferred: the last step is on disk before signals act again
            if wish:
                _stop(session, checkpoints, wish)
            session.close()  # nothing more is trained, so nothing more is read ahead
        return _finish(session, reporter)


def _with_batch_within(config: RunConfig, train: Dataset) -> tuple[RunConfig, list[str]]:
    """(the config with a batch size by default that the training examples fill, a line if they are fewer)."""
    size, config = config.train.batch_size, config.with_batch_within(len(train))
    reason = f"of the {size} by default, because there are {len(train):,} training examples"
    return config, [f"train.batch_size: {config.train.batch_size} in place {reason}"] * (
        config.train.batch_size != size
    )


def _train_epoch(session: Session, checkpoints: Checkpoints, times: SaveTimes, reporter: Reporter, wish: Wish) -> None:
    end = (session.epoch + 1) * session.steps_per_epoch
    name = f"epoch {session.epoch + 1}/{session.config.train.epochs}"
    while session.step < end:
        session.train_chunk(times.steps_left(session.step))
        left = (session.total_steps - session.step) * session.pacer.seconds_per_step
        reporter.advance(
            name,
            session.step,
            session.total_steps,
            session.images_per_second,
            session.training_metrics(),
            left,
        )
        if wish and session.step < end:
            _stop(session, checkpoints, wish)
        if session.step < end and times.is_due(session.step):
            session.save(checkpoints)
            times.saved()


def _stop(session: Session, checkpoints: Checkpoints, wish: Wish) -> None:
    assert wish.signal_number is not None
    session.save(checkpoints)
    checkpoints.wait()
    raise Interrupted(f"stopped and saved at step {session.step:,} of {session.total_steps:,}", wish.signal_number)


def _finish(session: Session, reporter: Reporter) -> Result:
    classifier, best_step = session.best()
    splits = {"validation": session.splits.validation, "test": session.splits.test}
    metrics = {name: session.evaluate(classifier, data) for name, data in splits.items() if data is not None}
    directory, history = session.directory, tuple(session.history)
    write_atomically(directory / "history.csv", history_csv(history))
    if history:
        draw_curves(history, directory / "curves.png", session.config.name)
    _draw_examples(session, classifier)
    which = f"best step {best_step:,}"
    if isinstance(classifier, EnsembleClassifier):
        which = "each member at its best step" if session.splits.validation else f"step {best_step:,}"
        if metrics:
            _report_members(session, classifier, list(metrics)[-1], reporter)
    seconds = {kind: round(value, 3) for kind, value in session.clock.seconds.items()}
    result = {"best_step": best_step, "metrics": metrics, "seconds": seconds, "device": classifier.record.device}
    write_atomically(directory / "result.json", json.dumps(result, indent=2) + "\n")
    reporter.say(metrics_table(list(metrics.items()), f"{session.config.name}, {which}"))
    for line in frozen_lines(classifier.record):
        reporter.say(line)
    spent = "  ".join(f"{kind} {value:.1f} s" for kind, value in seconds.items())
    reporter.say(f"{spent}  total {session.clock.total_seconds():.1f} s")
    return Result(session.config, directory, classifier, history, metrics, best_step, seconds)


def _report_members(session: Session, classifier: EnsembleClassifier, split: str, reporter: Reporter) -> None:
    """Shows the members beside what they make together on a split, and leaves tables and a reliability diagram."""
    data = getattr(session.splits, split)
    title = f"{session.config.name}: {len(classifier.members)} members on {data.name}"
    with session.clock.measure("eval"):
        table = report_members(classifier, data, split, session.directory, title)
    reporter.say(table)


def _draw_examples(session: Session, classifier: Classifier) -> None:
    """Leaves an image to try `engine predict` on, and a grid of predictions, where the examples are pictures."""
    data = session.splits.test or session.splits.validation
    if data is None or data.images.dtype != "uint8" or data.images.shape[-1] not in (1, 3):
        return
    save_picture(data.images[0], session.directory / "example.png")
    if data.num_classes:
        title = f"{session.config.name} on {data.name}"
        probabilities = classifier.fitting_outputs(np.asarray(data.images[:9]), 0, 0)
        draw_predictions(data, probabilities, session.directory / "predictions.png", title)


def _opening(session: Session, resumed: Record | None) -> str:
    splits = session.splits
    named = (("training", splits.train), ("validation", splits.validation), ("test", splits.test))
    counts = ", ".join(f"{len(data):,} {name}" for name, data in named if data is not None)
    plan = "stepwise" if session.plan.is_stepwise else f"{session.plan.lowering} lowering, whole epochs compiled"
    size = f"{splits.train.images.nbytes / 1e6:,.0f} MB of training images"
    members, size_of_model = session.config.train.members, f"{session.num_params:,}"
    if members > 1:
        size_of_model, plan = f"{members} members of {size_of_model}", f"{plan}; members by {session.plan.members}"
    lines = [
        f"{session.config.name}: {size_of_model} parameters; {counts} images of {splits.train.name}",
        f"{session.device}; {plan}; {size} {session.plan.placement}",
    ]
    if session.config.finetune.freezes:
        trained = f"{session.trainer.num_trained:,} of {session.num_params:,}"
        lines.append(f"{trained} parameters train, the others are frozen")
    if not session.devices.is_one:
        lines.append(session.devices.text(session.config.train.batch_size))
    if resumed and resumed.plan.mesh != session.plan.mesh:
        before, now = resumed.plan.mesh or "one device", session.plan.mesh or "one device"
        lines.append(f"until now on {before}, from here on {now}: results agree with those there up to rounding")
    if session.device.startswith("gpu") and not session.config.train.deterministic:
        lines.append("sums may differ in their last bits from run to run on a GPU; --train.deterministic prevents it")
    if session.config.augment.is_active:
        lines.append(f"augmentation: {augmentation_text(session.config.augment)}")
    if resumed:
        done = f"{resumed.step:,} steps are done"
        is_over = session.is_done
        lines.append(f"{done}: nothing left to train" if is_over else f"resuming: {done} of {session.total_steps:,}")
    return "\n".join(lines)

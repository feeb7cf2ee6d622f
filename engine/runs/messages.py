"""What a run reports: its opening lines, its progress, and at the end tables, pictures and result files."""

import json
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
from flax import nnx

from engine.checkpoints.record import Record
from engine.config import RunConfig, mesh_shape
from engine.config.finetune import freezings, shortened
from engine.config.optim import BASE_BATCH_SIZE
from engine.config.sweep import swept_columns
from engine.host.storage import write_atomically
from engine.host.versions import versions
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.metrics.pairs import count_pairs
from engine.metrics.plateau import describe_drop
from engine.metrics.stopping import member_best_step
from engine.processes.together import is_first
from engine.report.augmentation import augmentation_text
from engine.report.confusion import draw_confusion, limit_examples
from engine.report.folds import report_folds
from engine.report.history import draw_curves, history_csv
from engine.report.members import find_member_outputs, frozen_lines, report_members
from engine.report.pictures import Pictures, choose_examples, draw_predictions, save_picture
from engine.report.progress import Reporter, epoch_text
from engine.report.sweep import report_sweep
from engine.report.tables import metrics_table
from engine.runs.epoch import Epoch
from engine.runs.fold_members import Folds, summarize
from engine.runs.result import Result
from engine.runs.session import Session

LEAST_SECONDS = 0.05  # of a kind of work, to be listed


def report_opening(session: Session, resumed: Record | None, notes: list[str], reporter: Reporter) -> None:
    """Prints what is about to be trained, and logs from here on."""
    reporter.log_to(session.directory / "log.txt")
    reporter.say("\n".join([*_describe(session), *_describe_resumed(session, resumed)]))
    reporter.detail(_describe_plan(session))
    for note in notes:
        reporter.say(note)
    session.report_to(reporter.say)


def report_progress(session: Session, reporter: Reporter) -> None:
    """Moves the progress line."""
    pacer, left_steps = session.pacer, session.total_steps - session.step
    reporter.advance(
        session.course_step,
        session.course_step + left_steps,
        session.config.train.epochs,
        session.images_per_second,
        session.training_metrics(),
        left_steps * pacer.seconds_per_step if pacer.is_settled else None,
        session.config.train.shown_metrics,
    )


def report_epoch(session: Session, epoch: Epoch, reporter: Reporter) -> None:
    """Prints the line of an epoch, and another if it lowers the learning rate."""
    train = session.config.train
    usual, diverged = epoch.usual
    shown = epoch.row | usual
    line = epoch_text(shown, epoch.validation, epoch.num_images, train.epochs, train.shown_metrics)
    without = f"  (means without members that diverge: {', '.join(map(str, diverged))})" if diverged else ""
    reporter.epoch_line(line + without)
    drop = describe_drop(session.config, session.history, session.schedule_since)
    if drop and not session.is_done:
        reporter.say(drop)


def finish_report(session: Session, reporter: Reporter, pictures: Pictures) -> Result:
    """Evaluates the best step on every split, prints the metrics, and writes pictures and result files."""
    classifier, best_step = session.best()
    splits = {"validation": session.splits.validation, "test": session.splits.test}
    metrics = {name: session.evaluate(classifier, data) for name, data in splits.items() if data is not None}
    of_folds = session.members.scores() if isinstance(session.members, Folds) else []
    if of_folds:
        metrics = {"validation": summarize(of_folds), **metrics}
    directory, history, name = session.directory, tuple(session.history), session.config.name
    seconds = {kind: round(value, 3) for kind, value in session.clock.seconds.items()}
    if not is_first():
        return Result(session.config, pictures, classifier, history, metrics, best_step, seconds)
    write_atomically(directory / "history.csv", history_csv(history))
    epochs = {row["step"]: row["epoch"] for row in history}
    if history:
        is_one = session.splits.are_validated and not isinstance(classifier, EnsembleClassifier)
        best_epoch = epochs.get(best_step) if is_one else None
        pictures.add("curves.png", partial(draw_curves, history, name, session.config.train.shown_metrics, best_epoch))
    scored = next((name for name in reversed(splits) if splits[name] is not None), None)
    which = f"best epoch {epochs.get(best_step, session.epoch):,} (step {best_step:,})"
    if isinstance(classifier, EnsembleClassifier):
        which = "each member at its best step" if session.splits.are_validated else f"step {best_step:,}"
        columns = swept_columns(session.config)
        if columns and session.splits.validation:
            reporter.say(report_sweep(session.config, columns, history, directory / "sweep.csv"))
        if of_folds:
            _report_folds(session, of_folds, metrics["validation"], reporter)
    if scored is not None:
        _report_outputs(session, classifier, scored, pictures, reporter)
    seconds = {kind: round(value, 3) for kind, value in session.clock.seconds.items()}
    result = {"best_step": best_step, "metrics": metrics, "seconds": seconds, "device": classifier.record.device}
    write_atomically(directory / "result.json", json.dumps(result, indent=2) + "\n")
    reporter.say(metrics_table(list(metrics.items()), f"{name}, {which}"))
    for line in frozen_lines(classifier.record):
        reporter.say(line)
    spent = "  ".join(f"{kind} {value:.1f} s" for kind, value in seconds.items() if value >= LEAST_SECONDS)
    reporter.say(f"{spent}  total {session.clock.total_seconds():.1f} s")
    return Result(session.config, pictures, classifier, history, metrics, best_step, seconds)


def _report_outputs(
    session: Session, classifier: Classifier, split: str, pictures: Pictures, reporter: Reporter
) -> None:
    """What the model says of every example of a split: pictures, and of an ensemble tables and a diagram."""
    data, name = getattr(session.splits, split), session.config.name
    outputs = None
    with session.clock.measure("eval"):
        if isinstance(classifier, EnsembleClassifier):
            of_members = find_member_outputs(classifier, data)
            title = f"{name}: {len(classifier.members)} members on {data.name}"
            reporter.say(report_members(classifier, data, of_members, split, pictures, title))
            outputs = classifier.combined(of_members)
        elif data.task == "classes":
            data = limit_examples(data, classifier.record.num_outputs)
            outputs = classifier.outputs(data.images)
    is_picture = data.images.dtype == "uint8" and data.images.shape[-1] in (1, 3)
    if is_picture:
        save_picture(np.asarray(data.images[0]), pictures.directory / "example.png")  # to try `engine predict` on
    if data.task != "classes" or outputs is None:
        return
    title = f"{name} on {data.name}"
    if is_picture:
        pictures.add("predictions.png", partial(draw_predictions, choose_examples(data, outputs, title)))
    confusion = count_pairs(data.class_numbers, outputs.argmax(1), data.weights, outputs.shape[1])
    pictures.add("confusion.png", partial(draw_confusion, confusion, data.class_names, title))


def _report_folds(session: Session, scores: list[dict[str, Any]], summary: dict[str, Any], reporter: Reporter) -> None:
    """Prints the scores of the folds with their mean and deviation, and writes them."""
    title = f"{session.config.name}: {len(scores)} folds of {session.splits.train.name}"
    steps = [member_best_step(session.config.train, session.history, k) for k in range(len(scores))]
    reporter.say(report_folds(scores, summary, steps, session.directory / "folds.csv", title))


def _describe(session: Session) -> list[str]:
    splits, config = session.splits, session.config
    named = (("training", splits.train), ("validation", splits.validation), ("test", splits.test))
    counts = ", ".join(f"{len(data):,} {name}" for name, data in named if data is not None)
    if config.train.folds is not None and config.train.fold is None:
        counts = counts.replace(" training", f" in {config.train.folds} folds", 1)
    model = f"{session.setup.model.num_params:,} parameters"
    if config.train.members > 1:
        model = f"{config.train.members} members of {model}"
    lines = [f"{config.name}: {model}; {counts} images of {splits.train.name}", f"on {session.device}"]
    if config.finetune.freezes:
        trained = f"{session.stage.num_trained:,} of {session.setup.model.num_params:,}"
        lines += [f"{trained} parameters train, the others are frozen", *_freezing_lines(session)]
    if config.optim.scale_rate_with is not None:
        lines.append(_describe_rate(config))
    if not session.setup.devices.is_one:
        lines.append(session.setup.devices.text(config.train.batch_size))
    if (every := config.train.average_every) > 1:
        lines.append(f"each of these trains by itself, and weights are averaged every {every} steps (local SGD)")
    return lines


def _describe_rate(config: RunConfig) -> str:
    """The learning rate that the batch size gives."""
    scaled, size = config.scaled_optim, f"{config.train.batch_size:,}"
    given = f"optim.learning_rate {config.optim.learning_rate:g} is for a batch of {BASE_BATCH_SIZE}"
    if scaled.schedule == "one_cycle":
        return f"learning rate {scaled.learning_rate:g} for batches of {size}: {given}"
    warmup = f"after a warm-up of {scaled.warmup_epochs:g} epochs" if scaled.warmup_epochs else "without a warm-up"
    if scaled.warmup_epochs > config.train.epochs:
        warmup += f", longer than the run of {config.train.epochs:,}, which does not reach it"
    return f"learning rate {scaled.learning_rate:g} for batches of {size}, {warmup}: {given}"


def _describe_plan(session: Session) -> str:
    """How the run is executed."""
    plan, members = session.plan, session.config.train.members
    how = "stepwise" if plan.is_stepwise else f"{plan.lowering} lowering, whole epochs compiled"
    mapping = f"; members by {plan.member_mapping}" if members > 1 else ""
    return f"{how}{mapping}; {session.splits.train.images.nbytes / 1e6:,.0f} MB of training images {plan.placement}"


def _freezing_lines(session: Session) -> list[str]:
    """What each pattern froze at the start, with counts."""
    layers, params = session.setup.model.layers, session.setup.model.shapes[0]
    counts = Counter[str]()
    for path, leaf in nnx.to_flat_state(params):
        counts[layers.of(path)] += leaf.size  # type: ignore[union-attr]
    return [
        f"  frozen by {why}: {shortened([each.name for each in frozen])}"
        f" ({len(frozen):,} of {len(layers.all):,} layers, {sum(counts[each.name] for each in frozen):,} parameters)"
        for why, frozen in freezings(session.config.finetune, layers.all).items()
    ]


def _changed_versions(resumed: Record, device: str) -> str:
    """`with jax 0.9.1 (now 0.10.2), on …` of packages and the device that were others, where a run was saved."""
    now, before = versions(), resumed.versions
    names = [name for name in now if name in before and before[name] != now[name]]
    found = ["with " + ", ".join(f"{name} {before[name]} (now {now[name]})" for name in names)] if names else []
    if resumed.device not in ("", device):
        found.append(f"on {resumed.device} (now {device})")
    return " ".join(found)


def _describe_resumed(session: Session, resumed: Record | None) -> list[str]:
    lines, config = [], session.config
    if resumed and resumed.plan.mesh != session.plan.mesh:
        before, now = resumed.plan.mesh or "one device", session.plan.mesh or "one device"
        is_same = (
            config.train.average_every == 1 or mesh_shape(resumed.plan.mesh)[1] == mesh_shape(session.plan.mesh)[1]
        )
        how = "agree with those there up to rounding" if is_same else "are others: fewer or more models are averaged"
        lines.append(f"until now on {before}, from here on {now}: results {how}")
    if resumed and (others := _changed_versions(resumed, session.device)):
        lines.append(f"until now {others}: the bits that follow may not be those of a run without a stop")
    if session.device.startswith("gpu") and not config.train.deterministic:
        lines.append("sums may differ in their last bits from run to run on a GPU; --train.deterministic prevents it")
    if config.augment.is_active:
        lines.append(f"augmentation: {augmentation_text(config.augment)}")
    if resumed:
        done = f"{resumed.step:,} steps are done"
        is_over = session.is_done
        lines.append(f"{done}: nothing left to train" if is_over else f"resuming: {done} of {session.total_steps:,}")
    return lines

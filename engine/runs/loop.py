"""The story of a run: RunConfig → Splits → Session → compiled chunks of steps → history and checkpoints → Result."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.checkpoints.record import Record
from engine.checkpoints.run_directory import open_run
from engine.checkpoints.steps import choose_step, read_record
from engine.config import RunConfig
from engine.data.decoded.dataset import Splits
from engine.devices.precision import computes
from engine.host.clock import Clock
from engine.inference.classifier import Classifier
from engine.report.pictures import Pictures
from engine.report.progress import Reporter, Silent
from engine.runs.alike import check_same_data, check_same_start, load_in_turn
from engine.runs.callbacks import Callbacks, LiveRun, make_callbacks
from engine.runs.checks import check_parameter_order
from engine.runs.inputs import follow_record, load_inputs, longer_config, match_to_data
from engine.runs.messages import finish_report, report_epoch, report_opening, report_progress
from engine.runs.needed_kernels import begin_kernels
from engine.runs.plan_search import search_plan
from engine.runs.result import Result
from engine.runs.saver import saving, start_directory
from engine.runs.session import Session
from engine.runs.together import as_one_voice, claim, record_from_first, report_other_views
from engine.trackers.table import Log


def run(
    config: RunConfig,
    run_dir: str | os.PathLike[str] | None = None,
    *,
    splits: Splits | None = None,
    resume: bool = False,
    overwrite: bool = False,
    allow_change: Sequence[str] = (),
    callbacks: Sequence[Any] = (),
    log: Log = (),
    reporter: Reporter | None = None,
) -> Result:
    """Trains what `config` describes, in `run_dir` (default runs/<name>), and evaluates its best step.

    splits: data at hand, in place of what the config names.
    resume: continue the run in that directory, if there is one. overwrite: remove it and start from scratch.
    allow_change: settings that a resumed run may have another value of, like "optim.learning_rate".
    callbacks: called while it trains (engine.Callback), after those that the config names.
    log: what it is logged to while it trains: "tensorboard", "wandb", "mlflow", or several of them.
    Raises InputError for anything in the config, the data or the directory that cannot be used, and Interrupted, a
    KeyboardInterrupt, after Ctrl-C or SIGTERM, once everything is saved.
    """
    reporter, clock = as_one_voice(reporter or Reporter()), Clock()
    calls = make_callbacks(config, callbacks, log)
    check_same_start(config)
    with claim(run_dir or f"runs/{config.name}") as directory:
        record = record_from_first(lambda: open_run(directory, config, resume, overwrite, reporter.say, allow_change))
        report_other_views(directory, reporter.say)
        config = follow_record(config, record, reporter.say, allow_change) if record else config
        begin_kernels(config)
        with clock.measure("data"):
            loaded = load_in_turn(lambda: load_inputs(config, splits, record, reporter.say))
        return train(config, loaded, directory, clock, reporter, record, overwrite, callbacks=calls)


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
    callbacks: Sequence[Any] = (),
    pictures: Pictures | None = None,
) -> Result:
    """Trains on data that is already loaded, in a directory that `open_run` has checked.

    source: a model at hand to start from, in place of what the config names. callbacks: all of them, made.
    pictures: those of a directory that nobody sees yet, which may wait.
    """
    undivided, reporter, pictures = splits, as_one_voice(reporter), pictures or Pictures(directory)
    if resumed is None:  # earlier versions trained with them
        check_parameter_order(config)
    config, splits, notes = match_to_data(config, splits, source and source.record, resumed)
    with clock.measure("plan"):
        plan = None if resumed else search_plan(config, splits.train, reporter.say)
    check_same_data(splits)
    session = Session(config, splits, clock, directory, resumed, plan, source)
    start_directory(session, resumed, overwrite)
    report_opening(session, resumed, notes, reporter)
    calls = Callbacks(callbacks, LiveRun(session, reporter.say), resumed)
    with closing(calls):
        _train_to_end(session, calls, reporter)
        result = calls.finish(finish_report(session, reporter, pictures))
    return replace(result, _resume=partial(_train_on, undivided, callbacks, pictures), _splits=splits)


def _train_to_end(session: Session, calls: Callbacks, reporter: Reporter) -> None:
    with (
        closing(session),
        reporter.progress(session.total_steps + session.setup.steps_ahead, session.course_step),
        saving(session, calls, reporter) as saver,
    ):
        while not session.is_done:
            session.train_chunk(saver.steps_left())
            report_progress(session, reporter)
            if session.position:  # within an epoch
                saver.save_if_due()
            else:
                epoch = session.finish_epoch()
                report_epoch(session, epoch, reporter)
                saver.save_epoch(epoch)
            saver.stop_if_asked()


def _train_on(
    splits: Splits,
    callbacks: Sequence[Any],
    pictures: Pictures,
    result: Result,
    epochs: int,
    patience: int | None,
    verbose: bool,
) -> Result:
    with claim(pictures.directory) as directory:
        last = record_from_first(lambda: read_record(directory, choose_step(directory, "last")))
        assert last is not None
        config = longer_config(last, result.history, epochs, patience)
        last = replace(last, is_stopped=False)
        reporter = Reporter() if verbose else Silent()
        return train(config, splits, directory, Clock(), reporter, last, callbacks=callbacks, pictures=pictures)

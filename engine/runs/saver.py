"""When a run saves and stops, and what it writes into its directory while it trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.checkpoints.record import Record
from engine.checkpoints.run_directory import clear_run, write_config, write_skipped
from engine.checkpoints.saving import Checkpoints, NoCheckpoints, Saves, SaveTimes
from engine.data.load import skipped_files
from engine.host.interrupts import Interrupted, StopRequest, defer_signals
from engine.host.storage import write_atomically
from engine.processes.together import agree, from_first, is_first
from engine.report.history import history_csv
from engine.report.progress import Reporter
from engine.runs.callbacks import CallbackFailed, Callbacks
from engine.runs.epoch import Epoch
from engine.runs.session import Session
from engine.runs.together import save_in_shares


def start_directory(session: Session, resumed: Record | None, overwrite: bool) -> None:
    """Writes the config and the list of skipped files; to overwrite, first removes the earlier run."""
    if not is_first():
        return
    if overwrite:  # only now, when config, data and model are known to go together
        clear_run(session.directory)
    if resumed is None or not resumed.is_complete_for(session.config):
        write_config(session.directory, session.config)
    write_skipped(session.directory, skipped_files(session.splits))


@contextmanager
def saving(session: Session, callbacks: Callbacks, reporter: Reporter) -> Iterator["Saver"]:
    """A Saver. What it saves is on disk when the block ends, and only then do SIGINT and SIGTERM act."""
    checkpoints, is_shared = NoCheckpoints(), save_in_shares(session.directory, session.state, reporter.say)
    if is_first() or is_shared:
        of_run = session.directory, session.config.checkpoint
        checkpoints = Checkpoints(*of_run, reporter.say, reporter.log, is_shared)
    with checkpoints, defer_signals() as stop:
        saver = Saver(session, checkpoints, stop, callbacks)
        try:
            callbacks.call("on_run_begin")
            yield saver
            saver.finish(reporter)
            callbacks.call("on_run_end")
        except CallbackFailed:
            saver.save_as_is()
            raise


class Saver:
    """Saves a session at the times that its config names, and stops it after a signal."""

    def __init__(self, session: Session, checkpoints: Saves, stop: StopRequest, callbacks: Callbacks):
        self._session, self._checkpoints, self._request, self._callbacks = session, checkpoints, stop, callbacks
        self._times, self._stop = SaveTimes(session.config.checkpoint), 0  # the signal that all processes act on
        self._validation: dict[str, Any] | None = None  # of the present step, at the end of an epoch

    def steps_left(self) -> int | None:
        """Steps until the next save by step number; None if the config asks for none."""
        return self._times.steps_left(self._session.step)

    def save_if_due(self) -> None:
        """Saves in the middle of an epoch, if it is time or a callback ends the run."""
        self._callbacks.call("on_step_chunk_end")
        if self._agree(self._times.is_due(self._session.step)) or self._session.is_stopped:
            self._save()

    def save_epoch(self, epoch: Epoch) -> None:
        """Saves at the end of an epoch, if the config says so, training ends or a stop was requested."""
        session, self._validation = self._session, epoch.validation
        self._callbacks.call("on_step_chunk_end")
        self._callbacks.call("on_epoch_end")
        self._agree()
        if self._times.is_due_after(session.epoch) or session.is_done or self._stop:
            self._save()
        self._validation = None
        if is_first():
            write_atomically(session.directory / "history.csv", history_csv(session.history))

    def stop_if_asked(self) -> None:
        """Raises Interrupted, with everything saved, if a stop was requested while steps are left to train."""
        if self._stop and not self._session.is_done:
            self._save_and_stop()

    def finish(self, reporter: Reporter) -> None:
        """Saves an untrained model of 0 epochs and waits until everything is on disk; then stops if requested."""
        session, train = self._session, self._session.config.train
        if session.step == 0 and not session.is_resumed:
            self._validation = session.validate()
            self._save()
        if session.is_stopped:
            reporter.say(f"stopped by a callback at step {session.step:,} of {session.total_steps:,}")
        elif session.epoch < train.epochs:
            reporter.say(f"stopped early: no better epoch in the last {train.patience}")
        self._checkpoints.wait()
        self._agree()
        if self._stop:
            self._save_and_stop()
        session.close()  # nothing more is trained, so nothing more is read ahead

    def save_as_is(self) -> None:
        """Saves after a callback failed, with the states of callbacks that were last read."""
        if self._session.step:
            self._session.save(self._checkpoints, self._validation, self._callbacks.states or None)
            self._checkpoints.wait()

    def _agree(self, is_due: bool = False) -> bool:
        """Whether a save is due in any process. A request to stop, of a signal or a callback, is one of all."""
        number, due, is_stopped = agree(self._request.signal_number or 0, is_due, self._session.is_stopped)
        self._stop, self._session.is_stopped = int(number), bool(is_stopped)
        return bool(due)

    def _save(self) -> None:
        self._session.save(self._checkpoints, self._validation, self._callbacks.read_states())
        self._times.saved()
        if self._callbacks.waits_for_saves:
            self._checkpoints.wait()
            self._callbacks.call("on_save")

    def _save_and_stop(self) -> None:
        session, number = self._session, self._stop
        self._save()
        from_first(self._checkpoints.wait)  # who has nothing to write would end the run before process 0 has written
        raise Interrupted(f"stopped and saved at step {session.step:,} of {session.total_steps:,}", number)

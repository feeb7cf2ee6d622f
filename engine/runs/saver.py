"""When a run saves and stops, and what it writes into its directory while it trains."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.checkpoints.record import Record
from engine.checkpoints.run_directory import clear_run, write_config, write_skipped
from engine.checkpoints.saving import Checkpoints, SaveTimes
from engine.data.load import skipped_files
from engine.host.interrupts import Interrupted, StopRequest, defer_signals
from engine.host.storage import write_atomically
from engine.report.history import history_csv
from engine.report.progress import Reporter
from engine.runs.session import Epoch, Session


def start_directory(session: Session, resumed: Record | None, overwrite: bool) -> None:
    """Writes the config and the list of skipped files; to overwrite, first removes the earlier run."""
    if overwrite:  # only now, when config, data and model are known to go together
        clear_run(session.directory)
    if resumed is None or not resumed.is_complete_for(session.config):
        write_config(session.directory, session.config)
    write_skipped(session.directory, skipped_files(session.splits))


@contextmanager
def saving(session: Session, reporter: Reporter) -> Iterator["Saver"]:
    """A Saver. What it saves is on disk when the block ends, and only then do SIGINT and SIGTERM act."""
    checkpoints = Checkpoints(session.directory, session.config.checkpoint, reporter.say, reporter.log)
    with checkpoints, defer_signals() as stop:
        saver = Saver(session, checkpoints, stop)
        yield saver
        saver.finish(reporter)


class Saver:
    """Saves a session at the times that its config names, and stops it after a signal."""

    def __init__(self, session: Session, checkpoints: Checkpoints, stop: StopRequest):
        self._session, self._checkpoints, self._stop = session, checkpoints, stop
        self._times = SaveTimes(session.config.checkpoint)

    def steps_left(self) -> int | None:
        """Steps until the next save by step number; None if the config asks for none."""
        return self._times.steps_left(self._session.step)

    def save_if_due(self) -> None:
        """Saves in the middle of an epoch, if it is time."""
        if self._times.is_due(self._session.step):
            self._save()

    def save_epoch(self, epoch: Epoch) -> None:
        """Saves at the end of an epoch, if the config says so, training ends or a stop was requested."""
        session = self._session
        if self._times.is_due_after(session.epoch) or session.is_done or self._stop:
            self._save(epoch.validation)
        write_atomically(session.directory / "history.csv", history_csv(session.history))

    def stop_if_asked(self) -> None:
        """Raises Interrupted, with everything saved, if a stop was requested while steps are left to train."""
        if self._stop and not self._session.is_done:
            self._save_and_stop()

    def finish(self, reporter: Reporter) -> None:
        """Saves an untrained model of 0 epochs and waits until everything is on disk; then stops if requested."""
        session, train = self._session, self._session.config.train
        if train.epochs == 0 and not session.is_resumed:
            self._save(session.validate())
        if session.epoch < train.epochs:
            reporter.say(f"stopped early: no better epoch in the last {train.patience}")
        self._checkpoints.wait()
        if self._stop:
            self._save_and_stop()
        session.close()  # nothing more is trained, so nothing more is read ahead

    def _save(self, validation: dict | None = None) -> None:
        self._session.save(self._checkpoints, validation)
        self._times.saved()

    def _save_and_stop(self) -> None:
        session, number = self._session, self._stop.signal_number
        assert number is not None
        self._save()
        self._checkpoints.wait()
        raise Interrupted(f"stopped and saved at step {session.step:,} of {session.total_steps:,}", number)

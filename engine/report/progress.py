"""Progress of a run: a live line on a terminal, plain lines elsewhere; everything reported is also logged."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from engine.host.console import Console, Table, as_text, tell
from engine.host.storage import open_own
from engine.report.notebook import NotebookLine, show_in_notebook
from engine.report.tables import format_metric
from engine.text import printable, rate_text

LINE_SECONDS = 10.0
USUAL_METRICS = ("loss", "accuracy")


class Reporter:
    """Reports to a console, and to a log file once `log_to` names one. is_verbose: also how a run is executed."""

    def __init__(self, console: Console | None = None, is_verbose: bool = False):
        self.console, self.is_verbose = console or Console(), is_verbose
        self._log: Path | None = None
        self._unlogged: list[str] = []
        self._live: Progress | NotebookLine | None = None
        self._last_line = time.monotonic()

    def log_to(self, path: Path) -> None:
        """Appends all messages, including earlier ones, to a file."""
        self._log = path
        for text in self._unlogged:
            self.log(text)
        self._unlogged = []

    def say(self, message: Any) -> None:
        """Prints a text or a table."""
        if self._is_notebook and isinstance(message, Table):
            show_in_notebook(message)
        elif not self.console.quiet:  # which would lay out a table of a thousand members for no one
            self.console.print(message, soft_wrap=isinstance(message, str))
        self.log(message if isinstance(message, str) else as_text(message))

    def detail(self, text: str) -> None:
        """Logs a text, and prints it if the reporter is verbose."""
        (self.say if self.is_verbose else self.log)(text)

    @contextlib.contextmanager
    def progress(self, total_steps: int, done_steps: int) -> Iterator[None]:
        """Shows the line that `advance` updates, if there is a terminal or a notebook."""
        if self._is_notebook:
            self._live = NotebookLine()
            try:
                yield
            finally:
                self._live.close()
                self._live = None
            return
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[numbers]}"), _Remaining(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as live:
            self._live = live
            live.add_task("starting", total=total_steps, completed=done_steps, numbers="compiling …", eta=None)
            try:
                yield
            finally:
                self._live = None

    def advance(
        self,
        step: int,
        total_steps: int,
        epochs: int,
        images_per_second: float,
        metrics: dict[str, Any],
        eta: float | None,
        shown: Sequence[str] = USUAL_METRICS,
    ) -> None:
        """Updates the live line; without a terminal prints a plain one every ten seconds. eta: seconds, if known."""
        epoch = progress_text(step, total_steps, epochs)
        numbers = f"{rate_text(images_per_second)}  {metrics_text(metrics, shown)}"
        if isinstance(self._live, NotebookLine):
            self._live.show(f"{epoch}  {numbers}  {_eta_text(eta)}".rstrip(), step, total_steps)
        elif self._live is not None:
            first = self._live.task_ids[0]
            self._live.update(first, description=epoch, completed=step, total=total_steps, numbers=numbers, eta=eta)
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self.say(f"{epoch}  {numbers}  {_eta_text(eta)}".rstrip())
            self._last_line = time.monotonic()

    def epoch_line(self, text: str) -> None:
        """Reports the result of an epoch."""
        self.say(text)
        self._last_line = time.monotonic()

    @property
    def _is_notebook(self) -> bool:
        return self.console.is_jupyter and not self.console.quiet

    def log(self, text: str) -> None:
        """Writes a text to the log only."""
        if self._log is None:
            self._unlogged.append(text)
            return
        with open_own(self._log, "a") as file:
            file.write(printable(text).rstrip() + "\n")


class Silent(Reporter):
    """Prints only warnings, to stderr."""

    def __init__(self):
        super().__init__(Console(quiet=True))

    def say(self, message: Any) -> None:
        """Keeps a message for the log."""
        super().say(message)
        if isinstance(message, str) and message.startswith("warning: "):
            tell(message)


class Mute(Reporter):
    """Prints and logs nothing."""

    def __init__(self):
        super().__init__(Console(quiet=True))

    def log_to(self, path: Path) -> None:
        """Nowhere."""

    def say(self, message: Any) -> None:
        """Drops a message."""

    def log(self, text: str) -> None:
        """Drops a text."""


class _Remaining(ProgressColumn):
    """Time left at the current rate."""

    def render(self, task: Task) -> Text:
        return Text(_eta_text(task.fields.get("eta")))


def _eta_text(eta: float | None) -> str:
    return "" if eta is None else f"ETA {duration_text(eta)}"


def progress_text(step: int, total_steps: int, epochs: int) -> str:
    """`epoch 2/5  45 %`: the epoch that this step, counted from 1, is in, and how much of that is done."""
    steps_per_epoch = total_steps // epochs
    number = max(-(-step // steps_per_epoch), 1)
    share = (step - (number - 1) * steps_per_epoch) / steps_per_epoch
    return f"epoch {number}/{epochs}  {share:4.0%}".replace("%", " %")


def metrics_text(metrics: dict[str, Any], shown: Sequence[str], prefix: str = "") -> str:
    """`loss 0.4310  accuracy 0.8456`."""
    return "  ".join(f"{prefix}{name} {format_metric(name, metrics[name])}" for name in shown if name in metrics)


def epoch_text(
    row: dict[str, Any],
    validation: dict[str, Any],
    num_examples: int,
    epochs: int,
    shown: Sequence[str] = USUAL_METRICS,
) -> str:
    """The result of an epoch, on one line."""
    rate = num_examples / row["seconds"] if row["seconds"] else 0.0
    where = f"epoch {row['epoch']}/{epochs}  {duration_text(row['seconds'])}  {rate_text(rate)}"
    return f"{where}  {metrics_text(row, shown)}  {metrics_text(validation, shown, 'val ')}".rstrip()


def duration_text(seconds: float) -> str:
    """`1:02:03`, `2:03` or `0:03`."""
    whole = max(round(seconds), 0)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"

"""Runs beside each other: read from their records, chosen, sorted and compared."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.checkpoints.packing import record_of
from engine.checkpoints.record import Record
from engine.checkpoints.steps import step_directories
from engine.config.scoring import METRICS
from engine.errors import InputError, problem, unknown
from engine.host.console import Shortened, Table
from engine.host.json_files import read_json
from engine.metrics.stopping import rank, validation_history
from engine.models import Sequential
from engine.models.summary import settings_text
from engine.report.history import read_history
from engine.report.tables import format_metric
from engine.text import printable

MOST_RUNS = 10_000  # that are looked at below a directory
SHOWN_FIELDS = 60  # in which runs differ
CONDITION = re.compile(r"([\w.\-]+)(<=|>=|=|<|>)(.*)", re.DOTALL)
COMPARED = {
    "<": lambda a, b: a < b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip


@dataclass(frozen=True)
class RunFacts:
    """A run as one line of a list.

    values: epochs, members, seconds of training, validation metrics of its best epoch by name, those of its test as
      test_…, and when it was last saved (changed, seconds since 1970). settings: dotted field of the config → value.
    """

    path: Path
    is_complete: bool
    epochs_asked: int
    values: dict[str, float]
    settings: dict[str, Any]
    history: tuple[dict[str, Any], ...] = ()

    def find(self, name: str) -> Any:
        """A value or setting by name; None where this run has none of that name."""
        return self.values.get(name, self.settings.get(name))


def find_runs(place: Path) -> list[Path]:
    """The directory itself if it is a run, else the runs right in it and in its folders; links are not followed."""
    if step_directories(place):
        return [place]
    inner = [entry for entry in _folders(place) if entry.name[0] != "."]
    found = [path for entry in inner for path in ([entry] if step_directories(entry) else _folders(entry))]
    return [path for path in found[:MOST_RUNS] if step_directories(path)]


def read_run(path: Path) -> RunFacts:
    """The facts of a run, of its last record; raises InputError if that cannot be read."""
    record = record_of(path, "last")
    record = replace(record, history=tuple(read_history(record.history)))
    train, history = record.config.train, record.history
    values: dict[str, float] = {"epochs": record.epochs_done, "members": train.members}
    values["seconds"] = float(sum(_number(row.get("seconds")) or 0.0 for row in history))
    values |= _find_scores(record) | _read_test(path)
    with contextlib.suppress(OSError):
        values["changed"] = step_directories(path)[-1].stat().st_mtime
    settings, model = _flatten(record.config.to_json()), record.config.model
    if isinstance(model, Sequential):  # as people write it
        settings["model.layers"] = [
            f"{type(each.layer).__name__} {settings_text(each.layer)}".strip() for each in model.named
        ]
    return RunFacts(path, record.is_complete, train.epochs, values, settings, history)


def choose(runs: Sequence[RunFacts], conditions: Sequence[str]) -> list[RunFacts]:
    """The runs for which all conditions hold: FIELD=VALUE, or < > <= >= with numbers.

    Raises InputError for what is no condition, and for names that no run has.
    """
    chosen = list(runs)
    for text in conditions:
        found = CONDITION.fullmatch(text)
        if found is None:
            rule = "FIELD=VALUE, or < > <= >= with a number"
            raise InputError(problem("where", repr(text), rule, 'Give it like "accuracy>0.9" or data.name=mnist.'))
        name, sign, wanted = _field(found[1]), found[2], found[3].strip()
        _check_known("where", name, runs)
        chosen = [run for run in chosen if _holds(run.find(name), sign, wanted)]
    return chosen


def sort_runs(runs: Sequence[RunFacts], by: str) -> list[RunFacts]:
    """The runs by a value or setting: metrics the best first, changed the newest first, others the least first."""
    name = _field(by)
    _check_known("sort", name, runs)
    facts = METRICS.get(name.removeprefix("test_"))
    is_falling = name == "changed" or (facts is not None and facts.best_is == "highest")
    having = [run for run in runs if run.find(name) is not None]
    are_numbers = all(_number(run.find(name)) is not None for run in having)
    having.sort(key=lambda run: run.find(name) if are_numbers else str(run.find(name)), reverse=is_falling)
    return [*having, *(run for run in runs if run.find(name) is None)]


def runs_table(runs: Sequence[RunFacts], title: str) -> Table:
    """One line a run: epochs done, validation metrics of the best epoch, test metrics, and training time."""
    names = [
        name
        for prefix in ("", "test_")
        for name in dict.fromkeys(name for run in runs for name in run.values)
        if name.startswith("test_") == bool(prefix) and name not in ("epochs", "members", "seconds", "changed")
    ]
    table = Table(heading=title)
    table.add_column("run")
    for name in ("data", "epochs"):
        table.add_column(name)
    for name in (*names, "seconds"):
        table.add_column(name.replace("_", " "), justify="right")
    for run in runs:
        epochs = f"{run.values['epochs']:,}" + ("" if run.is_complete else f" of {run.epochs_asked:,}")
        cells = [format_metric(name, run.values[name]) if name in run.values else "" for name in names]
        data = str(run.settings.get("data.path") or run.settings.get("data.name"))
        seconds = f"{run.values['seconds']:,.1f}"
        table.add_row(Shortened(str(run.path)), Shortened(data), epochs, *cells, seconds)
    return table


def differences_table(runs: Sequence[RunFacts]) -> Table:
    """The settings in which runs differ, one line each, one column a run."""
    differing = find_differing(runs)
    table = Table(heading="settings in which they differ" if differing else "they have the same settings")
    table.add_column("setting")
    for run in runs:
        table.add_column(Shortened(str(run.path)))
    for name in differing[:SHOWN_FIELDS]:
        table.add_row(name, *(Shortened(setting_text(run.settings.get(name, ""))) for run in runs))
    if len(differing) > SHOWN_FIELDS:
        table.footnote = f"… and {len(differing) - SHOWN_FIELDS:,} more"
    return table


def find_differing(runs: Sequence[RunFacts]) -> list[str]:
    """The settings of which runs have different values."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    return [name for name in names if len({repr(run.settings.get(name)) for run in runs}) > 1 and name != "name"]


def setting_text(value: Any) -> str:
    """A setting as it is shown: a list without its brackets."""
    return printable(_text(value))


def _folders(place: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink())
    return []


def _find_scores(record: Record) -> dict[str, float]:
    """The validation metrics of the best epoch; of an ensemble those of the last, each member at its best."""
    rows, train = validation_history(record.history), record.config.train
    if not rows:
        return {}
    best = rows[-1] if train.members > 1 else max(rows, key=lambda row: rank(train, row))
    return {name: best[name] for name in train.shown_metrics if _number(best.get(name)) is not None}


def _read_test(path: Path) -> dict[str, float]:
    """The test metrics that the run has left."""
    with contextlib.suppress(InputError):
        found = read_json(path / "result.json", "the JSON of a run's result", "Ignore it.")
        for name in ("metrics", "test"):  # of a stranger's file
            found = found.get(name) if isinstance(found, dict) else None
        metrics = found if isinstance(found, dict) else {}
        names = [name for name in ("loss", "accuracy") if _number(metrics.get(name)) is not None]
        return {f"test_{name}": float(metrics[name]) for name in names}
    return {}


def _flatten(value: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {where: value}
    inner = (_flatten(each, f"{where}.{name}" if where else name) for name, each in value.items())
    return {name: each for found in inner for name, each in found.items() if not name.endswith(("kind", "version"))}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _holds(value: Any, sign: str, wanted: str) -> bool:
    try:
        number = float(wanted)
    except ValueError:
        return sign == "=" and _text(value).lower() == wanted.lower()
    if _number(value) is None:
        return sign == "=" and _text(value) == wanted
    return value == number if sign == "=" else COMPARED[sign](value, number)


def _text(value: Any) -> str:
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _field(name: str) -> str:
    return name.replace("-", "_")


def _check_known(option: str, name: str, runs: Sequence[RunFacts]) -> None:
    known = sorted({each for run in runs for each in (*run.values, *run.settings)})
    if runs and name not in known:
        raise InputError(unknown(option, name, known))

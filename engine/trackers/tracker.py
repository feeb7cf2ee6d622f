"""Tracker: a callback that logs a run to a program that compares runs. Each of these says how it writes."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from engine.checkpoints.run_directory import FILES
from engine.config import RunConfig
from engine.models.graph import Graph

Settings = dict[str, str | bool | int | float]
NO_METRICS = ("epoch", "learning_rate", "seconds")  # numbers of the history that are not of training or validation
MOST_VALUES = 4096  # of an array, evenly spaced, that its histogram counts
BINS = 50
LONGEST_TEXT = 500  # of a setting


class TrackedRun(Protocol):
    """What a tracker sees of a run: see LiveRun and Result."""

    config: RunConfig
    directory: Path
    step: Any
    metrics: Any
    weights: Any
    graph: Any
    result: Any
    say: Any


class Tracker:
    """Sends the scalars of compiled calls and epochs, histograms of weights, settings, results and pictures of a run.

    package: what it needs installed; the extra is called as the tracker is in `--log`.
    A resumed run goes on where its saved state ends: nothing is there twice.
    """

    package: ClassVar[str]

    def open(self, run: TrackedRun, settings: Settings) -> str:
        """Begins, or goes on at `run.step`; returns where it can be seen."""
        raise NotImplementedError

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Numbers by tag, like loss/validation."""
        raise NotImplementedError

    def add_histograms(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Of the values of each array; a tracker without histograms leaves them out."""

    def add_pictures(self, files: Sequence[Path], step: int) -> None:
        """PNG files that the run has drawn."""
        raise NotImplementedError

    def add_graph(self, graph: Graph) -> None:
        """The layers of the model."""
        raise NotImplementedError

    def close(self, is_finished: bool) -> None:
        """Writes what is left. is_finished: the run has come to its end, and was not interrupted."""
        raise NotImplementedError

    def on_run_begin(self, run: TrackedRun) -> None:
        """Opens it, with the settings and the model."""
        self._begun_at, self._is_finished = run.step, False
        self._has_result = run.step > 0 and (run.directory / "result.json").exists()
        run.say(f"logged to {self.open(run, flat_settings(run.config))}")
        if not run.step and (graph := run.graph) is not None:
            self.add_graph(graph)

    def on_step_chunk_end(self, run: TrackedRun) -> None:
        """Logs the training metrics of the epoch so far; at its end they are in its row."""
        if "epoch" not in (metrics := run.metrics):
            self.add_scalars({f"{name}/so_far": value for name, value in numbers(metrics).items()}, run.step)

    def on_epoch_end(self, run: TrackedRun) -> None:
        """Logs the row of the history, and how the weights are distributed."""
        row = numbers(run.metrics)
        self.add_scalars({tag(name): value for name, value in row.items() if name != "step"}, run.step)
        self.add_histograms({name: sample(values) for name, values in run.weights.items()}, run.step)

    def on_result(self, run: TrackedRun) -> None:
        """Logs the metrics of the best step and the pictures, unless that was done before the run was resumed."""
        self._is_finished = True
        if self._has_result and run.step == self._begun_at:
            return
        splits = run.result.metrics.items()
        found = {f"{name}/best_{split}": value for split, row in splits for name, value in numbers(row).items()}
        self.add_scalars(found, run.step)
        drawn = [run.directory / name for name in FILES if name.endswith(".png") and name != "example.png"]
        self.add_pictures([path for path in drawn if path.exists()], run.step)

    def on_close(self, run: TrackedRun) -> None:
        """Closes it, whatever ended the run."""
        self.close(self._is_finished)


def tag(name: str) -> str:
    """`loss/training` of loss, `loss/validation` of validation_loss, `loss/validation_member_1` of that of a member."""
    found = re.fullmatch(r"(?:member_(\d+)_)?(validation_)?(.+)", name)
    assert found is not None
    member, validation, metric = found.groups()
    if metric in NO_METRICS:
        return metric if member is None else f"{metric}/member_{member}"
    split = "validation" if validation else "training"
    return f"{metric}/{split}" if member is None else f"{metric}/{split}_member_{member}"


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics but counts of examples; neither texts nor NaN of members that have failed."""
    is_number = {name: isinstance(value, int | float) and name not in ("n", "skipped") for name, value in row.items()}
    return {name: float(row[name]) for name, fits in is_number.items() if fits and math.isfinite(row[name])}


def sample(values: np.ndarray) -> np.ndarray:
    """The values of an array, or so many of them evenly spaced."""
    flat = values.ravel()
    return flat[:: math.ceil(flat.size / MOST_VALUES)] if flat.size else flat


def flat_settings(config: RunConfig) -> Settings:
    """Every setting that is not None by its dotted name, lists and the model as JSON."""
    found: Settings = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict) and name not in ("model", "finetune"):
            for key in value.keys() - {"kind", "version"}:
                add(f"{name}.{key}" if name else key, value[key])
        elif isinstance(value, str | bool | int | float):
            found[name] = value[:LONGEST_TEXT] if isinstance(value, str) else value
        elif value:
            found[name] = json.dumps(value)[:LONGEST_TEXT]

    add("", config.to_json())
    return dict(sorted(found.items()))

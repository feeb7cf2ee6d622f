"""Weights & Biases: a run of a project there, or offline in the directory of the run, to be sent later."""

import importlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.models.graph import Graph
from engine.trackers.tracker import BINS, Settings, TrackedRun, Tracker

PROJECT = "engine"


class WeightsAndBiases(Tracker):
    """A run of the project `engine`, or of WANDB_PROJECT; offline unless WANDB_MODE or a login says otherwise.

    A resumed run goes on under the same id. Steps there only rise, so what was logged after the saved state stays.
    """

    package = "wandb"
    _id: str | None = None
    _run: Any = None

    def open(self, run: TrackedRun, settings: Settings) -> str:
        """The same run as before, or a new one."""
        library = importlib.import_module(self.package)
        if not run.step or self._id is None:
            self._id = secrets.token_hex(4)
        is_known = "WANDB_MODE" in os.environ or library.api.api_key is not None
        self._run = library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.directory.name,
            id=self._id,
            resume="allow",
            dir=str(run.directory),
            mode=None if is_known else "offline",
            config=settings,
            settings=library.Settings(silent=True, console="off"),
        )
        self._histogram, self._image, self._html = library.Histogram, library.Image, library.Html
        if self._run.settings._offline:
            return f"Weights & Biases, offline: wandb sync {Path(self._run.dir).parent}"
        return f"Weights & Biases: {self._run.url}"

    def add_graph(self, graph: Graph) -> None:
        """As the base says: a drawing."""
        self._run.log({"model": self._html(graph.svg)}, step=0)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """As the base says."""
        self._run.log(dict(scalars), step=step)

    def add_histograms(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """As the base says."""
        counted = {name: np.histogram(each, BINS) for name, each in arrays.items() if np.isfinite(each).all()}
        self._run.log({name: self._histogram(np_histogram=each) for name, each in counted.items()}, step=step)

    def add_pictures(self, files: Sequence[Path], step: int) -> None:
        """As the base says."""
        self._run.log({path.stem: self._image(str(path)) for path in files}, step=step)

    def close(self, is_finished: bool) -> None:
        """As the base says."""
        if self._run is not None:
            self._run.finish(exit_code=0 if is_finished else 1)
            self._run = None

    def get_state(self) -> str | None:
        """The run's id."""
        return self._id

    def set_state(self, state: str | None) -> None:
        """The id that the run had before."""
        self._id = state

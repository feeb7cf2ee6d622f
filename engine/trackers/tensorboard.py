"""TensorBoard: event files in the directory of the run, written by tensorboardX, without TensorFlow."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.errors import InputError, problem
from engine.host.storage import expanded
from engine.models.graph import Graph
from engine.trackers.tracker import BINS, Settings, TrackedRun, Tracker

DIRECTORY = "tensorboard"  # in that of the run
FLUSH_SECONDS = 1  # what a killed process may lose


class TensorBoard(Tracker):
    """Event files. Those of a resumed run hide what an earlier process logged after the step that was resumed."""

    package = "tensorboardX"
    _writer: Any = None

    def open(self, run: TrackedRun, settings: Settings) -> str:
        """A new event file."""
        library = importlib.import_module(self.package)
        directory = expanded(run.directory / DIRECTORY)
        if directory.is_symlink():
            rule = "a directory of the run's own"
            raise InputError(problem("log", f"{directory}, a link", rule, "Remove the link."))
        # The name of an event file has its second: with the step too, a quickly resumed run does not write over it.
        self._writer = library.SummaryWriter(
            str(directory),
            max_queue=10_000,
            flush_secs=FLUSH_SECONDS,
            filename_suffix=f".{run.step:012d}",
            purge_step=run.step + 1 if run.step else 0,
        )
        if not run.step:
            metrics = {f"{name}/validation": 0.0 for name in run.config.train.shown_metrics}
            for summary in importlib.import_module(f"{self.package}.summary").hparams(settings, metrics):
                self._writer.file_writer.add_summary(summary, 0)
        return f"{directory}: tensorboard --logdir {directory.parent.parent}"

    def add_graph(self, graph: Graph) -> None:
        """As the base says: an operation for each layer."""
        proto = importlib.import_module(f"{self.package}.proto.graph_pb2")
        definition = proto.GraphDef()
        for each in graph.nodes:
            inputs = [source for source, target in graph.edges if target == each.name]
            node = definition.node.add(name=each.name, op=each.text or "Placeholder", input=inputs)
            node.attr["parameters"].i = each.num_params
            shape = node.attr["_output_shapes"].list.shape.add()
            for size in (-1, *each.shape):  # of a batch
                shape.dim.add(size=size)
        event = importlib.import_module(f"{self.package}.proto.event_pb2").Event(
            graph_def=definition.SerializeToString()
        )
        self._writer.file_writer.add_event(event)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """As the base says."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def add_histograms(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """As the base says."""
        for name, values in arrays.items():
            if values.size and np.isfinite(values).all():
                self._writer.add_histogram(name, values, step, bins=BINS)

    def add_pictures(self, files: Sequence[Path], step: int) -> None:
        """As the base says."""
        for path in files:
            with Image.open(path) as picture:
                self._writer.add_image(path.stem, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def get_state(self) -> bool:
        """What a run that is resumed without it is reminded by."""
        return True

    def set_state(self, state: bool) -> None:
        """Nothing: where it goes on is the step of the run."""

    def close(self, is_finished: bool) -> None:
        """As the base says."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

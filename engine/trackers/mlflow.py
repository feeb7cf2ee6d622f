"""MLflow: a run on the server of MLFLOW_TRACKING_URI, or in a database beside the directory of the run."""

import importlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.host.storage import expanded
from engine.models.graph import Graph
from engine.trackers.tracker import Settings, TrackedRun, Tracker

EXPERIMENT = "engine"
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"  # beside the run, for all runs there
MOST_PARAMS = 100  # that MLflow takes at a time


class MLflow(Tracker):
    """A run of the experiment `engine`, or of MLFLOW_EXPERIMENT_NAME.

    A resumed run goes on as the same run. MLflow cannot remove what was logged after the saved state, so a metric is
    not logged again up to the last step that it has.
    """

    package = "mlflow"
    _id: str | None = None
    _client: Any = None

    def open(self, run: TrackedRun, settings: Settings) -> str:
        """The same run as before, or a new one."""
        library, entities = importlib.import_module(self.package), importlib.import_module(f"{self.package}.entities")
        place = expanded(run.directory).absolute().parent
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place / DATABASE}"
        self._client, self._metric, self._waiting = library.MlflowClient(tracking_uri=uri), entities.Metric, []
        self._last = dict[str, int]()
        if run.step and self._id is not None:
            self._client.update_run(self._id, status="RUNNING")
            self._last = {name: self._find_last(name) for name in self._client.get_run(self._id).data.metrics}
            return f"MLflow: mlflow ui --backend-store-uri {uri}"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        where = None if "MLFLOW_TRACKING_URI" in os.environ else (place / ARTIFACTS).as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(name, artifact_location=where)
        self._id = self._client.create_run(experiment, run_name=run.directory.name).info.run_id
        params = [entities.Param(key, str(value)) for key, value in settings.items()]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + MOST_PARAMS])
        return f"MLflow: mlflow ui --backend-store-uri {uri}"

    def add_graph(self, graph: Graph) -> None:
        """As the base says: a drawing."""
        self._client.log_text(self._id, graph.svg, "model.svg")

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """As the base says; a thread of MLflow's own writes them."""
        now, named = int(time.time() * 1000), {re.sub(r"[^\w\-. :/]", "_", key): scalars[key] for key in scalars}
        new = [self._metric(key, value, now, step) for key, value in named.items() if step > self._last.get(key, -1)]
        if new:
            self._waiting.append(self._client.log_batch(self._id, metrics=new, synchronous=False))

    def add_pictures(self, files: Sequence[Path], step: int) -> None:
        """As the base says."""
        for path in files:
            self._client.log_artifact(self._id, str(path), f"step_{step}")

    def close(self, is_finished: bool) -> None:
        """As the base says."""
        if self._client is not None:
            for each in self._waiting:
                each.wait()
            self._client.set_terminated(self._id, "FINISHED" if is_finished else "KILLED")
            self._client = None

    def get_state(self) -> str | None:
        """The run's id."""
        return self._id

    def set_state(self, state: str | None) -> None:
        """The id that the run had before."""
        self._id = state

    def _find_last(self, name: str) -> int:
        """The last step at which a metric was logged."""
        return max((each.step for each in self._client.get_metric_history(self._id, name)), default=-1)

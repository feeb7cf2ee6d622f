"""The trackers by name, and how the names of a run's become callbacks."""

import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, get_args

from engine.config.trackers import TrackerName
from engine.errors import InputError, problem, unknown
from engine.trackers.mlflow import MLflow
from engine.trackers.tensorboard import TensorBoard
from engine.trackers.tracker import Tracker
from engine.trackers.wandb import WeightsAndBiases

TRACKERS: dict[TrackerName, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
Log = TrackerName | Sequence[TrackerName]


def make_trackers(log: Log, has_directory: bool = True) -> list[Tracker]:
    """A tracker for each name; importing what they need has begun, beside the decoding of data.

    Raises InputError for an unknown name, a missing package, and if the run has no directory that stays.
    """
    names: list[Any] = list(dict.fromkeys(log)) if isinstance(log, Sequence) and not isinstance(log, str) else [log]
    for name in names:
        if name not in TRACKERS:
            raise InputError(unknown("log", name, get_args(TrackerName)))
        package = TRACKERS[name].package
        if find_spec(package) is None:
            rule, remedy = f"the package {package} for it", f"Install it: pip install 'engine-jax[{name}]'"
            raise InputError(problem("log", f"{name} without {package}", rule, remedy))
        if not has_directory:
            rule = "a run_dir, where logs stay"
            raise InputError(problem("log", f"{name} without run_dir", rule, 'Pass one: run_dir="runs/first".'))
        threading.Thread(target=import_module, args=(package,), daemon=True).start()
    return [TRACKERS[name]() for name in names]

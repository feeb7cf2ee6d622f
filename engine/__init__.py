"""engine: a JAX/Flax training engine for image classification.

Importing it does no work: each public name is loaded when it is first used, so that configs and model specs can be
written, checked and shown without waiting for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AugmentConfig": "engine.augment.config",
    "Callback": "engine.runs.callbacks",
    "CheckpointConfig": "engine.config",
    "Classifier": "engine.inference.classifier",
    "DataConfig": "engine.config.data",
    "Dataset": "engine.data.decoded.dataset",
    "InputError": "engine.errors",
    "OptimConfig": "engine.config",
    "PlanConfig": "engine.config",
    "Result": "engine.runs.result",
    "RunConfig": "engine.config",
    "Splits": "engine.data.decoded.dataset",
    "TrainConfig": "engine.config",
    "apply": "engine.networks.layer_arrays",
    "cnn": "engine.models",
    "custom": "engine.records.custom",
    "dataset": "engine.data.in_memory",
    "export": "engine.exporting.export",
    "EnsembleClassifier": "engine.inference.ensemble",
    "EnsembleConfig": "engine.config",
    "FineTuneConfig": "engine.config",
    "find_batch_size": "engine.runs.finders",
    "find_learning_rate": "engine.runs.finders",
    "finetune": "engine.runs.fit",
    "fit": "engine.runs.fit",
    "join": "engine.inference.restore",
    "load": "engine.runs.fit_data",
    "main": "engine.commands.experiment",
    "mlp": "engine.models",
    "pretrained": "engine.importers.load",
    "quantize": "engine.inference.quantized",
    "restore": "engine.inference.restore",
    "run": "engine.runs.loop",
    "show": "engine.report.drawing",
}
__all__ = [
    "AugmentConfig",
    "Callback",
    "CheckpointConfig",
    "Classifier",
    "DataConfig",
    "Dataset",
    "EnsembleClassifier",
    "EnsembleConfig",
    "FineTuneConfig",
    "InputError",
    "OptimConfig",
    "PlanConfig",
    "Result",
    "RunConfig",
    "Splits",
    "TrainConfig",
    "apply",
    "cnn",
    "custom",
    "dataset",
    "export",
    "find_batch_size",
    "find_learning_rate",
    "finetune",
    "fit",
    "join",
    "load",
    "main",
    "mlp",
    "pretrained",
    "quantize",
    "restore",
    "run",
    "show",
]

if TYPE_CHECKING:
    from engine.augment.config import AugmentConfig
    from engine.commands.experiment import main
    from engine.config import CheckpointConfig, EnsembleConfig, OptimConfig, PlanConfig, RunConfig, TrainConfig
    from engine.config.data import DataConfig
    from engine.config.finetune import FineTuneConfig
    from engine.data.decoded.dataset import Dataset, Splits
    from engine.data.in_memory import dataset
    from engine.errors import InputError
    from engine.exporting.export import export
    from engine.importers.load import pretrained
    from engine.inference.classifier import Classifier
    from engine.inference.ensemble import EnsembleClassifier
    from engine.inference.quantized import quantize
    from engine.inference.restore import join, restore
    from engine.models import cnn, mlp
    from engine.networks.layer_arrays import apply
    from engine.records.custom import custom
    from engine.report.drawing import show
    from engine.runs.callbacks import Callback
    from engine.runs.finders import find_batch_size, find_learning_rate
    from engine.runs.fit import finetune, fit
    from engine.runs.fit_data import load
    from engine.runs.loop import run
    from engine.runs.result import Result


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from engine.host.collecting import without_collecting

    with without_collecting():
        value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

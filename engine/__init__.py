"""engine: a JAX/Flax training engine for image classification.

Importing it does no work: each public name is loaded when it is first used, so that configs and model specs can be
written, checked and shown without waiting for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AugmentConfig": "engine.augment.config",
    "CheckpointConfig": "engine.config",
    "Classifier": "engine.predict",
    "DataConfig": "engine.data.config",
    "Dataset": "engine.data.dataset",
    "InputError": "engine.errors",
    "OptimConfig": "engine.config",
    "PlanConfig": "engine.config",
    "Result": "engine.result",
    "RunConfig": "engine.config",
    "Splits": "engine.data.dataset",
    "TrainConfig": "engine.config",
    "cnn": "engine.models",
    "custom": "engine.models",
    "dataset": "engine.data.in_memory",
    "export": "engine.exporting.export",
    "EnsembleClassifier": "engine.ensemble",
    "EnsembleConfig": "engine.config",
    "FineTuneConfig": "engine.finetuning",
    "finetune": "engine.notebook",
    "fit": "engine.notebook",
    "join": "engine.ensemble",
    "main": "engine.experiment",
    "mlp": "engine.models",
    "restore": "engine.ensemble",
    "run": "engine.loop",
}
__all__ = [
    "AugmentConfig",
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
    "cnn",
    "custom",
    "dataset",
    "export",
    "finetune",
    "fit",
    "join",
    "main",
    "mlp",
    "restore",
    "run",
]

if TYPE_CHECKING:
    from engine.augment.config import AugmentConfig
    from engine.config import CheckpointConfig, EnsembleConfig, OptimConfig, PlanConfig, RunConfig, TrainConfig
    from engine.data.config import DataConfig
    from engine.data.dataset import Dataset, Splits
    from engine.data.in_memory import dataset
    from engine.ensemble import EnsembleClassifier, join, restore
    from engine.errors import InputError
    from engine.experiment import main
    from engine.exporting.export import export
    from engine.finetuning import FineTuneConfig
    from engine.loop import run
    from engine.models import cnn, custom, mlp
    from engine.notebook import finetune, fit
    from engine.predict import Classifier
    from engine.result import Result


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

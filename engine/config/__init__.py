"""What decides a run: frozen dataclasses, checked when built, to and from JSON without loss."""

from engine.config.checkpoint import CheckpointConfig
from engine.config.data import DataConfig
from engine.config.ensemble import CombinationKind, EnsembleConfig
from engine.config.finetune import FineTuneConfig
from engine.config.optim import OptimConfig
from engine.config.plan import (
    Alternative,
    DataPlacement,
    Lowering,
    LoweringName,
    MemberMapping,
    Plan,
    PlanConfig,
    PlanFile,
    mesh_shape,
)
from engine.config.run import RunConfig, check_model
from engine.config.scoring import BestIs
from engine.config.train import Precision, TrainConfig

__all__ = [
    "Alternative",
    "BestIs",
    "CheckpointConfig",
    "CombinationKind",
    "DataConfig",
    "DataPlacement",
    "EnsembleConfig",
    "FineTuneConfig",
    "Lowering",
    "LoweringName",
    "MemberMapping",
    "OptimConfig",
    "Plan",
    "PlanConfig",
    "PlanFile",
    "Precision",
    "RunConfig",
    "TrainConfig",
    "check_model",
    "mesh_shape",
]

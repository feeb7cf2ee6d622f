"""What decides a run: frozen dataclasses, checked when built, to and from JSON without loss."""

from engine.config.run import (
    OPEN_ENDED_SCHEDULES as OPEN_ENDED_SCHEDULES,
)
from engine.config.run import (
    CheckpointConfig as CheckpointConfig,
)
from engine.config.run import (
    CombinationKind as CombinationKind,
)
from engine.config.run import (
    DataConfig as DataConfig,
)
from engine.config.run import (
    DataPlacement as DataPlacement,
)
from engine.config.run import (
    EnsembleConfig as EnsembleConfig,
)
from engine.config.run import (
    Loss as Loss,
)
from engine.config.run import (
    Lowering as Lowering,
)
from engine.config.run import (
    MemberMapping as MemberMapping,
)
from engine.config.run import (
    OptimConfig as OptimConfig,
)
from engine.config.run import (
    OptimizerName as OptimizerName,
)
from engine.config.run import (
    PlanConfig as PlanConfig,
)
from engine.config.run import (
    Precision as Precision,
)
from engine.config.run import (
    RunConfig as RunConfig,
)
from engine.config.run import (
    ScheduleName as ScheduleName,
)
from engine.config.run import (
    TrainConfig as TrainConfig,
)
from engine.config.run import (
    check_model as check_model,
)
from engine.config.run import (
    mesh_shape as mesh_shape,
)

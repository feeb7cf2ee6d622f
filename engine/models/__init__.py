"""Model specs, importable without JAX: `from engine.models import Conv, Dense, cnn`. `models.build` makes modules."""

from engine.models.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Rescale,
)
from engine.models.specs import Custom, Sequential, cnn, custom, mlp

__all__ = [
    "Activation",
    "AveragePool",
    "BatchNorm",
    "Conv",
    "Custom",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "MaxPool",
    "Rescale",
    "Sequential",
    "cnn",
    "custom",
    "mlp",
]

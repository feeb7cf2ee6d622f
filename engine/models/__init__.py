"""Model specs, importable without JAX: `from engine.models import Conv, Dense, cnn`. `networks.build` makes modules."""

from engine.models.activations import Activation
from engine.models.convolutions import Conv, ConvTranspose, Dense, DepthwiseConv, SeparableConv
from engine.models.layer import Layer
from engine.models.layers import (
    BatchNorm,
    Crop,
    Dropout,
    Flatten,
    GroupNorm,
    LayerNorm,
    PReLU,
    Rescale,
    SpatialDropout,
    UpSample,
    ZeroPad,
)
from engine.models.pools import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from engine.models.specs import Sequential, cnn, mlp
from engine.models.weights import L1L2, l1, l2
from engine.records.custom import Custom, custom

__all__ = [
    "L1L2",
    "Activation",
    "AveragePool",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Crop",
    "Custom",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "MaxPool",
    "PReLU",
    "Rescale",
    "SeparableConv",
    "Sequential",
    "SpatialDropout",
    "UpSample",
    "ZeroPad",
    "cnn",
    "custom",
    "l1",
    "l2",
    "mlp",
]

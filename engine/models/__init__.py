"""Model specs, importable without JAX: `from engine.models import Conv, Dense, cnn`. `networks.build` makes modules."""

from engine.models.activations import Activation
from engine.models.blocks import Paths, inverted_residual, residual, squeeze_excite
from engine.models.convolutions import Conv, ConvTranspose, Dense, DepthwiseConv, SeparableConv
from engine.models.families import (
    convnext,
    densenet,
    efficientnet,
    efficientnet_v2,
    inception_v3,
    mobilenet,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    resnet_v2,
    vgg,
    xception,
)
from engine.models.layer import Layer
from engine.models.layers import (
    Crop,
    Dropout,
    DropPath,
    Flatten,
    PReLU,
    Rescale,
    SpatialDropout,
    UpSample,
    ZeroPad,
)
from engine.models.norms import BatchNorm, GroupNorm, LayerNorm, LayerScale
from engine.models.pools import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from engine.models.specs import Sequential, cnn, mlp
from engine.models.tokens import Attention, ClassToken, FirstToken, PositionEmbedding, Tokens
from engine.models.weights import L1L2, l1, l2
from engine.records.custom import Custom, custom

__all__ = [
    "L1L2",
    "Activation",
    "Attention",
    "AveragePool",
    "BatchNorm",
    "ClassToken",
    "Conv",
    "ConvTranspose",
    "Crop",
    "Custom",
    "Dense",
    "DepthwiseConv",
    "DropPath",
    "Dropout",
    "FirstToken",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LayerScale",
    "MaxPool",
    "PReLU",
    "Paths",
    "PositionEmbedding",
    "Rescale",
    "SeparableConv",
    "Sequential",
    "SpatialDropout",
    "Tokens",
    "UpSample",
    "ZeroPad",
    "cnn",
    "convnext",
    "custom",
    "densenet",
    "efficientnet",
    "efficientnet_v2",
    "inception_v3",
    "inverted_residual",
    "l1",
    "l2",
    "mlp",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3",
    "residual",
    "resnet",
    "resnet_v2",
    "squeeze_excite",
    "vgg",
    "xception",
]

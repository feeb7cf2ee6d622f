"""What Keras calls the variables that fill a model of ours, in its files of any age. Layers have the same names."""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import partial

import numpy as np

from engine.importers.matching import Origin, Target
from engine.models import convolutions, layers, norms
from engine.models.layer import Layer

VARIABLES: dict[type[Layer], dict[str, tuple[str, ...]]] = {
    convolutions.Conv: {"kernel": ("kernel",), "bias": ("bias",)},
    convolutions.ConvTranspose: {"kernel": ("kernel",), "bias": ("bias",)},
    convolutions.Dense: {"kernel": ("kernel",), "bias": ("bias",)},
    convolutions.DepthwiseConv: {"kernel": ("kernel", "depthwise_kernel"), "bias": ("bias",)},
    convolutions.SeparableConv: {
        "depthwise.kernel": ("depthwise_kernel",),
        "pointwise.kernel": ("pointwise_kernel",),
        "pointwise.bias": ("bias",),
    },
    norms.BatchNorm: {
        "scale": ("gamma",),
        "bias": ("beta",),
        "mean": ("moving_mean",),
        "var": ("moving_variance",),
    },
    norms.LayerNorm: {"scale": ("gamma",), "bias": ("beta",)},
    norms.GroupNorm: {"scale": ("gamma",), "bias": ("beta",)},
    norms.LayerScale: {"scale": ("variable", "gamma", "0")},
    layers.PReLU: {"slope": ("alpha",)},
}
"""Kind of layer → array of ours → what it may be called there, in the order in which Keras keeps them."""

NUMBERED = re.compile(r"(batch_normalization|conv2d|dense|layer_normalization)(?:_(\d+))?")
"""Names that Keras makes, numbered through all models of a process."""
UNNAMED = re.compile(r"^[Vv]ariable(_\d+)?$")
"""What it calls variables that their layer gives no name, numbered too."""


def find_origin(target: Target) -> Origin:
    """What an array of ours is called there, by `plain_names`; a kernel that has other axes there is reshaped."""
    names = VARIABLES[type(target.layer)][target.array]
    return Origin(tuple(f"{target.name}/{name}" for name in names), partial(_with_our_axes, shape=target.shape))


def _with_our_axes(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Depthwise kernels [i j c n] are [i j 1 c·n] here; dense ones and those of 1×1 stand for each other."""
    is_by_channel = array.ndim == 4 and shape == (*array.shape[:2], 1, array.shape[2] * array.shape[3])
    is_by_pixel = {array.ndim, len(shape)} == {2, 4} and _without_ones(array.shape) == _without_ones(shape)
    return array.reshape(shape) if is_by_channel or is_by_pixel else array


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The last two of four axes where the first two are 1."""
    return shape[2:] if shape[:2] == (1, 1) and len(shape) == 4 else shape


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """`layer/variable` of a file → the same with the names that Keras made numbered from this model's first layer."""
    layers = {name.rpartition("/")[0] for name in names}
    numbers = defaultdict[str, set[int]](set)
    for found in filter(None, map(NUMBERED.fullmatch, layers)):
        numbers[found[1]].add(int(found[2] or 0))

    def renamed(layer: str) -> str:
        found = NUMBERED.fullmatch(layer)
        number = int(found[2] or 0) - min(numbers[found[1]]) if found else 0
        return f"{found[1]}_{number}" if found and number else found[1] if found else layer

    parts = {name: name.rpartition("/") for name in names}
    return {name: f"{renamed(layer)}/{UNNAMED.sub('variable', last)}" for name, (layer, _, last) in parts.items()}

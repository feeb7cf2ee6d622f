"""Which of our C++ a run will need, so that what must be compiled is, beside the imports and the decoding of data."""

import importlib.util
import os
from math import prod

from engine.config import RunConfig
from engine.config.finetune import frozen_layers, layer_names
from engine.kernels.libraries import BATCH_NORM, CONVOLUTIONS, SEPARABLE
from engine.models.convolutions import Conv, DepthwiseConv, SeparableConv
from engine.models.norms import BatchNorm
from engine.models.shapes import pair
from engine.models.specs import Sequential

LANES = 16  # as in `kernels.ffi`, which takes a while to import


def begin_kernels(config: RunConfig) -> None:
    """Begins to compile what the layers of a model need, where the package ships nothing for this processor.

    What a class of the user's own needs is known, and compiled, when it is built.
    """
    plan, model = config.plan, config.model
    is_wanted = plan.lowering in ("auto", "direct") and plan.mode != "safe"
    if not (is_wanted and isinstance(model, Sequential) and _has_only_cpu()):
        return
    layers = [each.layer for each in model.named]
    if any(isinstance(layer, Conv) and not _is_pointwise(layer) and layer.filters % LANES == 0 for layer in layers):
        CONVOLUTIONS.begin()
    if any(isinstance(layer, DepthwiseConv | SeparableConv) or _is_pointwise(layer) for layer in layers):
        SEPARABLE.begin()
    if _trains_batch_norms(config, model):
        BATCH_NORM.begin()


def _trains_batch_norms(config: RunConfig, model: Sequential) -> bool:
    """Whether any trains, at least at the end: frozen ones are folded into convolutions."""
    frozen = frozen_layers(config.finetune, layer_names(model.named), config.train.epochs)
    return any(isinstance(each.layer, BatchNorm) and each.name not in frozen for each in model.named)


def _is_pointwise(layer: object) -> bool:
    return isinstance(layer, Conv) and prod(pair(layer.kernel_size)) == 1


def _has_only_cpu() -> bool:
    """Whether JAX will run on the CPU, as far as can be known before it is imported."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    has_plugins = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    return platforms == "cpu" if platforms else not has_plugins

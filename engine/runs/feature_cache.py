"""What frozen layers give for a dataset, computed once: the layers above train on it as on any other inputs."""

import time
from dataclasses import dataclass, replace
from math import ceil, prod

import jax
import numpy as np

from engine.config import RunConfig
from engine.config.contract import InputSpec
from engine.data.decoded.dataset import Dataset
from engine.devices.executables import Executables
from engine.host.memory import free_device_bytes, free_host_bytes
from engine.networks.network import AnyNetwork, Tree, normalize
from engine.training.evaluate import pad_to

MEGABYTE = 10**6


@dataclass(frozen=True)
class Features:
    """The training and validation examples as the first `num_layers` layers give them."""

    train: Dataset
    validation: Dataset | None
    num_layers: int

    @property
    def inputs(self) -> InputSpec:
        """The contract of these inputs: they are shown as they are."""
        return InputSpec(self.train.input_shape, "float32", scale=1.0)


def may_cache(config: RunConfig) -> bool:
    """Whether what frozen layers give for an example is the same in every epoch, and for all who train on it."""
    is_wanted = config.finetune.freezes and config.finetune.cache_features == "auto"
    return is_wanted and config.train.members == 1 and config.plan.mesh is None and not config.augment.is_active


def cache_megabytes() -> int:
    """What cached features may take: half of what is free, here and on the device."""
    return min(free_host_bytes(), free_device_bytes()) // 2 // MEGABYTE


def features_megabytes(num_examples: int, feature_shape: tuple[int, ...]) -> int:
    """The size of so many examples' features, float32, rounded up."""
    return ceil(num_examples * prod(feature_shape) * 4 / MEGABYTE)


def cache_features(
    dataset: Dataset,
    inputs: InputSpec,
    network: AnyNetwork,
    model: tuple[Tree, Tree],
    batch_size: int,
    executables: Executables,
    name: str,
) -> tuple[Dataset, float]:
    """(the dataset with a network's outputs float32[n …], in evaluation, for images; the seconds of doing that again).

    The network is compiled under the name.
    """

    def forward(params: Tree, model_state: Tree, images: jax.Array) -> jax.Array:
        return network.apply(params, model_state, normalize(images, inputs), None, None)[0]

    def of(start: int) -> np.ndarray:
        images = dataset.images[start : start + batch_size]
        return np.asarray(executables.call(name, forward, *model, pad_to(images, batch_size)))[: len(images)]

    first = of(0)
    found = np.empty((len(dataset), *first.shape[1:]), np.float32)
    starts, began = range(0, len(dataset), batch_size), time.perf_counter()
    for start in starts:  # the first one again: what was compiled runs slower once
        found[start : start + batch_size] = of(start)
    return replace(dataset, images=found, hashes=None), time.perf_counter() - began

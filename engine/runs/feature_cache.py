"""The outputs of frozen layers for a dataset, computed once: the layers above train on them as on any other inputs."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, prod

import jax
import numpy as np

from engine.config import Lowering, RunConfig
from engine.config.contract import InputSpec
from engine.data.decoded.dataset import Dataset, Splits
from engine.devices.executables import Executables
from engine.errors import Say
from engine.host.memory import free_device_bytes, free_host_bytes
from engine.kernels.lowerings import evaluation_lowering
from engine.metrics.sums import Metrics
from engine.networks.network import NetworkPart, Tree, normalize
from engine.runs.setup import Architecture, Model, Setup
from engine.training.evaluate import eval_batch_size, evaluate, pad_to
from engine.training.freezing import Phase
from engine.training.step import Objective

MEGABYTE = 10**6


@dataclass(frozen=True)
class Features:
    """The training and validation examples as the outputs of the first `num_layers` layers."""

    train: Dataset
    validation: Dataset | None
    num_layers: int

    @property
    def inputs(self) -> InputSpec:
        """The contract of these inputs: they are fed as they are."""
        return InputSpec(self.train.input_shape, "float32", scale=1.0)

    def evaluate(self, setup: Setup, objective: Objective, executables: Executables, model: Model) -> Metrics | None:
        """Metric sums over the validation data; None if there is none."""
        if self.validation is None:
            return None
        network = setup.model.make_network(evaluation_lowering(setup.config.plan), NetworkPart(first=self.num_layers))
        objective = replace(objective, network=network, inputs=self.inputs)
        return evaluate(executables, objective, *model, self.validation)


def may_cache(config: RunConfig) -> bool:
    """Whether the outputs of frozen layers are the same in every epoch, and for all who train on them."""
    is_wanted = config.finetune.freezes and config.finetune.cache_features == "auto"
    return is_wanted and config.train.members == 1 and config.plan.mesh is None and not config.augment.is_active


def affordable_megabytes(config: RunConfig, splits: Splits, model: Architecture) -> int:
    """The largest of what the phases need that the memory allows now; a resumed run keeps to it."""
    epochs = {0, *(epoch for epoch, _ in config.finetune.unfreezings)}
    needs = [needed_megabytes(splits, model, Phase(config.finetune, model.layers, epoch)) for epoch in epochs]
    allowed = cache_megabytes()
    return max((megabytes for megabytes in needs if megabytes <= allowed), default=0)


def needed_megabytes(splits: Splits, model: Architecture, phase: Phase) -> int:
    """The size of the outputs of a phase's frozen layers, float32, rounded up; 0 where there is nothing to keep."""
    spec = model.config.model
    if not (may_cache(model.config) and phase.cut):
        return 0
    row = spec.with_outputs(model.num_outputs).rows(model.inputs.network_shape)[phase.cut - 1]
    return ceil((len(splits.train) + len(splits.validation or ())) * prod(row.output_shape) * 4 / MEGABYTE)


def cache_megabytes() -> int:
    """What cached features may take: half of what is free, here and on the device."""
    return min(free_host_bytes(), free_device_bytes()) // 2 // MEGABYTE


def cache_features(
    setup: Setup, phase: Phase, executables: Executables, model: Callable[[], Model], say: Say
) -> Features | None:
    """The outputs of a phase's frozen layers, computed here; None if there are none or they need too much memory.

    model: gives the arrays of the whole model.
    """
    cut, splits, needed = phase.cut, setup.splits, needed_megabytes(setup.splits, setup.model, phase)
    if not needed:
        return None
    if needed > setup.plan.cache_megabytes:
        reason = f"its {needed:,} MB are more than half of the memory that was free"
        say(f"the outputs of the first {cut} layers are computed again in each epoch: {reason}")
        return None
    arrays = model()

    def compute(dataset: Dataset, lowering: Lowering, size: int) -> tuple[Dataset, float]:
        return _run_layers(dataset, setup.model, cut, lowering, size, executables, arrays)

    with setup.clock.measure("features"):
        train, seconds = compute(splits.train, setup.model.lowering, setup.config.train.batch_size)
        size, lowering = eval_batch_size(splits.train.input_shape), evaluation_lowering(setup.config.plan)
        validation = compute(splits.validation, lowering, size)[0] if splits.validation else None
    kept = f"{len(train):,} training examples are kept, {needed:,} MB"
    say(f"the outputs of the first {cut} layers for {kept}; saves {seconds:.2g} s an epoch")
    return Features(train, validation, cut)


def _run_layers(
    dataset: Dataset, model: Architecture, end: int, lowering: Lowering, size: int, executables: Executables,
    arrays: Model,
) -> tuple[Dataset, float]:  # fmt: skip
    """(the dataset with the outputs float32[n …] of layers before `end` in place of images; seconds to do so again)."""
    network, inputs = model.make_network(lowering, NetworkPart(end=end)), model.inputs

    def forward(params: Tree, model_state: Tree, images: jax.Array) -> jax.Array:
        return network.apply(params, model_state, normalize(images, inputs), None, None)[0]

    def run_batch(start: int) -> np.ndarray:
        images = dataset.images[start : start + size]
        name = f"features by {lowering} of {size}"
        return np.asarray(executables.call(name, forward, *arrays, pad_to(images, size)))[: len(images)]

    found = np.empty((len(dataset), *run_batch(0).shape[1:]), np.float32)
    began = time.perf_counter()
    for start in range(0, len(dataset), size):  # the first one again: what was compiled runs slower once
        found[start : start + size] = run_batch(start)
    return replace(dataset, images=found, hashes=None), time.perf_counter() - began

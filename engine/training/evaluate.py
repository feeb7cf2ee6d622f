"""Evaluation: every example exactly once, in padded batches with a mask.

One compiled call per batch, outside any loop, where XLA's own convolution is fast enough if there are no direct ones.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.data.decoded.dataset import Dataset
from engine.devices.executables import Executables
from engine.metrics.losses import probabilities
from engine.metrics.sums import Metrics
from engine.networks.network import Tree
from engine.processes.sharing import compute_parts, is_shared
from engine.training.step import Batch, Objective, eval_step

BATCH_SIZE = 256
BATCH_VALUES = 2**24


Look = Callable[[int, np.ndarray], None]
"""What is called with (the number of the first example, the predictions [b k]) of each batch."""


def evaluate(
    executables: Executables,
    objective: Objective,
    params: Tree,
    model_state: Tree,
    dataset: Dataset,
    look: Look | None = None,
) -> Metrics:
    """The metric sums over a dataset. Compiled once: batches are cut on the host and padded to one size.

    look: gets what the metrics were computed from, in one process.
    """

    def add_batch(params: Tree, model_state: Tree, batch: tuple, totals: Metrics) -> tuple[Metrics, Any]:
        *of_batch, weights = batch
        found, outputs = eval_step(objective, params, model_state, Batch(*of_batch, weights=weights))
        seen = () if look is None else probabilities(outputs, objective.scoring.activation).astype(jnp.float32)
        return totals + found, seen

    kind = (dataset.labels.ndim, dataset.weights is not None, objective.scoring.thresholds)
    name = "evaluate" if kind == (1, False, ()) else ("evaluate", *kind)
    name = name if look is None else ("evaluate, looked at", *kind)
    size, totals = eval_batch_size(dataset.input_shape), objective.scoring.zeros(dataset.weights is not None)

    def add(number: int, totals: Metrics) -> Metrics:
        part = slice(number * size, (number + 1) * size)
        images, labels = dataset.images[part], dataset.labels[part]
        weights = None if dataset.weights is None else pad_to(dataset.weights[part], size)
        mask = np.arange(size) < len(images)
        batch = (pad_to(images, size), pad_to(labels, size), mask, weights)
        totals, seen = executables.call(name, add_batch, params, model_state, batch, totals)
        if look is not None:
            look(part.start, np.asarray(seen)[: len(images)])
        return totals

    numbers = range(-(-len(dataset) // size))
    if not is_shared():
        return jax.block_until_ready(reduce(lambda totals, number: add(number, totals), numbers, totals))

    def sums_of(own: Sequence[int]) -> Metrics:
        found = [add(number, totals) for number in own]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    sums = compute_parts(len(numbers), sums_of)  # added in the order of one process
    return sum((jax.tree.map(lambda leaf, i=i: leaf[i], sums) for i in numbers), totals)


def eval_batch_size(input_shape: tuple[int, ...], most: int = BATCH_SIZE) -> int:
    """Examples evaluated at once: fewer if they are large."""
    return max(1, min(most, BATCH_VALUES // prod(input_shape)))


def pad_to(array: np.ndarray, size: int) -> np.ndarray:
    """The array [n …] padded with zeros to [size …]."""
    missing = [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, missing) if len(array) < size else np.asarray(array)

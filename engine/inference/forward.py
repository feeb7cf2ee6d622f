"""Forward passes over any number of images: padded to few sizes, each compiled once, a few batches ahead."""

from collections import deque
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import numpy as np

from engine.data.arrays.stored import StoredImages
from engine.devices.executables import Executables
from engine.processes.sharing import compute_parts, is_shared
from engine.training.evaluate import eval_batch_size, pad_to

PADDED_SIZES = (1, 8, 32, 64, 256, 1024)
SMALL_BATCH, CACHED_VALUES = 64, 2**20  # of inputs; more at once leave a CPU's caches and cost a fifth to a third
BATCHES_AHEAD = 2  # given to the device before the outputs of earlier ones are waited for


def apply_padded(
    executables: Executables,
    name: tuple[Any, ...],
    function: Callable[..., jax.Array],
    arguments: tuple[Any, ...],
    images: np.ndarray | StoredImages,
    first: int = 0,
) -> np.ndarray:
    """[n …] of images [n …]: what a function returns for (*arguments, batch, number of its first image).

    name: of the function, beginning with its task; there is one executable for each padded size.
    """
    most = _most_at_once(images.shape[1:])

    def run(number: int) -> tuple[jax.Array, int]:
        start = number * most
        part = images[start : start + most]
        size = next((size for size in PADDED_SIZES if len(part) <= size <= most), most)
        batch = pad_to(np.asarray(part), size), np.int32(first + start)
        return executables.call((*name, size), function, *arguments, *batch), len(part)

    def run_some(numbers: Sequence[int]) -> list[np.ndarray]:
        parts, waiting = [], deque[tuple[jax.Array, int]]()
        for number in numbers:
            waiting.append(run(number))
            if len(waiting) > BATCHES_AHEAD:
                parts.append(_finished(*waiting.popleft()))
        return parts + [_finished(*each) for each in waiting]

    count = max(1, -(-len(images) // most))
    if not is_shared():
        return np.concatenate(run_some(range(count)))  # a copy, which may be written to, also of one
    longest = min(most, len(images))
    parts = compute_parts(count, lambda numbers: np.stack([pad_to(part, longest) for part in run_some(numbers)]))
    return parts.reshape(-1, *parts.shape[2:])[: len(images)].copy()  # all but the last part are full


def _most_at_once(input_shape: tuple[int, ...]) -> int:
    """As many as the memory allows; on a CPU the largest padded size whose inputs stay cached, at least SMALL_BATCH."""
    most = PADDED_SIZES[-1]
    if jax.default_backend() == "cpu":
        most = max([SMALL_BATCH, *(size for size in PADDED_SIZES if size * prod(input_shape) <= CACHED_VALUES)])
    return eval_batch_size(input_shape, most)


def _finished(outputs: jax.Array, count: int) -> np.ndarray:
    return np.asarray(outputs)[:count]

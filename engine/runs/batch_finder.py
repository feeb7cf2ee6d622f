"""Batch sizes of a run, each trained for a moment: how much memory a step takes, and how many images a second."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.config import RunConfig
from engine.data.decoded.dataset import Dataset, Splits
from engine.devices.precision import computes
from engine.errors import InputError, Say
from engine.records import check_whole
from engine.runs.inputs import match_to_data
from engine.runs.plan_search import make_probe, train_sample
from engine.text import counted

SMALLEST, LARGEST = 16, 4096
MEASURED_SECONDS, MEASURED_STEPS, ROUNDS = 0.5, 16, 3
NEARLY = 0.9  # of the best images a second: a smaller batch that reaches it is preferred


@dataclass(frozen=True)
class BatchTrial:
    """A batch size; bytes that a step needs beside weights and data, None if not known; images trained a second."""

    batch_size: int
    step_bytes: int | None
    images_per_second: float


@dataclass(frozen=True)
class BatchSearch:
    """Batch sizes that fit into memory, ascending; why there is no larger one, in words.

    suggestion: the smallest that is about as fast as the fastest; largest: the largest that was tried and fits.
    """

    trials: tuple[BatchTrial, ...]
    end: str

    @property
    def suggestion(self) -> int:
        """As the class says."""
        best = max(each.images_per_second for each in self.trials)
        return next(each.batch_size for each in self.trials if each.images_per_second >= NEARLY * best)

    @property
    def largest(self) -> int:
        """As the class says."""
        return self.trials[-1].batch_size


@computes
def search_batch_sizes(
    config: RunConfig,
    splits: Splits,
    say: Say,
    smallest: int = SMALLEST,
    largest: int = LARGEST,
    on_trial: Callable[[BatchTrial], None] = lambda trial: None,
) -> BatchSearch:
    """Tries `smallest` and its doubles up to `largest` and to all training examples, until one does not fit.

    on_trial: is called after each. Nothing is written. Raises InputError as a run would, and if not even the smallest
    fits.
    """
    problems = check_whole("smallest", smallest, 1, "Give 16 or so.")
    if problems or (problems := check_whole("largest", largest, smallest, "Give 4096 or so.")):
        raise InputError(*problems)
    config, splits, notes = match_to_data(_of_size(config, smallest), splits, None)
    for note in notes:
        say(note)
    return _search(config, splits.train, largest, on_trial)


def _search(config: RunConfig, data: Dataset, largest: int, on_trial: Callable[[BatchTrial], None]) -> BatchSearch:
    trials: list[BatchTrial] = []
    size, most = config.train.batch_size, min(largest, len(data))
    while not trials or size <= most:
        try:
            trials.append(_try(_of_size(config, size), data))
        except InputError as error:
            if not trials:
                raise
            return BatchSearch(tuple(trials), f"{size} does not fit: {error}")
        on_trial(trials[-1])
        size *= 2
    reason = counted(len(data), "training example") if most < largest else f"{largest:,} as the largest to try"
    return BatchSearch(tuple(trials), f"{size} is more than the {reason}")


def _of_size(config: RunConfig, batch_size: int) -> RunConfig:
    """With that batch size, in one part where it does not divide."""
    accumulate = config.train.accumulate if batch_size % config.train.accumulate == 0 else 1
    return replace(config, train=replace(config.train, batch_size=batch_size, accumulate=accumulate))


def _try(config: RunConfig, data: Dataset) -> BatchTrial:
    """Compiles and trains a few steps, and a while longer to measure."""
    size = config.train.batch_size
    count = max(size, min(len(data), MEASURED_STEPS * size) // size * size)
    session = make_probe(config, data.take(np.arange(count), data.name))
    try:
        for _ in range(2):  # compiles, and makes the calls as long as they will be
            train_sample(session)
        # The best of several rounds, because whatever else the machine does only slows training down.
        rate = max(_measure(lambda: train_sample(session)) for _ in range(ROUNDS))
        return BatchTrial(size, session.stage.executables.step_bytes("train"), rate)
    finally:
        session.close()


def _measure(train: Callable[[], int]) -> float:
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < MEASURED_SECONDS / ROUNDS:
        images += train()
    return images / (time.perf_counter() - start)

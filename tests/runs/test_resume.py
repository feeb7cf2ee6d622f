"""Going on from any saved step, in the middle of an epoch too, gives the very bits of the run that never stopped."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pytest

import engine
from engine.checkpoints.steps import choose_step, find_steps
from engine.data.decoded.dataset import Splits
from engine.host.interrupts import Interrupted
from engine.runs.result import Result
from tests.faults.comparison import content_differences, same_bits, step_content, without_seconds
from tests.faults.runs import CASES
from tests.further import further
from tests.runs.test_loop import StopsAt, start

pytestmark = pytest.mark.gpu


def config_of(case: str) -> engine.RunConfig:
    """A run of the faults harness in two epochs of three steps; one that stops early may take more."""
    config = CASES[case]()
    epochs = 2 if config.train.patience is None else 6
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, epochs=epochs, batch_size=80),
        plan=dataclasses.replace(config.plan, chunk_steps=1),
        checkpoint=engine.CheckpointConfig(every_steps=1, keep_last=100),
    )


def stopped(config: engine.RunConfig, splits: Splits, directory: Path, stops: Iterable[int]) -> Result:
    """A run that is interrupted after each of these steps and gone on with."""
    for step in stops:
        with pytest.raises(Interrupted):
            start(config, splits, directory, StopsAt(step))
        assert choose_step(directory, "last") == step
    return start(config, splits, directory)


# mlp: each step is trained by a session that restored the one before it, so every saved step is gone on from.
# Thawed, averaged, augmented runs and ensembles have a test of this in their own files.
FIRST = ("mlp", "convnet", "early-stopped", "streamed")
STOPS = {case: range(1, 6) if case == "mlp" else (2, 3, 4) for case in CASES}


@pytest.mark.parametrize(
    ("case", "stops"),
    [*((case, STOPS[case]) for case in FIRST), *further((case, STOPS[case]) for case in CASES if case not in FIRST)],
)
def test_run_stopped_within_and_between_epochs_is_bit_identical_to_one_that_was_not(case, stops, splits, tmp_path):
    config = config_of(case)
    whole = start(config, splits, tmp_path / "whole")
    parts = stopped(config, splits, tmp_path / "parts", stops)

    steps = find_steps(tmp_path / "whole")
    assert steps == find_steps(tmp_path / "parts")
    assert steps == list(range(1, 3 * len(whole.history) + 1))
    for step in steps:
        found = content_differences(step_content(tmp_path / "whole", step), step_content(tmp_path / "parts", step))
        assert not found, f"step {step}"
    assert parts.best_step == whole.best_step == choose_step(tmp_path / "parts", "best")
    assert without_seconds(parts.history) == without_seconds(whole.history)
    assert parts.metrics == whole.metrics
    images = splits.test.images
    assert same_bits(engine.restore(tmp_path / "parts").outputs(images), whole.classifier.outputs(images))
    if config.train.patience is not None:
        assert len(whole.history) < config.train.epochs, "this case is about a run that stops early"

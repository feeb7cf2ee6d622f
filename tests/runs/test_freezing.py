"""Runs whose trunk has blocks: frozen in part, with kept features, and with another head."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.config import OptimConfig
from engine.data.decoded.dataset import Splits
from engine.models import BatchNorm, Conv, Dense, Flatten, GlobalAveragePool, MaxPool, Sequential, residual
from engine.models import squeeze_excite as excite
from tests.conftest import make_dataset
from tests.faults.comparison import content_differences, same_bits, step_content
from tests.runs.test_finetune import Hears, leaves
from tests.runs.test_loop import start
from tests.runs.test_resume import stopped

BLOCK = residual((Conv(4, padding="same", name="a"), BatchNorm(0.5, name="a_bn"), excite(4, 2)), name="block")
NET = Sequential(
    (Conv(4, 3, name="stem"), BLOCK, MaxPool(2), residual((Conv(4, 1, name="b"), BatchNorm(0.5)), name="top"),
     GlobalAveragePool(), Dense())
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    config = engine.RunConfig("source", NET, train=engine.TrainConfig(epochs=1, batch_size=64))
    start(config, Splits(make_dataset(130), make_dataset(40, 1)), directory)
    return directory


@pytest.fixture
def four() -> Splits:
    return Splits(make_dataset(130, 3, num_classes=4), make_dataset(40, 4, num_classes=4))


def tuned(source: Path, epochs: int = 1, **settings) -> engine.RunConfig:
    train = engine.TrainConfig(epochs=epochs, batch_size=64)
    tuning = engine.FineTuneConfig(init=source, **settings)
    return engine.RunConfig("tuned", NET, train=train, optim=OptimConfig("sgd", 0.05), finetune=tuning)


def test_frozen_part_of_a_block_stays_to_the_bit_and_what_froze_is_listed(source, four, tmp_path):
    reporter = Hears()
    config = tuned(source, epochs=1, freeze=("stem", "block.paths_1"), freeze_until="a")
    start(config, four, tmp_path / "run", reporter)
    told = "\n".join(reporter.said)
    assert "frozen by stem: stem (1 of 11 layers, 40 parameters)" in told
    assert (
        "frozen by block.paths_1: block.paths_1.global_average_pool_1, block.paths_1.conv_1, block.paths_1.conv_2"
        in told
    )
    assert "frozen by all until a: stem, a (2 of 11 layers, 188 parameters)" in told
    assert "outputs of the first 4" not in told
    old, new = engine.restore(source), engine.restore(tmp_path / "run", step="last")
    ours, theirs = leaves((new.params, new.model_state)), leaves((old.params, old.model_state))
    changed = {path for path, value in ours.items() if not same_bits(value, theirs[path])}
    in_block = {
        path.split("['paths'][0]")[1] for path in changed if path.startswith(("[0]['layers'][1]", "[1]['layers'][1]"))
    }
    assert in_block == {f"['layers'][1]['{name}']" for name in ("scale", "bias", "mean", "var")}
    assert "[0]['layers'][0]['kernel']" not in changed
    assert any("['layers'][3]" in path for path in changed)


def test_features_of_blocks_are_kept_and_change_nothing(source, four, tmp_path):
    reporter = Hears()
    config = tuned(source, epochs=2, freeze_until="block")
    kept = start(config, four, tmp_path / "kept", reporter)
    assert any("outputs of the first 3 layers for 130 training examples are kept" in text for text in reporter.said)
    off = replace(config, finetune=replace(config.finetune, cache_features="off"))
    anew = start(off, four, tmp_path / "anew")
    for ours, theirs in zip(kept.history, anew.history, strict=True):
        for name in ("loss", "validation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-6)


def test_trunk_stays_frozen_under_augmentation(source, four, tmp_path):
    config = tuned(source, epochs=1, freeze=("stem", "block", "top"))
    config = replace(config, augment=engine.AugmentConfig(horizontal_flip=True))
    start(config, four, tmp_path / "run")
    old, new = engine.restore(source), engine.restore(tmp_path / "run", step="last")
    ours, theirs = leaves((new.params, new.model_state)), leaves((old.params, old.model_state))
    changed = {path for path, value in ours.items() if not same_bits(value, theirs[path])}
    assert changed == {"[0]['layers'][5]['kernel']", "[0]['layers'][5]['bias']"}


def test_run_that_unfreezes_a_block_resumes_to_the_bit(source, four, tmp_path):
    config = replace(
        tuned(source, epochs=2, freeze=("stem", "block"), unfreeze=("1:block.paths_1", "1:a_bn")),
        plan=engine.PlanConfig(chunk_steps=1),
        checkpoint=engine.CheckpointConfig(every_steps=1, keep_last=100),
    )
    start(config, four, tmp_path / "whole")
    stopped(config, four, tmp_path / "parts", (2, 4))
    for step in range(1, 7):
        assert not content_differences(step_content(tmp_path / "whole", step), step_content(tmp_path / "parts", step))


def test_head_of_layers_takes_the_place_of_the_old_one(source, four):
    head = [Flatten(), Dense(6, "relu", name="hidden"), Dense()]
    result = engine.restore(source).finetune(four, head=head, freeze_until="top", epochs=1, verbose=False)
    assert result.config.model.layer_names == ("stem", "block", "max_pool_1", "top", "flatten_1", "hidden", "dense_2")
    assert result.config.finetune.head == ("flatten_1", "hidden", "dense_2")
    old, new = leaves(engine.restore(source).params), leaves(result.classifier.params)
    for path in ("['layers'][0]['kernel']", "['layers'][3]['layer']['paths'][0]['layers'][0]['kernel']"):
        assert same_bits(new[path], old[path])
    assert result.classifier.outputs(four.train.images[:2]).shape == (2, 4)
    np.testing.assert_allclose(result.classifier.outputs(four.train.images[:2]).sum(1), 1, rtol=1e-5)


def test_layer_that_is_renamed_in_a_block_is_refused_by_name(source, four):
    block = residual((Conv(4, padding="same", name="other"), *BLOCK.paths[0][1:]), name="block")
    model = NET.with_layer(1, block)
    with pytest.raises(engine.InputError, match=r"others \(other\)(.|\n)*other kernel: there nothing, here 3×3×4×4"):
        engine.finetune(source, four, model=model, verbose=False)

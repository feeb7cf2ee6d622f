"""`engine eval` and `engine summary`: which data is taken where none is named, and what is said where there is none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import engine
from engine.models import Conv, Dense, Flatten, Sequential
from tests.commands.test_data import command, mistake


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, engine.Result]:
    """A run on a folder of two classes, a quarter of it set aside, beside that folder."""
    root = tmp_path_factory.mktemp("judged")
    draw = np.random.default_rng(0)
    for k, name in enumerate(("ant", "bee")):
        (root / "data" / name).mkdir(parents=True)
        for i in range(10):
            levels = draw.integers(120 * k, 120 + 120 * k, (6, 6, 3), np.uint8)
            Image.fromarray(levels).save(root / "data" / name / f"{i}.png")
    data = engine.DataConfig(path=root / "data", validation_fraction=0.25)
    result = engine.fit(engine.mlp(()), data, epochs=1, batch_size=8, verbose=False)
    result.save(root / "run")
    return root / "run", result


def test_a_run_without_a_test_split_is_evaluated_on_the_share_set_aside(run, capsys):
    directory, result = run
    for options in ((), ("--data.split", "validation")):
        said = command(capsys, "eval", directory, *options)
        assert "data (validation share)" in said
        assert f"{result.metrics['validation']['loss']:.4f}" in said
    assert "│ 20 │" in command(capsys, "eval", directory, "--data.split", "train")
    said = mistake(capsys, "eval", directory, "--data.split", "test")
    assert "got 'test'; expected one of train, or validation, the share that the run set aside" in said


def test_thresholds_of_labels_are_options(capsys, tmp_path):
    marks = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5, np.uint8)
    images = np.zeros((20, 4, 4, 1), np.uint8)
    arrays = (images, marks)
    engine.fit(engine.mlp(()), arrays, epochs=0, loss="binary_cross_entropy", validation=None, verbose=False).save(
        tmp_path / "run"
    )
    np.savez(tmp_path / "test.npz", images=images, labels=marks)
    place = ("--data.path", tmp_path / "test.npz")
    plain, none = (command(capsys, "eval", tmp_path / "run", *place, *options) for options in (
        (), ("--thresholds", "0", "0.9", "1", "0.9")
    ))  # fmt: skip
    scores = engine.restore(tmp_path / "run").with_thresholds({"0": 0.9, "1": 0.9}).evaluate(arrays)
    assert f"{scores['accuracy']:.4f}" in none
    assert "0.5000" in plain


def test_the_share_of_data_that_has_changed_is_not_taken_for_the_one_set_aside(run, capsys, tmp_path):
    directory, _ = run
    kept = (directory.parent / "data" / "ant" / "0.png").read_bytes()
    Image.new("RGB", (6, 6)).save(directory.parent / "data" / "ant" / "0.png")
    try:
        said = mistake(capsys, "eval", directory, "--data.split", "validation")
        assert "of which this share was set aside" in said
    finally:
        (directory.parent / "data" / "ant" / "0.png").write_bytes(kept)
    for name in ("ant", "bee"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "0.png").write_bytes(kept)
    said = mistake(capsys, "eval", directory, "--data.path", tmp_path / "other", "--data.split", "validation")
    assert "data.split: got 'validation'" in said


EXPERIMENT = """
import engine
from engine.models import Conv, Dense, Flatten, Sequential
def config():
    data = engine.DataConfig("tf_flowers", image_size=(6, 6), color="rgb")
    return engine.RunConfig("absent", Sequential((Conv(4), Flatten(), Dense())), data)
"""


def test_summary_of_an_experiment_needs_no_data(capsys, in_tmp):
    (in_tmp / "absent.py").write_text(EXPERIMENT)
    model = Sequential((Conv(4), Flatten(), Dense()))
    said = command(capsys, "summary", "absent.py")
    assert f"{model.with_outputs(2).num_params((6, 6, 3)):,} parameters" in said
    said = command(capsys, "summary", "absent.py", "--classes", "5")
    assert f"{model.with_outputs(5).num_params((6, 6, 3)):,} parameters" in said
    assert "classes: got 1; expected 2 or more" in mistake(capsys, "summary", "absent.py", "--classes", "1")


def test_data_shows_a_single_picture(capsys, in_tmp):
    Image.fromarray(np.full((5, 7, 3), 9, np.uint8)).save("one.png")
    said = command(capsys, "data", "one.png")
    assert "5×7 (height×width)" in said
    assert "9 to 9, read as 3 channels" in said
    assert (in_tmp / "data.png").exists()

"""The recipes for photographs, on folders cut from the photographs inside scikit-image: they load, train and learn."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import engine
from engine.recipes import flowers, flowers_augmented, malaria
from engine.report.progress import Silent

data = pytest.importorskip("skimage.data", reason="needs the photographs of scikit-image")


def write_crops(folder: Path, names: tuple[str, ...], each: int, size: int) -> Path:
    """One class a photograph, its examples boxes of it, of random place."""
    draw = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        photograph = getattr(data, name)()
        for number in range(each):
            top, left = (draw.integers(0, side - size + 1) for side in photograph.shape[:2])
            crop = Image.fromarray(photograph[top : top + size, left : left + size])
            crop.save(folder / name / f"{number}.jpg", quality=90)
    return folder


@pytest.mark.parametrize(
    ("recipe", "shape", "outputs", "expected"),
    [
        (flowers, (180, 180, 3), 5, 3_989_285),
        (flowers_augmented, (180, 180, 3), 5, 3_989_285),
        (malaria, (32, 32, 3), 1, 758_401),
    ],
)
def test_recipe_has_the_parameters_it_should(recipe, shape, outputs, expected):
    assert recipe.config().model.with_outputs(outputs).num_params(shape) == expected


@pytest.mark.long
def test_augmented_flowers_learn_to_tell_photographs_apart(tmp_path: Path):
    folder = write_crops(tmp_path / "photographs", ("astronaut", "chelsea", "coffee", "rocket"), 40, 160)
    config = flowers_augmented.config()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=folder, cache_dir=tmp_path / "cache", image_size="96x96"),
        train=dataclasses.replace(config.train, epochs=6),
    )
    assert config.augment.is_active
    result = engine.run(config, tmp_path / "run", reporter=Silent())
    assert result.classifier.class_names == ("astronaut", "chelsea", "coffee", "rocket")
    assert result.metrics["validation"]["n"] == 32
    assert result.metrics["validation"]["accuracy"] > 0.6  # chance is 0.25
    predictions = engine.restore(tmp_path / "run").predict(folder / "coffee", tta=2)
    assert sum(prediction.label == "coffee" for prediction in predictions) > len(predictions) / 2


def test_malaria_learns_two_kinds_of_cells_and_keeps_the_epoch_with_the_lowest_loss(tmp_path: Path):
    folder = write_crops(tmp_path / "cells", ("immunohistochemistry", "chelsea"), 60, 48)
    config = malaria.config()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=folder, cache_dir=tmp_path / "cache"),
        train=dataclasses.replace(config.train, epochs=10, batch_size=16, patience=3),
    )
    result = engine.run(config, tmp_path / "run", reporter=Silent())
    losses = [row["validation_loss"] for row in result.history]
    assert result.metrics["validation"]["loss"] == pytest.approx(min(losses), rel=1e-4)
    assert result.metrics["validation"]["accuracy"] > 0.8

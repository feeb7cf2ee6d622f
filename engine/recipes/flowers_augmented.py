"""The convnet of the recipe flowers with random flips, turns and zooms before it and dropout in it.

    engine train flowers_augmented --data.path PATH
    engine augment PATH --augment.horizontal-flip --augment.rotation 36 --augment.zoom 0.1

The same 3,989,285 parameters. tests/runs/test_photograph_recipes.py trains it on crops of scikit-image's photographs.
"""

import engine
from engine.augment.presets import random_flip, random_rotation, random_zoom
from engine.recipes.flowers import data, model


def config() -> engine.RunConfig:
    """Adam 1e-3, batch 32, 15 epochs; mirrored, turned by up to a tenth of a circle, zoomed by up to a tenth."""
    return engine.RunConfig(
        "flowers_augmented",
        model(dropout=0.2),
        data(),
        engine.TrainConfig(epochs=15, batch_size=32, seed=123),
        engine.OptimConfig("adam", 1e-3),
        augment=random_flip("horizontal") | random_rotation(0.1) | random_zoom(0.1),
    )

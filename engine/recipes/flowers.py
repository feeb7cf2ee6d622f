"""A small convnet on photographs, 3,989,285 parameters for five classes, without augmentation.

    engine train flowers --data.path PATH      # one sub-folder a class; docs/data.md says what else

Without a path the tfds builder tf_flowers is used, which must be downloaded and prepared once.
"""

import engine
from engine.models import Conv, Dense, Dropout, Flatten, MaxPool, Sequential


def model(dropout: float = 0.0) -> Sequential:
    """Three convolutions with a pool after each, one hidden layer."""
    layers = []
    for filters in (16, 32, 64):
        layers += [Conv(filters, 3, padding="same", activation="relu"), MaxPool(2)]
    layers += [Dropout(dropout)] if dropout else []
    return Sequential((*layers, Flatten(), Dense(128, activation="relu"), Dense()))


def data() -> engine.DataConfig:
    """180×180 in colour, a fifth of the folder for validation."""
    return engine.DataConfig("tf_flowers", image_size="180x180", color="rgb", validation_fraction=0.2)


def config() -> engine.RunConfig:
    """Adam 1e-3, batch 32, 10 epochs."""
    train = engine.TrainConfig(epochs=10, batch_size=32, seed=123)
    return engine.RunConfig("flowers", model(), data(), train, engine.OptimConfig("adam", 1e-3))

"""Blood cells with or without parasites: five convolutions with overlapping pools, 758,401 parameters, early stopping.

    engine train malaria --data.path PATH      # two sub-folders, like Parasitized and Uninfected

Without a path the tfds builder malaria is used, which must be downloaded and prepared once.
"""

import engine
from engine.models import Conv, Dense, Dropout, Flatten, MaxPool, Sequential


def config() -> engine.RunConfig:
    """Adam 1e-3, batch 64, up to 30 epochs, until 10 in a row bring no lower validation loss; the best one is kept."""
    pool = MaxPool(2, strides=1)
    inner = Conv(16, 3, padding="same", activation="relu")
    head = (Dense(64, activation="relu"), Dropout(0.2), Dense(32, activation="relu"), Dropout(0.2), Dense())
    first = Conv(16, 3, activation="relu")
    return engine.RunConfig(
        "malaria",
        Sequential((first, pool, inner, inner, pool, inner, inner, pool, Flatten(), *head)),
        engine.DataConfig("malaria", image_size="32x32", color="rgb", validation_fraction=0.2),
        engine.TrainConfig(epochs=30, batch_size=64, loss="binary_cross_entropy", best_by="loss", patience=10),
        engine.OptimConfig("adam", 1e-3),
    )

"""Three convolutions with pools between them: the convnet of the Keras tutorials, 104,202 parameters.

    engine train convnet

On 2 cores of an Intel Xeon (Sapphire Rapids), fashion_mnist_12k, best of the epochs by validation, 2,000 test images:
2.5 s of training, test accuracy 0.852 ± 0.006 (n = 3); with --train.epochs 10 5 s, 0.874 ± 0.005 (n = 3).
All of Fashion-MNIST (--data.name fashion_mnist, 10,000 test images): 15 s, 0.901 ± 0.004 (n = 5; seed 0: 0.903).
"""

import engine
from engine.models import Conv, Dense, Flatten, MaxPool, Sequential


def config() -> engine.RunConfig:
    """RMSprop 1e-3, batch 64, 5 epochs."""
    model = Sequential(
        (
            Conv(32, 3, activation="relu"),
            MaxPool(2),
            Conv(64, 3, activation="relu"),
            MaxPool(2),
            Conv(128, 3, activation="relu"),
            Flatten(),
            Dense(),  # as many outputs as the data has classes
        )
    )
    return engine.RunConfig(
        "convnet",  # the run is kept in runs/, under this name
        model,
        engine.DataConfig("fashion_mnist_12k"),  # or DataConfig(path="flowers", image_size="180x180")
        engine.TrainConfig(epochs=5, batch_size=64),
        engine.OptimConfig("rmsprop", 1e-3),
    )

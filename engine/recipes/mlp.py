"""A very small multilayer perceptron, 6,442 parameters.

    engine train mlp

On 2 cores of an Intel Xeon (Sapphire Rapids), fashion_mnist_12k, best of the epochs by validation, 2,000 test images:
0.3 s of training, test accuracy 0.59 ± 0.17 (n = 3): plain SGD at this rate has not arrived after 10 epochs of 9,000
images, and where it is then depends on the draw of its sixteen hidden units.
"""

import engine
from engine.models import mlp


def config() -> engine.RunConfig:
    """SGD 0.01, batch 64, 10 epochs."""
    return engine.RunConfig(
        "mlp", mlp((8, 8)), train=engine.TrainConfig(epochs=10), optim=engine.OptimConfig("sgd", 0.01)
    )

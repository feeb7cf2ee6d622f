"""Two wide convolutions, each with a pool, 180,874 parameters.

    engine train convnet_wide

On 2 cores of an Intel Xeon (Sapphire Rapids), fashion_mnist_12k, best of the epochs by validation, 2,000 test images:
36 s of training, test accuracy 0.71 ± 0.02 (n = 3): plain SGD at this rate has not arrived after 5 epochs.
"""

import engine
from engine.models import cnn


def config() -> engine.RunConfig:
    """SGD 0.01, batch 64, 5 epochs."""
    return engine.RunConfig("convnet_wide", cnn((128, 128), pool_last=True), optim=engine.OptimConfig("sgd", 0.01))

"""Two wide convolutions, each with a pool, 180,874 parameters.

python -m experiments.convnet_wide
"""

import engine
from engine.models import cnn


def config() -> engine.RunConfig:
    """SGD 0.01, batch 64, 5 epochs."""
    return engine.RunConfig("convnet_wide", cnn((128, 128), pool_last=True), optim=engine.OptimConfig("sgd", 0.01))


if __name__ == "__main__":
    engine.main(config())

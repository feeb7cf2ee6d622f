"""The convnet without its pools, 712,202 parameters: seven times the weights and a smaller receptive field.

python -m experiments.convnet_no_pool
"""

import engine
from engine.models import cnn


def config() -> engine.RunConfig:
    """RMSprop 1e-3, batch 64, 5 epochs, as the convnet."""
    return engine.RunConfig(
        "convnet_no_pool", cnn((32, 64, 128), pool_size=None), optim=engine.OptimConfig("rmsprop", 1e-3)
    )


if __name__ == "__main__":
    engine.main(config())

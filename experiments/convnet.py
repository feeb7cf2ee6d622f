"""Three convolutions with pools between them: the convnet of the Keras book, 104,202 parameters.

python -m experiments.convnet
"""

import engine
from engine.models import cnn


def config() -> engine.RunConfig:
    """RMSprop 1e-3, batch 64, 5 epochs."""
    return engine.RunConfig("convnet", cnn((32, 64, 128)), optim=engine.OptimConfig("rmsprop", 1e-3))


if __name__ == "__main__":
    engine.main(config())

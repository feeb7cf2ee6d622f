"""A very small multilayer perceptron, 6,442 parameters.

python -m experiments.mlp
"""

import engine
from engine.models import mlp


def config() -> engine.RunConfig:
    """SGD 0.01, batch 64, 10 epochs."""
    return engine.RunConfig(
        "mlp", mlp((8, 8)), train=engine.TrainConfig(epochs=10), optim=engine.OptimConfig("sgd", 0.01)
    )


if __name__ == "__main__":
    engine.main(config())

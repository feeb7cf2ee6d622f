"""A convnet with batch norms for CIFAR-10, made to be fast on one GPU: 94 % is the goal; 1,972,792 parameters.

    engine train cifar_fast --data.path PATH      # a folder with one sub-folder for each class
    engine train cifar_fast                       # tfds's cifar10, prepared

Three stages of two 3×3 convolutions as in K. Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU (2024),
https://arxiv.org/abs/2404.00498, whose published 2.59 s on an A100 are the measure. The images have not been at hand:
its accuracy was never measured, its time a step on random images is in docs/benchmarks.md.
"""

import engine
from engine.models import Activation, BatchNorm, Conv, Dense, Flatten, Layer, MaxPool, Sequential


def model(filters: tuple[int, ...] = (64, 256, 256)) -> Sequential:
    """2×2 convolutions as they come, then stages: the pool after their first convolution, norms and gelu after both."""
    layers: list[Layer] = [Conv(24, 2, padding="valid"), Activation("gelu")]
    for count in filters:
        layers += [Conv(count, 3, padding="same", use_bias=False), MaxPool(2), BatchNorm(0.6, 1e-5), Activation("gelu")]
        layers += [Conv(count, 3, padding="same", use_bias=False), BatchNorm(0.6, 1e-5), Activation("gelu")]
    return Sequential((*layers, MaxPool(3), Flatten(), Dense(use_bias=False)))


def augment() -> engine.AugmentConfig:
    """Mirrored half of the time, and moved by up to two pixels."""
    return engine.AugmentConfig(horizontal_flip=True, crop_padding=2, fill="reflect")


def config() -> engine.RunConfig:
    """Nesterov momentum, up over two epochs and down to 0 over eight; batch 1,024."""
    return engine.RunConfig(
        "cifar_fast",
        model(),
        engine.DataConfig("cifar10"),
        engine.TrainConfig(epochs=10, batch_size=1024, label_smoothing=0.2, precision="bfloat16"),
        engine.OptimConfig("momentum", 0.5, momentum=0.85, weight_decay=1e-3, schedule="linear", warmup_epochs=2),
        augment=augment(),
    )

"""Trains a small run of one kind, as an experiment does: `python -m tests.processes.train KIND [OPTIONS]`.

The tests start it in one process with several devices, or in several processes.
"""

import sys
from dataclasses import replace

import numpy as np

from engine import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    EnsembleConfig,
    FineTuneConfig,
    OptimConfig,
    PlanConfig,
    RunConfig,
    TrainConfig,
    custom,
    dataset,
)
from engine.commands.experiment import main
from engine.models import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Sequential

NUM_EXAMPLES, CLASSES = 208, 4


def make_data(seed: int = 0):
    """Noise, of each class around another level: the last batch of an epoch is not full."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, NUM_EXAMPLES)
    images = random.normal(40 + 40 * labels[:, None, None, None], 40, (NUM_EXAMPLES, 8, 8, 1))
    return dataset(images.clip(0, 255).astype(np.uint8), labels)


def make_model(*norm):
    return Sequential(
        (Conv(16, 3, activation="relu"), *norm, MaxPool(2), Conv(16, 3, activation="relu"), Flatten(), Dropout(0.3),
         Dense())
    )  # fmt: skip


BASE = RunConfig(
    "scale",
    make_model(),
    DataConfig(source=custom(make_data), validation_fraction=0.25),
    TrainConfig(epochs=2, batch_size=32),
    OptimConfig("momentum", 0.05),
    checkpoint=CheckpointConfig(keep_last=3),
    augment=AugmentConfig(horizontal_flip=True, width_shift=0.2),
)
KINDS = {
    "resident": BASE,
    "norm": replace(BASE, model=make_model(BatchNorm())),
    "streamed": replace(BASE, plan=PlanConfig(placement="streamed")),
    "files": replace(BASE, data=DataConfig(validation_fraction=0.25), plan=PlanConfig(placement="streamed")),
    "mixed": replace(BASE, augment=AugmentConfig(mixup=0.2, cutmix=1.0, policy="rand_augment")),
    "members": replace(BASE, train=replace(BASE.train, members=2), ensemble=EnsembleConfig(combine="logits")),
    "accumulated": replace(
        BASE,
        model=make_model(BatchNorm()),
        train=replace(BASE.train, accumulate=4),
        optim=replace(BASE.optim, average_decay=0.9),
        augment=AugmentConfig(mixup=0.2),
    ),
    "whitened": replace(BASE, data=replace(BASE.data, standardize="zca"), plan=PlanConfig(placement="streamed")),
    "local": replace(BASE, train=replace(BASE.train, average_every=3)),
    "thawed": replace(BASE, finetune=FineTuneConfig(freeze=("conv_1",), unfreeze=("1:conv_1",))),
}

if __name__ == "__main__":
    main(KINDS[sys.argv[1]], sys.argv[2:])

"""The runs that are hurt: `python -m tests.faults.runs CASE [options of an experiment]`, six epochs of four steps.

CASES holds them by name; their data is the archive that `write_data` makes, given with --data.path.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import engine
from engine import AugmentConfig, CheckpointConfig, EnsembleConfig, OptimConfig, PlanConfig, RunConfig, TrainConfig
from engine.models import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Sequential, mlp

EPOCHS, STEPS_PER_EPOCH = 6, 4
CONVNET = Sequential((Conv(4, 3), BatchNorm(), MaxPool(2), Dropout(0.2), Flatten(), Dense()))
TRAIN = TrainConfig(epochs=EPOCHS, batch_size=64)
# Saves in the middle of epochs and at their ends, compiled calls of one and two steps.
CHECKPOINT, PLAN = CheckpointConfig(every_steps=3), PlanConfig(chunk_steps=2)


def _config(model: Sequential = CONVNET, train: TrainConfig = TRAIN, **parts) -> RunConfig:
    return RunConfig("hurt", model, **{"train": train, "plan": PLAN, "checkpoint": CHECKPOINT, **parts})


CASES: dict[str, Callable[[], RunConfig]] = {
    "mlp": lambda: _config(mlp((8,))),
    "convnet": lambda: _config(optim=OptimConfig("momentum", 0.05, schedule="cosine", warmup_epochs=1)),
    "augmented": lambda: _config(
        augment=AugmentConfig(horizontal_flip=True, width_shift=0.1, rotation=10.0, erasing=0.5)
    ),
    "early-stopped": lambda: _config(
        train=TrainConfig(epochs=EPOCHS, batch_size=64, patience=2), optim=OptimConfig("sgd", 0.5)
    ),
    "averaged": lambda: _config(optim=OptimConfig(average_decay=0.9)),
    "streamed": lambda: _config(plan=PlanConfig(chunk_steps=2, placement="streamed")),
    "thawed": lambda: _config(
        optim=OptimConfig(average_decay=0.9),
        finetune=engine.FineTuneConfig(freeze=("conv_*", "batch_norm_*"), unfreeze=("2:conv_1", "4:batch_norm_1")),
    ),
    "ensemble": lambda: _config(
        train=TrainConfig(epochs=EPOCHS, batch_size=64, members=2), ensemble=EnsembleConfig(temperature=True)
    ),
}
# For several processes: small to trace, which each of them does. The second has convolutions that our C++ computes.
SMALL = Sequential((Flatten(), Dense(8, activation="relu"), Dropout(0.2), Dense()))
DIRECT = Sequential((Conv(16, 3, activation="relu"), MaxPool(2), Dropout(0.2), Flatten(), Dense()))
CASES_OF_SEVERAL: dict[str, Callable[[], RunConfig]] = {
    "small": lambda: _config(SMALL, optim=OptimConfig("momentum", 0.05, schedule="cosine", warmup_epochs=1)),
    "direct": lambda: _config(DIRECT),
}


def write_data(path: Path) -> None:
    """Leaves 200 training, 50 validation and 70 test images of 8×8 in an .npz archive, the last batch not full."""
    import numpy as np

    from tests.conftest import make_dataset

    sizes = {"train": 200, "validation": 50, "test": 70}
    splits = {name: make_dataset(size, seed) for seed, (name, size) in enumerate(sizes.items())}
    images = {f"x_{name}": split.images for name, split in splits.items()}
    labels = {f"y_{name}": split.labels for name, split in splits.items()}
    np.savez(path, allow_pickle=False, **images, **labels)


if __name__ == "__main__":
    from tests.faults.inside import prepare

    prepare()
    engine.main(CASES[sys.argv[1]](), sys.argv[2:])

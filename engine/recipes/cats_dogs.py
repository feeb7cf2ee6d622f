"""Cats or dogs by MobileNet with a head of three layers: 5,853,890 parameters, in three stages.

    engine import mobilenet_128 --no-top                                   # to runs/mobilenet_128
    engine train cats_dogs --init runs/mobilenet_128 --data.path PetImages --stage features
    engine train cats_dogs --init runs/mobilenet_128 --data.path PetImages --stage frozen
    engine train cats_dogs --init runs/mobilenet_128 --data.path PetImages --stage finetune

features: the trunk is frozen, and what it gives is computed once. frozen: the same with augmentation, so that each
epoch sees other pictures. finetune: all but the first 18 layers train (20 as Keras counts them, with its input and a
layer that only pads), 5,817,986 parameters; this is the stage where none is named. Without --init all starts fresh.

Elsewhere, with the 25,000 pictures of Kaggle: frozen features 0.975, fine-tuned 0.985 validation accuracy. That folder
is not at hand here, so these are not reproduced; parity with Keras stands for them (docs/transfer.md).
"""

from dataclasses import replace
from typing import Literal

import engine
from engine.models import Dense, GlobalAveragePool, Sequential, mobilenet

Stage = Literal["features", "frozen", "finetune"]
HEAD = ("dense_*",)
LAST_FROZEN = "conv_dw_3_relu"
FLIPS_AND_TURNS = engine.AugmentConfig(horizontal_flip=True, rotation=36.0, zoom=0.2)


def model() -> Sequential:
    """MobileNet's trunk, the mean of each channel, and dense layers of 1024, 1024, 512 and one a class."""
    hidden = (Dense(units, "relu") for units in (1024, 1024, 512))
    return Sequential((*mobilenet(top=False).layers, GlobalAveragePool(), *hidden, Dense()))


def config(stage: Stage = "finetune") -> engine.RunConfig:
    """Adam 1e-3 for the head, 1e-4 for the trunk too; batch 32, 5 epochs."""
    data = engine.DataConfig(
        "cats_vs_dogs", image_size="128x128", color="rgb", validation_fraction=0.2, on_bad_file="skip"
    )
    optim = engine.OptimConfig("adam", 1e-4 if stage == "finetune" else 1e-3)
    run = engine.RunConfig("cats_dogs", model(), data, engine.TrainConfig(epochs=5, batch_size=32), optim)
    return replace(run, finetune=tuning(stage), augment=augmentation(stage))


def tuning(stage: Stage) -> engine.FineTuneConfig:
    """What starts from scratch and what is frozen in a stage."""
    if stage == "finetune":
        return engine.FineTuneConfig(head=HEAD, freeze_until=LAST_FROZEN)
    return engine.FineTuneConfig(head=HEAD, freeze=("conv*",))


def augmentation(stage: Stage) -> engine.AugmentConfig:
    """None for features that are computed once."""
    return engine.AugmentConfig() if stage == "features" else FLIPS_AND_TURNS

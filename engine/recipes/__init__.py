"""Recipes that ship with the package: a module each with `config()`, for `engine train`, to read and to copy.

Importable without JAX. Each docstring says how to start it, on which machine it was measured, and what to expect.
"""

from dataclasses import dataclass

GREY, SMALL, MEDIUM, LARGE = (28, 28, 1), (32, 32, 3), (128, 128, 3), (180, 180, 3)


@dataclass(frozen=True)
class Recipe:
    """What `engine recipes` lists of one."""

    about: str
    input_shape: tuple[int, int, int]
    """Of the data it was made for, [h w c]; its parameters are counted with it."""
    num_outputs: int
    accuracy: str
    """On test images: measured (mean ± standard deviation over seeds), or reported elsewhere for the same network."""


RECIPES = {
    "mlp": Recipe("a very small multilayer perceptron", GREY, 10, "0.59 ± 0.17"),
    "convnet": Recipe("three convolutions, as in the Keras tutorials", GREY, 10, "0.852 ± 0.006"),
    "convnet_wide": Recipe("two wide convolutions", GREY, 10, "0.71 ± 0.02"),
    "convnet_no_pool": Recipe("the convnet without its pools", GREY, 10, "0.878 ± 0.010"),
    "convnet_dropout": Recipe("two convolutions, two hidden layers, dropout", GREY, 10, "0.881 ± 0.002"),
    "ensemble": Recipe("ten small convnets together", GREY, 10, "0.938"),
    "fashion_fast": Recipe("a convnet with batch norms for one GPU", GREY, 10, "0.935"),
    "cifar_fast": Recipe("a convnet with batch norms for one GPU", SMALL, 10, "not measured"),
    "flowers": Recipe("a small convnet on photographs", LARGE, 5, "elsewhere 0.60"),
    "flowers_augmented": Recipe("the same with augmentation and dropout", LARGE, 5, "elsewhere 0.70"),
    "malaria": Recipe("blood cells, with early stopping", SMALL, 1, "elsewhere 0.957"),
    "cats_dogs": Recipe("MobileNet with another head, in three stages", MEDIUM, 2, "elsewhere 0.985"),
    "vgg_features": Recipe("a head on features of VGG16, in three stages", LARGE, 1, "elsewhere 0.985"),
}

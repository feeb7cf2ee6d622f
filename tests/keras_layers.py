"""Layers of Keras with arguments that leave nothing, or only a coin, to chance, and what they make of an image.

`python tests/keras_layers.py` writes tests/references/keras_tensorflow.npz: what Keras 3.15.1 on TensorFlow 2.21.0
makes of `image()`. The tests have Keras on JAX, which reads beyond the border in other ways, and no TensorFlow.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).parent / "references" / "keras_tensorflow.npz"
SEEDS = 12  # enough that both sides of a coin come up
FILL_VALUE = 37.0


class Layer(NamedTuple):
    """A layer of Keras by name, with the arguments that our preset takes, too; shape of the image."""

    name: str
    arguments: dict[str, Any]
    shape: tuple[int, int, int] = (9, 7, 3)


_GEOMETRY: dict[str, tuple[str, dict[str, Any]]] = {
    "rotation": ("RandomRotation", {"factor": (0.07, 0.07)}),
    "rotation clockwise": ("RandomRotation", {"factor": (-0.31, -0.31)}),
    "translation": ("RandomTranslation", {"height_factor": (0.213, 0.213), "width_factor": (-0.31, -0.31)}),
    "translation far": ("RandomTranslation", {"height_factor": (-0.93, -0.93), "width_factor": (0.96, 0.96)}),
    "translation by halves": ("RandomTranslation", {"height_factor": (0.5, 0.5), "width_factor": (-0.5, -0.5)}),
    "zoom out": ("RandomZoom", {"height_factor": (0.3, 0.3)}),
    "zoom out twice": ("RandomZoom", {"height_factor": (1.0, 1.0), "width_factor": (0.5, 0.5)}),
    "zoom in, width apart": ("RandomZoom", {"height_factor": (-0.43, -0.43), "width_factor": (0.2, 0.2)}),
    "shear": ("RandomShear", {"x_factor": (0.4, 0.4), "y_factor": (0.15, 0.15)}),
    "shear of x": ("RandomShear", {"x_factor": (0.9, 0.9)}),
}
_COLOR: dict[str, tuple[str, dict[str, Any]]] = {
    "brightness": ("RandomBrightness", {"factor": (0.2, 0.2)}),
    "darkness": ("RandomBrightness", {"factor": (-0.6, -0.6)}),
    "saturation": ("RandomSaturation", {"factor": (0.3, 0.3)}),
    "saturation higher": ("RandomSaturation", {"factor": (0.6, 0.6)}),
    "saturation negative": ("RandomSaturation", {"factor": (-0.4, -0.4)}),
    "hue": ("RandomHue", {"factor": (0.35, 0.35)}),
    "hue half": ("RandomHue", {"factor": (1.0, 1.0)}),
    "grayscale": ("RandomGrayscale", {"factor": 1.0}),
    "invert": ("RandomInvert", {"factor": (1.0, 1.0)}),
    "invert half of the time": ("RandomInvert", {"factor": 1.0}),
    "flip": ("RandomFlip", {"mode": "horizontal"}),
    "flip down": ("RandomFlip", {"mode": "vertical"}),
    "jitter": (
        "RandomColorJitter",
        {
            "brightness_factor": (0.1, 0.1), "contrast_factor": (0.0, 0.0), "saturation_factor": (0.4, 0.4),
            "hue_factor": (0.2, 0.2),
        },
    ),
}  # fmt: skip
FILLS, INTERPOLATIONS = ("constant", "nearest", "reflect", "wrap"), ("bilinear", "nearest")


def _layers() -> dict[str, Layer]:
    layers = {name: Layer(*layer) for name, layer in _COLOR.items()}
    for (name, (layer, arguments)), fill, interpolation in product(_GEOMETRY.items(), FILLS, INTERPOLATIONS):
        manner = {"fill_mode": fill, "interpolation": interpolation, "fill_value": FILL_VALUE}
        shape = (8, 6, 3) if "halves" in name or "twice" in name else (9, 7, 3)
        layers[f"{name}, {fill}, {interpolation}"] = Layer(layer, {**arguments, **manner}, shape)
    return layers


LAYERS = _layers()
ELASTIC = [(0.4, "reflect"), (0.9, "constant"), (0.9, "wrap"), (0.9, "nearest")]
ELASTIC_SHAPE = (48, 40, 3)
CORNERS = [0.3, -0.2, 0.1, 0.25, -0.3, 0.2, -0.15, -0.35]  # as RandomPerspective draws them, in shares


def image(shape: tuple[int, ...] = (9, 7, 3), seed: int = 0) -> np.ndarray:
    """float32[h w c] of whole levels."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


def outcomes(call: Callable[[int], np.ndarray]) -> np.ndarray:
    """[n h w c]: the different images that come out of so many draws, in an order of their own."""
    images = {np.asarray(call(seed), np.float32).tobytes(): np.asarray(call(seed), np.float32) for seed in range(SEEDS)}
    return np.stack([images[content] for content in sorted(images)])


def of_keras(keras: Any, layer: Layer) -> np.ndarray:
    """[n h w c]: what the layer makes of the image, one for each side of the coin that it throws."""
    shown = image(layer.shape)[None]

    def call(seed: int) -> np.ndarray:
        made = getattr(keras.layers, layer.name)(**layer.arguments, seed=seed)
        return np.asarray(made(shown, training=True))[0]

    return outcomes(call)


def in_perspective(keras: Any, interpolation: str) -> np.ndarray:
    """[h w c]: the image seen with its corners moved by CORNERS."""
    layer = keras.layers.RandomPerspective((1.0, 1.0), interpolation=interpolation, fill_value=FILL_VALUE)
    shown = image()[None]
    drawn = layer.get_random_transformation(shown, training=True)
    start = np.asarray(drawn["start_points"])
    end = start + start * np.array(CORNERS, np.float32).reshape(1, 4, 2)
    drawn = {**drawn, "end_points": keras.ops.convert_to_tensor(end, "float32")}
    return np.asarray(layer.transform_images(keras.ops.convert_to_tensor(shown), drawn))[0]


def elastic(scale: float, fill: str) -> tuple[np.ndarray, np.ndarray]:
    """([h w] noise, [h w c]): what Keras makes of the image; both directions have the same noise there."""
    import keras
    import tensorflow as tf

    shown, seed = image(ELASTIC_SHAPE)[None], np.array([3, 5], np.int32)
    height, width, _ = ELASTIC_SHAPE
    alpha, sigma = max(height, width) * 0.1 * scale, min(height, width) * 0.05 * scale
    noise = tf.random.stateless_normal((1, height, width), seed=seed)
    layer = keras.layers.RandomElasticTransform((1.0, 1.0), (scale, scale), "bilinear", fill, FILL_VALUE)
    found = layer.get_elastic_transform_params(height, width, scale)
    assert np.allclose(found, (alpha, sigma))
    drawn = {"apply_transform": tf.constant([True]), "distortion_factor": tf.constant(scale), "seed": seed}
    from keras.src.backend.tensorflow import image as backend

    backend.draw_seed = lambda seed: seed
    return noise[0].numpy(), layer.transform_images(tf.constant(shown), drawn)[0].numpy()


def main() -> None:
    """Writes the file."""
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    kept = {name: of_keras(keras, layer) for name, layer in LAYERS.items()}
    for interpolation in INTERPOLATIONS:
        kept[f"perspective, {interpolation}"] = in_perspective(keras, interpolation)
    for scale, fill in ELASTIC:
        noise, kept[f"elastic {scale}, {fill}"] = elastic(scale, fill)
        kept["elastic noise"] = noise
    np.savez_compressed(FILE, **{name: values.astype(np.float32) for name, values in kept.items()})


if __name__ == "__main__":
    main()

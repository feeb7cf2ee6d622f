"""Makes keras_resizes.npz: a noisy grey PNG in other sizes as Keras's own functions load it, on TensorFlow.

Run with keras 3.15.1, tensorflow 2.21.0, pillow 13.0.0 (in an environment of their own: the tests do not need them):

    python tests/pinned/make_keras_resizes.py

Names are HxW/hxw/interpolation/how. "stretch", "crop" and "pad" are `image_dataset_from_directory` as it is, with
crop_to_aspect_ratio and with pad_to_aspect_ratio (float32); "load_img" is `load_img`, as of `flow_from_directory`, and
"load_img_crop" the same with keep_aspect_ratio (uint8).
"""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

SHAPES = ((23, 31), (40, 13))
SIZES = ((11, 9), (33, 20))


def of_directory(directory: Path, size: tuple[int, int], interpolation: str, **how: bool) -> np.ndarray:
    """float32[h w]"""
    dataset = keras.utils.image_dataset_from_directory(
        directory.parent, labels=None, color_mode="grayscale", image_size=size, batch_size=1, shuffle=False,
        interpolation=interpolation, verbose=False, **how,
    )  # fmt: skip
    return next(iter(dataset)).numpy()[0, ..., 0]


def of_file(directory: Path, size: tuple[int, int], interpolation: str, **how: bool) -> np.ndarray:
    """uint8[h w]"""
    file = directory / "0.png"
    return np.asarray(keras.utils.load_img(file, "grayscale", target_size=size, interpolation=interpolation, **how))


def main() -> None:
    """Writes the file beside this one."""
    draw, made = np.random.default_rng(0), dict[str, Any]()
    for height, width in SHAPES:
        image = draw.integers(0, 256, (height, width), np.uint8)
        made[f"{height}x{width}"] = image
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "a"
            directory.mkdir()
            Image.fromarray(image).save(directory / "0.png")
            for size in SIZES:
                for interpolation in ("nearest", "bilinear", "bicubic", "lanczos3"):
                    name = f"{height}x{width}/{size[0]}x{size[1]}/{interpolation.removesuffix('3')}"
                    pil_name = interpolation.removesuffix("3")
                    made[f"{name}/stretch"] = of_directory(directory, size, interpolation)
                    made[f"{name}/crop"] = of_directory(directory, size, interpolation, crop_to_aspect_ratio=True)
                    made[f"{name}/pad"] = of_directory(directory, size, interpolation, pad_to_aspect_ratio=True)
                    made[f"{name}/load_img"] = of_file(directory, size, pil_name)
                    if interpolation == "nearest":
                        made[f"{name}/load_img_crop"] = of_file(directory, size, pil_name, keep_aspect_ratio=True)
    np.savez_compressed(Path(__file__).with_name("keras_resizes.npz"), **made)


if __name__ == "__main__":
    main()

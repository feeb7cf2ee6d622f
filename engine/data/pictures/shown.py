"""Inputs of models and maps of layers as pictures."""

import io

import numpy as np
from PIL import Image


def shown_levels(image: np.ndarray) -> np.ndarray:
    """uint8[h w 1] or [h w 3] of any image [h w c] or [h w].

    Levels stay as they are; other numbers are stretched from their least to their largest. Of two channels, or more
    than four, the mean is shown; of four the first three, as an alpha channel is the last.
    """
    image = np.asarray(image)[..., None] if np.ndim(image) == 2 else np.asarray(image)
    if image.shape[-1] == 4:
        image = image[..., :3]
    elif image.shape[-1] not in (1, 3):
        mean = image.mean(-1, keepdims=True)
        image = np.round(mean).astype(np.uint8) if image.dtype == np.uint8 else mean
    return image if image.dtype == np.uint8 else stretched(image)


def stretched(values: np.ndarray) -> np.ndarray:
    """uint8 of finite numbers: black for the least, white for the largest; black where all are the same."""
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    spread = high - low if high > low else 1
    return np.round(255 * (values - low) / spread).astype(np.uint8)


def png_bytes(image: np.ndarray) -> bytes:
    """A PNG of uint8[h w 1] or [h w 3]."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="png")
    return file.getvalue()

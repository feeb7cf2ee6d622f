"""Position embeddings of a vision transformer for images of another size than they were trained on."""

from math import isqrt

import numpy as np

SLOPE = -0.5  # of the cubic, as torch has it with antialiasing, and Pillow


def resize_positions(embedding: np.ndarray, num_tokens: int) -> np.ndarray:
    """float32[1 1+n d] → [1 num_tokens d]: the class token's stays, those of √n × √n patches are resized as an image.

    As timm's `resample_abs_pos_embed`: bicubic, antialiased. One of patches that are no square, before or after, is
    returned as it is, and so is what has other axes.
    """
    if embedding.ndim != 3:
        return embedding
    old, new = isqrt(max(1, embedding.shape[1]) - 1), isqrt(num_tokens - 1)
    if old in (0, new) or old**2 + 1 != embedding.shape[1] or new**2 + 1 != num_tokens:
        return embedding
    matrix = _bicubic(old, new)
    grid = embedding[0, 1:].reshape(old, old, -1).astype(np.float64)
    resized = np.einsum("yi,xj,ijd->yxd", matrix, matrix, grid, optimize=True)
    patches = resized.reshape(1, new * new, -1).astype(np.float32)
    return np.concatenate([embedding[:, :1], patches], axis=1)


def _bicubic(old: int, new: int) -> np.ndarray:
    """float64[new old]: the share of each old pixel in each new one (Keys 1981); wider where it shrinks."""
    scale = old / new
    centers = (np.arange(new)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(old)[None] + 0.5 - centers) / max(scale, 1)
    near = ((SLOPE + 2) * distance - (SLOPE + 3)) * distance**2 + 1
    far = SLOPE * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)

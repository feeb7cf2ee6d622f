"""Statistics fitted on the training images before training: channel statistics and the whitening matrix."""

from collections.abc import Iterator
from math import prod

import numpy as np

from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset
from engine.errors import InputError, problem, shape_text

BATCH_VALUES = 2**22
MOST_WHITENED = 4096


def channel_statistics(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation), float64[c] each: of the levels of each channel over all images and places.

    From sums of whole numbers, so exact and the same in whatever order images are read.
    """
    channels = dataset.input_shape[-1]
    total, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for levels in _batches(dataset):
        counts = np.stack([np.bincount(levels[..., c].ravel(), minlength=256) for c in range(channels)])  # [c 256]
        total += counts @ np.arange(256)
        squares += counts @ np.arange(256) ** 2
    count = len(dataset) * prod(dataset.input_shape[:-1])
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def whitening(dataset: Dataset, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """(mean float32[d], matrix float32[d d]): ZCA of the flattened, scaled images.

    `(x − mean) @ matrix` has the identity as covariance, up to epsilon, and stays as close to x as that allows:
    matrix = U (Λ + ε)^-½ Uᵀ for the covariance U Λ Uᵀ (Bell and Sejnowski 1997). Under `zca` the mean is that of each
    channel and, as ImageDataGenerator has it, matrix = √n U (S + ε)⁻¹ Uᵀ for the singular values S = √n Λ^½, at most n.
    """
    size = prod(dataset.input_shape)
    if size > MOST_WHITENED:
        got = f"images of {shape_text(dataset.input_shape)}, {size:,} numbers"
        remedy = "Use smaller images, or --data.standardize dataset."
        raise InputError(
            problem("data.standardize", f"{config.standardize} with {got}", f"at most {MOST_WHITENED:,}", remedy)
        )
    total, covariance = np.zeros(size), np.zeros((size, size))
    for levels in _batches(dataset):
        total += levels.reshape(-1, size).sum(0)
    scale, num = config.scale, len(dataset)
    mean = total / num
    if config.standardize == "zca":
        channels = dataset.input_shape[-1]
        mean = np.tile(mean.reshape(-1, channels).mean(0), size // channels)  # [c] → [d], channels last
    for levels in _batches(dataset):
        centred = (levels.reshape(-1, size) - mean) * scale
        covariance += centred.T @ centred
    variances, directions = np.linalg.eigh(covariance / num)
    if config.standardize == "zca":
        kept = slice(max(size - num, 0), None)  # fewer examples than numbers have no more directions than examples
        variances, directions = variances[kept], directions[:, kept]
        deviations = np.sqrt(np.maximum(variances, 0)) + config.zca_epsilon / np.sqrt(num)
    else:
        deviations = np.sqrt(np.maximum(variances, 0) + config.whiten_epsilon)
    matrix = (directions / deviations) @ directions.T
    return (mean * scale).astype(np.float32), matrix.astype(np.float32)


def _batches(dataset: Dataset) -> Iterator[np.ndarray]:
    size = max(1, BATCH_VALUES // prod(dataset.input_shape))
    return (dataset.images[start : start + size] for start in range(0, len(dataset), size))

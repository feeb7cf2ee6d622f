"""A data config → the splits of a run."""

from collections.abc import Callable

from engine.config import DataConfig
from engine.data.dataset import Dataset, Splits, split_by_fraction
from engine.data.images import InputSpec
from engine.data.tfds_source import load_tfds


def load_splits(config: DataConfig, seed: int, tell: Callable[[str], None] = print) -> Splits:
    """Training, validation and test data as the config says; `seed` draws the validation share."""
    train = load_tfds(config, config.split, tell)
    if config.validation_split:
        validation = load_tfds(config, config.validation_split, tell)
    else:
        train, validation = split_by_fraction(train, config.validation_fraction, seed)
    test = load_tfds(config, config.test_split, tell) if config.test_split else None
    return Splits(train, validation, test)


def input_spec(config: DataConfig, dataset: Dataset) -> InputSpec:
    """The input contract of a model trained on `dataset` under `config`."""
    is_uint8 = dataset.images.dtype == "uint8"
    return InputSpec(
        shape=dataset.input_shape,
        dtype=dataset.images.dtype.name,
        resize=config.resize if config.image_size else None,
        scale=config.scale if is_uint8 else 1.0,
        mean=config.mean,
        std=config.std,
    )

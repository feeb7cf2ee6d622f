"""A data config → the splits of a run."""

from collections.abc import Callable

from engine.config import DataConfig, RunConfig
from engine.data.dataset import Dataset, Splits, split_by_fraction
from engine.data.images import InputSpec
from engine.data.tfds_source import load_tfds
from engine.errors import InputError, problem


def load_splits(config: DataConfig, seed: int, tell: Callable[[str], None] = print) -> Splits:
    """Training, validation and test data as the config says; `seed` draws the validation share."""
    train = load_tfds(config, config.split, tell)
    if config.validation_split:
        validation = load_tfds(config, config.validation_split, tell, "data.validation_split")
    else:
        train, validation = split_by_fraction(train, config.validation_fraction, seed)
    test = load_tfds(config, config.test_split, tell, "data.test_split") if config.test_split else None
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


def num_outputs(config: RunConfig, train: Dataset) -> int:
    """How many outputs the loss needs for this data; raises InputError if the two do not go together."""
    loss, classes = config.train.loss, train.num_classes
    if loss == "mean_squared_error":
        if classes or train.labels.ndim != 2:
            got = f"{loss} with {classes} classes" if classes else f"targets of rank {train.labels.ndim}"
            raise InputError(problem("train.loss", got, "float targets [n d]", "Use another loss, or such targets."))
        return train.labels.shape[1]
    if not classes:
        raise InputError(problem("train.loss", f"{loss} with float targets", "class labels", "Use mean_squared_error."))
    if loss == "binary_cross_entropy":
        if classes != 2:
            rule = "2 classes"
            raise InputError(problem("train.loss", f"{loss} with {classes}", rule, "Use softmax_cross_entropy."))
        return 1
    return classes

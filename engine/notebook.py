"""fit(model, data), finetune(source, data): training for notebooks, with the parts of a run and none of its files."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from engine.augment.config import AugmentConfig
from engine.checkpoint import find_steps
from engine.clock import Clock
from engine.config import Loss, OptimConfig, OptimizerName, RunConfig, TrainConfig, check_model
from engine.data.classes import classes_of
from engine.data.config import DataConfig
from engine.data.dataset import Dataset, Splits, fingerprint_of, split_by_fraction
from engine.data.load import load_splits
from engine.ensemble import EnsembleClassifier, Restorable, classifier_of
from engine.errors import InputError, problem
from engine.finetuning import FeatureCaching, FineTuneConfig
from engine.interrupts import Interrupted
from engine.loop import train
from engine.models.layers import Dense
from engine.models.specs import Model, Sequential
from engine.predict import Classifier
from engine.report.progress import Reporter, Silent
from engine.result import Result
from engine.transfer import order_of, under_contract

Arrays = tuple[np.ndarray, np.ndarray]
Data = str | DataConfig | Splits | Dataset | Arrays
ClassNames = Sequence[str] | Mapping[Any, Any]


def fit(
    model: Model,
    data: Data,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float | None = None,
    optimizer: OptimizerName | OptimConfig = "adam",
    loss: Loss = "softmax_cross_entropy",
    validation: float | Dataset | Arrays | None = 0.1,
    class_names: ClassNames | None = None,
    scale: float = 1 / 255,
    augment: AugmentConfig | None = None,
    patience: int | None = None,
    members: int = 1,
    seed: int = 0,
    verbose: bool = True,
) -> Result:
    """Trains a model on data at hand and returns its history, metrics and classifier.

    model: layer specs (`cnn()`, `mlp()`, Sequential) or `custom(YourNNXClass, …)`.
    data: a tfds name, a DataConfig (which may name a path), Splits, a Dataset, or (images, labels): uint8[n h w c] or
      [n h w] with int labels [n], or float32[n …] inputs, shown to the model as they are, with any of the targets of
      `Dataset`.
    validation: share of the data set aside (Splits and a DataConfig say that themselves), or data of its own.
    scale: what uint8 pixels are multiplied by (a DataConfig says that itself).
    augment: random changes of the training images. patience: epochs without a better one until the training stops.
    members: models trained side by side as an ensemble; the result's classifier is then an EnsembleClassifier.
    optimizer: a name, used with `learning_rate` (None: 0.01 for sgd and momentum, else 0.001), or a whole OptimConfig.
    The run lives in a temporary directory as long as the result does; `result.save(path)` copies it. Ctrl-C saves
    there, and raises Interrupted, a KeyboardInterrupt, with the path.
    """
    check_model(model)
    if isinstance(data, DataConfig) and (scale != 1 / 255 or validation != 0.1):
        rule = "the DataConfig to say it"
        raise InputError(problem("validation, scale", "an argument beside a DataConfig", rule, "Set it there."))
    data_config = data if isinstance(data, DataConfig) else _data_config(data, validation, scale)
    train_config = TrainConfig(epochs, batch_size, loss, seed=seed, patience=patience, members=members)
    config = RunConfig("fit", model, data_config, train_config, _optim(optimizer, learning_rate))
    config = replace(config, augment=augment or AugmentConfig())
    return _trained(config, data, validation, class_names, verbose)


def finetune(
    source: Restorable,
    data: Data,
    *,
    head: Sequence[str] = (),
    freeze: Sequence[str] = (),
    freeze_first: int = 0,
    unfreeze: Mapping[int, Sequence[str]] | None = None,
    learning_rates: Mapping[str, float] | None = None,
    cache_features: FeatureCaching = "auto",
    model: Model | None = None,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float | None = None,
    optimizer: OptimizerName | OptimConfig = "adam",
    loss: Loss | None = None,
    validation: float | Dataset | Arrays | None = 0.1,
    class_names: ClassNames | None = None,
    augment: AugmentConfig | None = None,
    patience: int | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> Result:
    """Trains the model of a run, or of a classifier at hand, further on, or with a new head for other classes.

    What is shown to the model is the source's input contract; its classes are the data's. If these are the source's, by
    name and in any order, every layer is taken over, and the order of the outputs is the source's; else the last one
    with weights starts anew, or what `head` names.
    head, freeze, freeze_first, cache_features: as in FineTuneConfig, layers by name or pattern.
    unfreeze: epochs done → layers that train from there on: {2: ["conv_3"], 4: ["*"]}. learning_rates: layer → factor.
    model: another one, whose layers have those of the source among them by name. loss: by default that of the source.
    An ensemble is fine-tuned member by member; other arguments and the result are as of `fit`.
    """
    source = classifier_of(source, "source")
    spec, settings = source.input_spec, source.record.config.train
    given = data if isinstance(data, DataConfig) else _data_config(data, validation)
    tuning = FineTuneConfig(
        head=_names("head", head),
        freeze=_names("freeze", freeze),
        freeze_first=freeze_first,
        unfreeze=_unfreezings(unfreeze),
        learning_rates=_factors(learning_rates),
        cache_features=cache_features,
    )
    train_config = TrainConfig(
        epochs,
        batch_size,
        loss or settings.loss,
        seed=seed,
        patience=patience,
        members=len(source.members) if isinstance(source, EnsembleClassifier) else 1,
        precision="float32" if settings.precision == "tf32" else settings.precision,  # which a CPU has not
    )
    config = RunConfig(
        "finetune",
        model or _with_open_end(source.record.config.model),
        under_contract(given, spec),
        train_config,
        _optim(optimizer, learning_rate),
        augment=augment or AugmentConfig(),
        finetune=tuning,
    )
    return _trained(config, data, validation, class_names, verbose, source)


def _optim(optimizer: OptimizerName | OptimConfig, learning_rate: float | None) -> OptimConfig:
    if not isinstance(optimizer, OptimConfig):
        return OptimConfig(optimizer, learning_rate)  # type: ignore[arg-type]  # None is the optimizer's own
    if learning_rate is not None:
        rule = "that of the OptimConfig"
        raise InputError(problem("learning_rate", f"{learning_rate} beside an OptimConfig", rule, "Set it there."))
    return optimizer


def _data_config(data: Data, validation: Any, scale: float = DataConfig.scale) -> DataConfig:
    """What is kept of data at hand: its name, if it has one, and what is set aside."""
    name = data if isinstance(data, str) else "arrays"
    return DataConfig(name=name, validation_fraction=_fraction(validation), scale=scale)


def _fraction(validation: Any) -> float:
    """The share of the data to set aside, 0 where the validation data are others."""
    return float(validation) if isinstance(validation, (int, float)) else 0.0


def _names(field: str, layers: Any) -> tuple[str, ...]:
    """Names or patterns of layers; a single one needs no list."""
    names = (layers,) if isinstance(layers, str) else layers
    if not _are_texts(names):
        raise InputError(problem(f"finetune.{field}", repr(layers), "a list of layers by name", 'Give ["conv_*"].'))
    return tuple(names)


def _are_texts(given: Any) -> bool:
    return not isinstance(given, str) and isinstance(given, Iterable) and all(isinstance(text, str) for text in given)


def _unfreezings(layers: Any) -> tuple[str, ...]:
    """{2: ["conv_3"]} as FineTuneConfig has it, `2:conv_3`."""
    if not isinstance(layers, Mapping | None):
        rule = "epochs done, each with the layers that then train"
        raise InputError(problem("finetune.unfreeze", repr(layers), rule, 'Give it like {2: ["conv_3"]}.'))
    return tuple(f"{epoch}:{name}" for epoch, names in (layers or {}).items() for name in _names("unfreeze", names))


def _factors(rates: Any) -> tuple[str, ...]:
    """{"conv_*": 0.1} as FineTuneConfig has it, `conv_*=0.1`."""
    is_mapping = isinstance(rates, Mapping | None)
    if not is_mapping or not all(isinstance(factor, Real) for factor in (rates or {}).values()):
        rule = "layers, each with the factor of its learning rate"
        raise InputError(problem("finetune.learning_rates", repr(rates), rule, 'Give it like {"conv_*": 0.1}.'))
    return tuple(f"{pattern}={float(factor)!r}" for pattern, factor in (rates or {}).items())


def _with_open_end(model: Model) -> Model:
    """The model with as many outputs as the data asks for."""
    if not isinstance(model, Sequential):
        return model
    dense = [i for i, layer in enumerate(model.layers) if isinstance(layer, Dense)]
    last = dense[-1] if dense else -1
    return Sequential(tuple(replace(e, units=None) if i == last else e for i, e in enumerate(model.layers)))  # type: ignore[type-var]


def _trained(
    config: RunConfig,
    data: Data,
    validation: Any,
    class_names: ClassNames | None,
    verbose: bool,
    source: Classifier | None = None,
) -> Result:
    reporter, clock = Reporter() if verbose else Silent(), Clock()
    with clock.measure("data"):
        splits = _splits(data, validation, config, class_names, reporter, source)
    directory = Path(tempfile.mkdtemp(prefix="engine-fit-"))
    try:
        result = train(config, splits, directory, clock, reporter, source=source)
    except Interrupted as stop:
        raise Interrupted(f"{stop}; engine.restore({str(directory)!r}) opens it", stop.signal_number) from None
    except BaseException:
        if not find_steps(directory):
            shutil.rmtree(directory, ignore_errors=True)
        raise
    weakref.finalize(result, shutil.rmtree, directory, ignore_errors=True)
    return result


def dataset(
    images: np.ndarray, labels: np.ndarray, class_names: ClassNames | None = None, name: str = "arrays"
) -> Dataset:
    """A Dataset of arrays: uint8[n h w c] or [n h w] images or float32[n …] inputs, int[n] labels or float targets.

    class_names: a list that int labels are indices into, or {label: name}; by default each label that occurs is a class
      of that name. Raises InputError for other dtypes and shapes.
    """
    try:
        images, labels = np.asarray(images), np.asarray(labels)
    except ValueError as error:
        raise InputError(problem("arrays", str(error), "examples of one shape", "Make them equal in size.")) from None
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        rule = "uint8 pixels from 0 to 255, or float inputs"
        raise InputError(problem("images", images.dtype.name, rule, "Convert them with .astype(np.uint8)."))
    if images.ndim < 2:
        raise InputError(problem("images", f"rank {images.ndim}", "[n h w c], [n h w] or [n d]", "Reshape them."))
    if 0 in images.shape[1:]:
        raise InputError(problem("images", f"shape {images.shape}", "at least one value each", "Check the arrays."))
    if images.dtype != np.uint8:
        images = _finite_float32("images", images)
    if images.ndim == 3:
        images = images[..., None]  # [n h w] → [n h w 1]
    if np.issubdtype(labels.dtype, np.floating):
        labels = _finite_float32("labels", labels).reshape(
            len(labels), int(np.prod(labels.shape[1:]))
        )  # [n] or [n d] → [n d]
        names: tuple[str, ...] = ()
    elif np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1:
        labels, names = classes_of(labels, "label", class_names)
    else:
        got = f"{labels.dtype.name} of rank {labels.ndim}"
        rule = "class indices int[n], or float targets [n] or [n d]"
        raise InputError(problem("labels", got, rule, "One-hot labels become indices with .argmax(-1)."))
    return Dataset(images, labels, names, name, fingerprint_of(images, labels))


def _finite_float32(field: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        at = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InputError(problem(f"{field} of example {at}", "NaN or infinity", "finite float32", "Correct the data."))
    return values


def _splits(
    data: Data,
    validation: Any,
    config: RunConfig,
    class_names: ClassNames | None,
    reporter: Reporter,
    source: Classifier | None,
) -> Splits:
    if class_names is not None and isinstance(data, (str, DataConfig, Splits, Dataset)):
        raise InputError(problem("class_names", "names", "none: the data has its own", "Leave them out."))
    order = order_of(None, source.record if source else None)
    if isinstance(data, (str, DataConfig)):
        splits = load_splits(config.data, config.train.seed, reporter.say, order)
    elif isinstance(data, Splits):
        splits = data.in_classes(order(data.train.class_names), reporter.say)
    else:
        whole = data if isinstance(data, Dataset) else dataset(*_pair("data", data), class_names)
        whole = whole.in_classes(order(whole.class_names), "the model", reporter.say)
        splits = Splits(*split_by_fraction(whole, config.data.validation_fraction, config.train.seed))
    if validation is None or isinstance(validation, (int, float)):
        return splits
    is_dataset = isinstance(validation, Dataset)
    held_out = validation if is_dataset else dataset(*_pair("validation", validation), class_names, "validation arrays")
    return Splits(splits.train, held_out.in_classes(splits.train.class_names, "data", reporter.say), splits.test)


def _pair(field: str, data: Any) -> Arrays:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        rule = "a tfds name, a DataConfig, Splits, a Dataset or (images, labels)"
        raise InputError(problem(field, type(data).__name__, rule, "Pass one of these."))
    return data[0], data[1]

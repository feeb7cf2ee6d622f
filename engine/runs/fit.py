"""fit(model, data), finetune(source, data): training for notebooks, with the parts of a run and none of its files."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from engine.augment.config import AugmentConfig
from engine.checkpoints.record import Record
from engine.checkpoints.steps import find_steps
from engine.config import OptimConfig, RunConfig, TrainConfig, check_model
from engine.config.data import DataConfig, Layout
from engine.config.decoding import USUAL_COLORS, ValueRange
from engine.config.finetune import FeatureCaching
from engine.config.scoring import takes_numbers
from engine.data.contract import under_contract
from engine.data.decoded.dataset import Dataset, Splits, split_by_fraction
from engine.data.held_out import load_held_out
from engine.data.in_memory import ClassNames, Reading, as_targets, pair_of, read_dataset
from engine.data.load import load_splits
from engine.data.locate import located
from engine.errors import InputError, Say, problem
from engine.host.clock import Clock
from engine.host.interrupts import Interrupted
from engine.inference.classifier import Classifier, Examples
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.restore import Restorable, classifier_of
from engine.models.layer import Layer
from engine.models.specs import Model
from engine.records.custom import Custom, custom
from engine.report.progress import Reporter, Silent
from engine.runs.inputs import class_order
from engine.runs.loop import train
from engine.runs.result import Result
from engine.runs.tuning import read_tuning

Arrays = tuple[Any, Any]
Own = str | Custom | Callable[..., Any]  # a name, or code of the user's own
Data = str | PathLike[str] | DataConfig | Splits | Dataset | Arrays
DATA_RULE = "a path, a tfds name, a DataConfig, Splits, a Dataset or (images, labels)"


def fit(
    model: Model,
    data: Data,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float | None = None,
    optimizer: Own | OptimConfig = "adam",
    loss: Own = "softmax_cross_entropy",
    metrics: Sequence[Own] = (),
    validation: float | Examples | None = 0.1,
    class_names: ClassNames | None = None,
    scale: float = 1 / 255,
    value_range: ValueRange | None = None,
    layout: Layout = "auto",
    augment: AugmentConfig | None = None,
    patience: int | None = None,
    members: int = 1,
    seed: int = 0,
    verbose: bool = True,
) -> Result:
    """Trains a model on data at hand and returns its history, metrics and classifier.

    model: layer specs (`cnn()`, `mlp()`, Sequential) or `custom(YourNNXClass, …)`.
    data: a path (a folder of pictures, a table, arrays), a tfds name, a DataConfig, Splits, a Dataset, or
      (images, labels) of any form that `engine.dataset` takes.
    validation: share of the data set aside (Splits and a DataConfig say that themselves), or data of its own.
    scale: what uint8 pixels are multiplied by (a DataConfig says that itself).
    batch_size: 64 by default, or all training examples if these are fewer, which is reported.
    augment: random changes of the training images. patience: epochs without a better one until the training stops.
    members: models trained side by side as an ensemble; the result's classifier is then an EnsembleClassifier.
    optimizer: a name or a factory of your own (`optim.name`), used with `learning_rate` (None: 0.01 for sgd and
      momentum, else 0.001), or a whole OptimConfig.
    loss: a name, or a function of your own, (outputs [b k], targets) → [b]; metrics: more to report (`train.metrics`).
    value_range, layout: of (images, labels), as of `engine.dataset`.
    The run lives in a temporary directory as long as the result does; `result.save(path)` copies it. Ctrl-C saves
    there, and raises Interrupted, a KeyboardInterrupt, with the path.
    """
    check_model(model)
    if isinstance(data, DataConfig) and (scale != 1 / 255 or validation != 0.1):
        rule = "the DataConfig to say it"
        raise InputError(problem("validation, scale", "an argument beside a DataConfig", rule, "Set it there."))
    data_config = data if isinstance(data, DataConfig) else _data_config(data, validation, scale)
    objective = _objective(loss, metrics)
    train_config = TrainConfig(epochs, batch_size, **objective, seed=seed, patience=patience, members=members)
    config = RunConfig("fit", model, data_config, train_config, _optim(optimizer, learning_rate))
    config = replace(config, augment=augment or AugmentConfig())
    reading = Reading(value_range, layout=layout, are_targets=takes_numbers(train_config.loss))
    return _trained(config, data, validation, class_names, verbose, reading)


def finetune(
    source: Restorable,
    data: Data,
    *,
    head: Sequence[str | Layer] = (),
    freeze: Sequence[str] = (),
    freeze_first: int = 0,
    freeze_until: str | None = None,
    unfreeze: Mapping[int, Sequence[str]] | None = None,
    learning_rates: Mapping[str, float] | None = None,
    cache_features: FeatureCaching = "auto",
    model: Model | None = None,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float | None = None,
    optimizer: Own | OptimConfig = "adam",
    loss: Own | None = None,
    metrics: Sequence[Own] = (),
    validation: float | Examples | None = 0.1,
    class_names: ClassNames | None = None,
    value_range: ValueRange | None = None,
    layout: Layout = "auto",
    augment: AugmentConfig | None = None,
    patience: int | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> Result:
    """Trains the model of a run, or of a classifier at hand, further on, or with a new head for other classes.

    The model is fed by the source's input contract; its classes are the data's. If these are the source's, by
    name and in any order, every layer is taken over, and the order of the outputs is the source's; else the last one
    with weights starts from scratch, or what `head` names.
    head, freeze, freeze_first, freeze_until, cache_features: as in FineTuneConfig, layers by name or pattern. A head of
      layers, like [GlobalAveragePool(), Dense(64, "relu"), Dense()], takes the place of what follows the trunk.
    unfreeze: epochs done → layers that train from there on: {2: ["conv_3"], 4: ["*"]}. learning_rates: layer → factor.
    model: another one, whose layers have those of the source among them by name. loss: by default that of the source.
    An ensemble is fine-tuned member by member; other arguments and the result are as of `fit`.
    """
    source = classifier_of(source, "source")
    spec, settings = source.input_spec, source.record.config.train
    model, tuning = read_tuning(
        model or source.record.config.model.with_open_outputs(),
        head, freeze, freeze_first, freeze_until, unfreeze, learning_rates, cache_features,
    )  # fmt: skip
    train_config = TrainConfig(
        epochs, batch_size, **_objective(loss or _usual_loss(source.record), metrics), seed=seed, patience=patience,
        members=len(source.members) if isinstance(source, EnsembleClassifier) else 1,
        precision="float32" if settings.precision == "tf32" else settings.precision,  # a CPU has no tf32
    )  # fmt: skip
    config = RunConfig(
        "finetune",
        model,
        under_contract(data if isinstance(data, DataConfig) else _data_config(data, validation), spec),
        train_config,
        _optim(optimizer, learning_rate),
        augment=augment or AugmentConfig(),
        finetune=tuning,
    )
    reading = Reading(value_range, spec.usual_range, layout, takes_numbers(train_config.loss))
    return _trained(config, data, validation, class_names, verbose, reading, source)


def _usual_loss(record: Record) -> Own:
    """That of the source; of an imported trunk, which has no classes, the usual one."""
    is_trunk = record.provenance is not None and not record.class_names
    return TrainConfig.loss if is_trunk else record.config.train.loss


def _check_reading(data: Data, reading: Reading) -> None:
    if (reading.value_range is not None or reading.layout != "auto") and not isinstance(data, (tuple, list)):
        rule = "(images, labels), which these say more about"
        remedy = "Leave them out; a DataConfig and engine.dataset have their own."
        raise InputError(problem("value_range, layout", f"one with {type(data).__name__}", rule, remedy))


def _optim(optimizer: Own | OptimConfig, learning_rate: float | None) -> OptimConfig:
    if not isinstance(optimizer, OptimConfig):
        return OptimConfig(_as_named(optimizer), learning_rate)  # type: ignore[arg-type]  # None is the optimizer's own
    if learning_rate is not None:
        rule = "that of the OptimConfig"
        raise InputError(problem("learning_rate", f"{learning_rate} beside an OptimConfig", rule, "Set it there."))
    return optimizer


def _as_named(given: Own) -> str | Custom:
    """A name as it is, a function of the user's own as a config stores it."""
    return custom(given) if callable(given) else given


def _objective(loss: Own, metrics: Sequence[Own]) -> dict[str, Any]:
    """The fields of a TrainConfig for a loss and metrics."""
    return {"loss": _as_named(loss), "metrics": tuple(map(_as_named, metrics))}


def _data_config(data: Data, validation: Any, scale: float = DataConfig.scale) -> DataConfig:
    """What is kept of data at hand: its path or name, if it has one, and what is set aside."""
    config = DataConfig(name="arrays", validation_fraction=_fraction(validation), scale=scale)
    return located(data, config) if isinstance(data, (str, PathLike)) else config


def _fraction(validation: Any) -> float:
    """The share of the data to set aside, 0 where the validation data are others."""
    return float(validation) if isinstance(validation, Real) else 0.0


def _trained(
    config: RunConfig,
    data: Data,
    validation: Any,
    class_names: ClassNames | None,
    verbose: bool,
    reading: Reading,
    source: Classifier | None = None,
) -> Result:
    _check_reading(data, reading)
    reporter, clock = Reporter() if verbose else Silent(), Clock()
    with clock.measure("data"):
        splits = _splits(data, validation, config, class_names, reading, reporter.say, source)
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


def _splits(
    data: Data,
    validation: Any,
    config: RunConfig,
    class_names: ClassNames | None,
    reading: Reading,
    say: Say,
    source: Classifier | None,
) -> Splits:
    if class_names is not None and isinstance(data, (str, PathLike, DataConfig, Splits, Dataset)):
        raise InputError(problem("class_names", "names", "none: the data has its own", "Leave them out."))
    order = class_order(None, source.record if source else None)
    if isinstance(data, (str, PathLike, DataConfig)):
        splits = load_splits(config.data, config.train.seed, say, order)
    elif isinstance(data, Splits):
        splits = data.in_classes(order(data.train.class_names), say)
    else:
        pair = data if isinstance(data, Dataset) else pair_of(data, "data", DATA_RULE)
        whole = pair if isinstance(pair, Dataset) else read_dataset(*pair, class_names, "arrays", reading, say)
        whole = whole.in_classes(order(whole.class_names), "the model", say)
        splits = Splits(*split_by_fraction(whole, config.data.validation_fraction, config.train.seed))
    if validation is None or isinstance(validation, Real):
        return splits
    held_out = _held_out(validation, config.data, splits.train, class_names, reading, say)
    return Splits(splits.train, held_out.in_classes(splits.train.class_names, "data", say), splits.test)


def _held_out(
    validation: Any, config: DataConfig, train: Dataset, class_names: ClassNames | None, reading: Reading, say: Say
) -> Dataset:
    """Validation data of its own, read like those that are trained on."""
    if isinstance(validation, str | PathLike):
        color = USUAL_COLORS.get(train.images.shape[-1]) if train.images.dtype == "uint8" else None
        levels = train.levels or train.value_range
        validation = load_held_out(validation, config, levels, color, say, splits=("validation", "test"))
    if isinstance(validation, Dataset):
        return validation if train.class_names else as_targets(validation)
    pair = pair_of(validation, "validation", "a share like 0.1, a path, a Dataset or (images, labels)")
    usual = train.value_range or reading.usual_range
    known = replace(reading, usual_range=usual, are_targets=not train.class_names, of="validation ")
    return read_dataset(*pair, class_names, "validation arrays", known, say)

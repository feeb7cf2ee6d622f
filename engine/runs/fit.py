"""fit(model, data), finetune(source, data): training for notebooks, with the parts of a run and none of its files."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from engine.augment.config import AugmentConfig
from engine.checkpoints.record import Record
from engine.checkpoints.run_directory import open_run
from engine.checkpoints.steps import find_steps
from engine.config import BestIs, OptimConfig, RunConfig, TrainConfig, check_model
from engine.config.data import Layout
from engine.config.decoding import ValueRange
from engine.config.finetune import FeatureCaching
from engine.config.scoring import read_needs
from engine.config.sweep import Sweep, with_sweep
from engine.config.train import ClassWeights, Precision, Sampling, weight_pairs
from engine.data.contract import under_contract
from engine.data.in_memory import ClassNames, Reading
from engine.devices.precision import computes
from engine.errors import InputError, problem
from engine.host.clock import Clock
from engine.host.interrupts import Interrupted
from engine.host.xla_cache import keep_programs_unless_set
from engine.inference.classifier import Classifier
from engine.inference.data_in import Examples
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.restore import Restorable, classifier_of
from engine.models.layer import Layer
from engine.models.specs import Model
from engine.records.custom import Custom, custom
from engine.report.pictures import Pictures
from engine.report.progress import Reporter, Silent
from engine.runs.alike import check_same_start, load_in_turn
from engine.runs.arguments import explains_arguments
from engine.runs.callbacks import make_callbacks
from engine.runs.fit_data import Data, Given, ImageSize
from engine.runs.inputs import follow_record
from engine.runs.loop import train
from engine.runs.needed_kernels import begin_kernels
from engine.runs.result import Result
from engine.runs.together import as_one_voice, claim, record_from_first, report_other_views
from engine.runs.tuning import read_tuning
from engine.trackers.table import Log

Own = str | Custom | Callable[..., object]  # a name, or code of the user's own
RunDir = str | PathLike[str] | None


@explains_arguments
def fit(
    model: Model,
    data: Data,
    *,
    epochs: int = 5, batch_size: int = 64,
    learning_rate: float | None = None,
    optimizer: Own | OptimConfig = "adam",
    loss: Own = "softmax_cross_entropy", metrics: Sequence[Own] = (), label_smoothing: float = 0.0,
    class_weight: ClassWeights | None = None, sampling: Sampling = "shuffled",
    validation: float | Examples | None = 0.1,
    class_names: ClassNames | None = None, image_size: ImageSize | None = None,
    scale: float = 1 / 255, value_range: ValueRange | None = None, layout: Layout = "auto",
    augment: AugmentConfig | Own | None = None,
    best_by: str = "accuracy", best_is: BestIs | None = None,
    patience: int | None = None, min_delta: float = 0.0, start_epoch: int = 0,
    members: int = 1, folds: int | None = None, sweep: Sweep = (),
    precision: Precision = "float32", accumulate: int = 1, seed: int = 0,
    run_dir: RunDir = None, resume: bool = False, allow_change: Sequence[str] = (), callbacks: Sequence[Any] = (),
    log: Log = (), verbose: bool = True,
) -> Result:  # fmt: skip
    """Trains a model on data at hand and returns its history, metrics and classifier.

    model: layer specs (`cnn()`, `mlp()`, Sequential) or `custom(YourNNXClass, …)`.
    data: a path (a folder of pictures, a table, arrays), a tfds name, a DataConfig, Splits, a Dataset, or
      (images, labels) of any form that `engine.dataset` takes.
    validation: share of the data set aside (Splits and a DataConfig say that themselves), or data of its own.
    image_size: (height, width) that the pictures of a path or a tfds name are resized to; a DataConfig has its own.
    scale: what uint8 pixels are multiplied by (a DataConfig says that itself).
    batch_size: 64 by default, or all training examples if these are fewer, which is reported.
    augment: random changes of the training images; or a function of your own, (key, image [h w c]) → image.
    best_by, best_is, patience, min_delta, start_epoch, label_smoothing: as in TrainConfig.
    members: models trained side by side as an ensemble; the result's classifier is then an EnsembleClassifier.
    folds: cross-validation, in place of a validation share: as many members, each validated on the part of the
      data that it is not trained on; result.metrics["validation"] has means and deviations (`accuracy_deviation`).
    sweep: {"optim.learning_rate": [1e-4, 1e-3, 1e-2]}, a member for each value, of which the best one predicts; of
      several fields for each combination. Or texts, as --sweep has them (docs/sweeps.md).
    precision: what the network computes in, like "bfloat16"; weights and losses are float32 (`train.precision`).
    accumulate: parts of a batch that are computed one after another, to save memory (`train.accumulate`).
    optimizer: a name or a factory of your own (`optim.name`), used with `learning_rate` (None: 0.01 for sgd and
      momentum, 0.1 for lars, else 0.001), or a whole OptimConfig.
    loss: a name, or a function of your own, (outputs [b k], targets) → [b]; metrics: more to report (`train.metrics`).
    class_weight: "balanced", or what multiplies the training loss of each class, {"cat": 1, "dog": 5} or by index.
    sampling: "balanced" draws all classes equally often.
    value_range, layout: of (images, labels), as of `engine.dataset`.
    run_dir: where the run is kept, and resumed with `resume` and `allow_change` as of `engine.run`; by default a
      temporary directory that lives as long as the result does; `result.save(path)` copies it. Ctrl-C saves there, and
      raises Interrupted, with the path.
    callbacks: objects like engine.Callback. log: to "tensorboard", "wandb", "mlflow" or several of them, from run_dir.
    """
    check_model(model)
    train_config = TrainConfig(
        epochs, batch_size, as_named(loss, "loss"), label_smoothing, seed, best_by, best_is, patience, members,
        metrics=names_in(metrics, "metrics"), min_delta=min_delta, start_epoch=start_epoch, precision=precision,
        accumulate=accumulate, folds=folds, class_weight=weight_pairs(class_weight), sampling=sampling,
    )  # fmt: skip
    reading = Reading(value_range, None, layout, *read_needs(train_config.loss))
    given = Given(data, validation, class_names, reading, scale, image_size)
    optim = read_optimizer(optimizer, learning_rate)
    config = RunConfig("fit", model, given.make_config(), train_config, optim, augment=read_augment(augment))
    return _train(with_sweep(config, sweep), given, (run_dir, resume, allow_change), (callbacks, log), verbose)


@explains_arguments
def finetune(
    source: Restorable,
    data: Data,
    *,
    head: Sequence[str | Layer] = (),
    freeze: Sequence[str] = (), freeze_first: int = 0, freeze_until: str | None = None,
    unfreeze: Mapping[int, Sequence[str]] | None = None,
    learning_rates: Mapping[str, float] | None = None,
    cache_features: FeatureCaching = "auto",
    model: Model | None = None,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float | None = None,
    optimizer: Own | OptimConfig = "adam",
    loss: Own | None = None, metrics: Sequence[Own] = (), label_smoothing: float = 0.0,
    class_weight: ClassWeights | None = None, sampling: Sampling = "shuffled",
    validation: float | Examples | None = 0.1,
    class_names: ClassNames | None = None,
    value_range: ValueRange | None = None, layout: Layout = "auto",
    augment: AugmentConfig | Own | None = None,
    best_by: str = "accuracy", best_is: BestIs | None = None,
    patience: int | None = None, min_delta: float = 0.0, start_epoch: int = 0,
    precision: Precision | None = None, accumulate: int = 1,
    seed: int = 0,
    run_dir: RunDir = None, resume: bool = False, allow_change: Sequence[str] = (), callbacks: Sequence[Any] = (),
    log: Log = (), verbose: bool = True,
) -> Result:  # fmt: skip
    """Trains the model of a run, or of a classifier at hand, further on, or with a new head for other classes.

    The model is fed by the source's input contract; its classes are the data's. If these are the source's, by
    name and in any order, every layer is taken over, and the order of the outputs is the source's; else the last one
    with weights starts from scratch, or what `head` names.
    head, freeze, freeze_first, freeze_until, cache_features: as in FineTuneConfig, layers by name or pattern. A head of
      layers, like [GlobalAveragePool(), Dense(64, "relu"), Dense()], takes the place of what follows the trunk.
    unfreeze: epochs done → layers that train from there on: {2: ["conv_3"], 4: ["*"]}. learning_rates: layer → factor.
    model: another one, whose layers have those of the source among them by name.
    loss, precision: by default those of the source.
    An ensemble is fine-tuned member by member; other arguments and the result are as of `fit`.
    """
    source = classifier_of(source, "source")
    spec, settings = source.input_spec, source.record.config.train
    model, tuning = read_tuning(
        model or source.record.config.model.with_open_outputs(),
        head, freeze, freeze_first, freeze_until, unfreeze, learning_rates, cache_features,
    )  # fmt: skip
    train_config = TrainConfig(
        epochs, batch_size, as_named(loss or _usual_loss(source.record), "loss"), label_smoothing, seed, best_by,
        best_is, patience, len(source.members) if isinstance(source, EnsembleClassifier) else 1,
        precision=precision or ("float32" if settings.precision == "tf32" else settings.precision),  # a CPU has no tf32
        accumulate=accumulate,
        metrics=names_in(metrics, "metrics"), min_delta=min_delta, start_epoch=start_epoch,
        class_weight=weight_pairs(class_weight), sampling=sampling,
    )  # fmt: skip
    reading = Reading(value_range, spec.usual_range, layout, *read_needs(train_config.loss))
    given, optim = Given(data, validation, class_names, reading), read_optimizer(optimizer, learning_rate)
    config = RunConfig("finetune", model, under_contract(given.make_config(), spec), train_config, optim)
    config = replace(config, augment=read_augment(augment), finetune=tuning)
    return _train(config, given, (run_dir, resume, allow_change), (callbacks, log), verbose, source)


def _usual_loss(record: Record) -> Own:
    """That of the source; of an imported trunk, which has no classes, the usual one."""
    is_trunk = record.provenance is not None and not record.class_names
    return TrainConfig.loss if is_trunk else record.config.train.loss


def read_optimizer(optimizer: Own | OptimConfig, learning_rate: float | None) -> OptimConfig:
    """The optimizer by name, by a factory of the user's own, or as it is given."""
    if not isinstance(optimizer, OptimConfig):
        if callable(learning_rate):
            rule, remedy = "a number", "Write optimizer=engine.OptimConfig(…, schedule=…): docs/learning_rate.md."
            raise InputError(problem("learning_rate", "a schedule", rule, remedy))
        return OptimConfig(as_named(optimizer, "optimizer"), learning_rate)  # type: ignore[arg-type]  # None is the optimizer's own
    if learning_rate is not None:
        rule = "that of the OptimConfig"
        raise InputError(problem("learning_rate", f"{learning_rate} beside an OptimConfig", rule, "Set it there."))
    return optimizer


def read_augment(augment: AugmentConfig | Own | None) -> AugmentConfig:
    """The random changes as they are given, or those of one function of the user's own."""
    if augment is None or isinstance(augment, AugmentConfig):
        return augment or AugmentConfig()
    if not callable(augment) and not isinstance(augment, Custom):
        rule, remedy = "an AugmentConfig or a function", "Write augment=engine.AugmentConfig(horizontal_flip=True)."
        raise InputError(problem("augment", repr(augment)[:80], rule, remedy))
    return AugmentConfig(custom=(augment if isinstance(augment, Custom) else custom(augment),))


def as_named(given: Own, field: str) -> str | Custom:
    """A name as it is, a function of the user's own as a config stores it."""
    if callable(given):
        return custom(given)
    if not isinstance(given, str | Custom):
        rule = "a name, or a function that makes it, which a checkpoint can store"
        raise InputError(
            problem(
                field,
                f"a {type(given).__name__}",
                rule,
                "Give its factory, as in optimizer=engine.custom(optax.adam, b1=0.8).",
            )
        )
    return given


def names_in(given: Sequence[Own], field: str) -> tuple[str | Custom, ...]:
    """Several of them."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        got = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
        raise InputError(problem(field, got, "a list", f"Put it in brackets: {field}=[…]."))
    return tuple(as_named(each, field) for each in given)


@computes
def _train(
    config: RunConfig,
    given: Given,
    place: tuple[RunDir, bool, Sequence[str]],
    calls: tuple[Sequence[Any], Log],
    verbose: bool,
    source: Classifier | None = None,
) -> Result:
    """Trains in the directory, or in a temporary one that is removed with the result."""
    callbacks = make_callbacks(config, *calls, has_directory=place[0] is not None)
    keep_programs_unless_set(config.data.cache_dir)
    begin_kernels(config)
    reporter, (run_dir, resume, allow_change) = as_one_voice(Reporter() if verbose else Silent()), place
    check_same_start(config)

    def train_in(directory: Path, config: RunConfig, resumed: Record | None = None) -> Result:
        clock, start = Clock(), None if resumed else source
        with clock.measure("data"):
            splits = load_in_turn(lambda: given.load(config, reporter.say, resumed, start and start.record))
        pictures = Pictures(directory, may_wait=run_dir is None)
        parts = {"source": start, "callbacks": callbacks, "pictures": pictures}
        return train(config, splits, directory, clock, reporter, resumed, **parts)

    if run_dir is not None:
        with claim(run_dir) as directory:
            record = record_from_first(lambda: open_run(directory, config, resume, False, reporter.say, allow_change))
            report_other_views(directory, reporter.say)
            config = follow_record(config, record, reporter.say, allow_change) if record else config
            return train_in(directory, config, record)
    if resume:
        raise InputError(problem("resume", "True", "False without run_dir", "Pass run_dir, the run to resume."))
    directory = Path(tempfile.mkdtemp(prefix="engine-fit-"))
    try:
        result = train_in(directory, config)
    except Interrupted as stop:
        go_on = f"fit(…, run_dir={str(directory)!r}, resume=True) goes on, engine.restore({str(directory)!r}) opens it"
        raise Interrupted(f"{stop}; {go_on}", stop.signal_number) from None
    except BaseException:
        if not find_steps(directory):
            shutil.rmtree(directory, ignore_errors=True)
        raise
    weakref.finalize(result, shutil.rmtree, directory, ignore_errors=True)
    return result

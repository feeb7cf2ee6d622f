"""The config and data of a run before it trains: loaded, in the order of classes of an earlier run, matched."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from engine.checkpoints.changes import check_changeable, in_terms_of
from engine.checkpoints.packing import opened
from engine.checkpoints.record import Record
from engine.checkpoints.steps import choose_step, read_record
from engine.config import RunConfig
from engine.config.correction import put_right
from engine.config.data import DataConfig
from engine.config.named import name_of
from engine.data.classes.matching import same_classes
from engine.data.contract import under_contract
from engine.data.coverage import check_several_classes, class_notes
from engine.data.decoded.dataset import Splits
from engine.data.folds import divide_in_folds
from engine.data.in_memory import fitting
from engine.data.load import ClassOrder, load_splits, load_splits_intact
from engine.data.pictures.ranges import find_usual
from engine.data.weighing import weight_notes
from engine.devices.mesh import check_mesh
from engine.errors import InputError, Say, problem
from engine.host.storage import expanded
from engine.metrics.stopping import has_stopped_early
from engine.models.specs import Model
from engine.records import check_whole
from engine.runs.own_outputs import read_outputs
from engine.text import counted

MOST_SHOWN = 5  # layers
NOT_COMPUTED = ("units", "kernel_initializer", "kernel_regularizer", "rate", "momentum")


def follow_record(config: RunConfig, record: Record, say: Say, allow_change: Iterable[str] = ()) -> RunConfig:
    """The config of a resumed run, with what was corrected when it was started, and what was changed since."""
    stored, given, config = record.config, config, in_terms_of(record, config, check_changeable(allow_change))
    if config.optim != given.optim:
        say("optimizer and activations mean what they did when the run was begun (optim.rules optax)")
    elif config.model != given.model:
        say("activations mean what they did when the run was begun")
    return replace(config, model=stored.model, data=replace(config.data, scale=stored.data.scale))


def longer_config(last: Record, history: Sequence[Any], epochs: int, patience: int | None) -> RunConfig:
    """The config of a run that has ended, for more epochs; raises InputError if it cannot go on as it was."""
    problems, optim, train = check_whole("epochs", epochs, 1, "Give 3 or so."), last.config.optim, last.config.train
    if len(last.history) != len(history):
        got, rule = f"a result after {len(history)} epochs", f"that after {len(last.history)}, which the run now has"
        problems.append(problem("train_on", got, rule, "Use the result of the last call of train_on."))
    if not optim.is_open_ended:
        got = f"the schedule {name_of(optim.schedule)}, which ends after {counted(train.epochs, 'epoch')}"
        remedy = "Train longer from the start, or: engine.finetune(result.classifier, data)."
        problems.append(problem("train_on", got, "one that does not depend on the number of epochs", remedy))
    if problems:
        raise InputError(*problems)
    patience = train.patience if patience is None else patience
    config = replace(last.config, train=replace(train, epochs=last.epochs_done + epochs, patience=patience))
    if patience is not None and has_stopped_early(config.train, last.history):
        got, rule = f"{patience}, which is used up", "more epochs without a better one"
        raise InputError(problem("patience", got, rule, f"Pass patience={patience + epochs}."))
    return config


def load_inputs(config: RunConfig, splits: Splits | None, resumed: Record | None, say: Say) -> Splits:
    """The splits of a run, loaded unless at hand, with their classes in the order of its outputs."""
    check_mesh(config.plan.mesh)  # first: data may take long to load
    start = resumed or read_init_record(config)
    order = class_order(resumed, start)
    if splits is None:
        load = load_splits_intact if resumed else load_splits
        splits = load(_data_config(config, start), config.train.seed, say, order)
    return splits.in_classes(order(splits.train.class_names), say)


def match_to_data(
    config: RunConfig, splits: Splits, source: Record | None, resumed: Record | None = None
) -> tuple[RunConfig, Splits, list[str]]:
    """(config, splits, notes): what the data or the run to start from decides is corrected in a new run, and noted.

    source: the record of a model at hand to start from, whose input contract holds. resumed: that of the run to resume.
    """
    source, given = source or (None if resumed else read_init_record(config)), splits.train.task
    known = resumed or source
    splits = fitting(splits, config.train.loss, known and known.task)
    check_several_classes(splits.train)
    splits, of_folds = divide_in_folds(config, splits)
    if resumed is not None:
        return config, splits, []
    gives, has_levels = read_outputs(config, splits.train), splits.train.images.dtype == "uint8"
    of_data = (source is not None, gives, has_levels, splits.train.task)
    config, corrected = put_right(config, splits.train.extremes, *of_data)
    config, followed = follow_source(config, source)
    if splits.train.extremes and (usual := find_usual(splits.train.extremes)):
        scaled = "picture files are scaled to that when the model predicts them"
        corrected.append(f"the images are floats from {usual[0]:g} to {usual[1]:g}; {scaled}")
    if (given, splits.train.task) == ("classes", "labels"):
        corrected.append("the class of each picture is its one label, as the model to start from has several a picture")
    config, reduced = _with_batch_within(config, splits)
    untrained = ["warning: 0 epochs: nothing is trained; the model is evaluated and saved as it starts"]
    idle = untrained if config.train.epochs == 0 else []
    weighed = weight_notes(config.train.class_weight, splits.train, bool(config.train.folds))
    return config, splits, [*corrected, *followed, *reduced, *class_notes(splits), *weighed, *of_folds, *idle]


def read_init_record(config: RunConfig) -> Record | None:
    """The record of the run that a config starts from."""
    if config.finetune.init is None:
        return None
    with opened(expanded(config.finetune.init)) as directory:
        return read_record(directory, choose_step(directory))


def class_order(resumed: Record | None, start: Record | None) -> ClassOrder:
    """The order in which a run has its classes.

    That of the run it resumes; or that of the run it starts from, whose outputs it then takes over, if the classes are
    the same; else that of the data.
    """
    if resumed is not None:
        return lambda names: resumed.class_names
    known = start.class_names if start else ()
    return lambda names: known if same_classes(names, known) else names


def _data_config(config: RunConfig, known: Record | None) -> DataConfig:
    """What data to load; of a run that starts from another one, under the input contract of `known`.

    known: the record of the run that is resumed, or of the run to start from.
    """
    if config.finetune.init is None and known and known.input_spec.levels == "type":
        return replace(config.data, levels="type")  # the run was started before there was this setting
    if config.finetune.init is None:
        return config.data
    assert known is not None
    return under_contract(config.data, known.input_spec)


def follow_source(config: RunConfig, source: Record | None) -> tuple[RunConfig, list[str]]:
    """(the config with activations as the run to start from means them, a line for what that or any layer changes).

    In older runs, gelu is its form by tanh and leaky_relu has a slope of 0.01.
    """
    if source is None:
        return config, []
    theirs, notes = source.config.model, []
    before = config.in_terms_of_version_1("model")
    if source.config.optim.rules == "optax" and len(_unlike(before.model, theirs)) < len(_unlike(config.model, theirs)):
        config = before
        notes = ["activations mean what they did when the run to start from was trained, gelu by tanh among them"]
    unlike = _unlike(config.model, theirs)
    rest = [f"warning: {len(unlike) - MOST_SHOWN} more layers differ from those there"] * (len(unlike) > MOST_SHOWN)
    return config, [*notes, *unlike[:MOST_SHOWN], *rest]


def _unlike(ours: Model, theirs: Model) -> list[str]:
    """A line for each layer that the other model has by name, and computes otherwise, whatever its weights are."""
    known, lines = dict(zip(theirs.layer_names, theirs.layers, strict=True)), []
    for name, layer in zip(ours.layer_names, ours.layers, strict=True):
        fields = [field for field in vars(layer) if field not in NOT_COMPUTED] if name in known else []
        there, here = ({field: getattr(of, field, None) for field in fields} for of in (known.get(name), layer))
        changed = [
            f"{field} {here[field]} here, {there[field]} there" for field in fields if here[field] != there[field]
        ]
        if changed:
            lines.append(f"warning: {name} is not as in the run to start from: {'; '.join(changed)}")
    return lines


def _with_batch_within(config: RunConfig, splits: Splits) -> tuple[RunConfig, list[str]]:
    """(the config with a batch size by default that the training examples fill, a line if they are fewer)."""
    count = splits.least_trained
    size, config = config.train.batch_size, config.with_batch_within(count)
    if config.train.batch_size == size:
        return config, []
    reason = f"of the {size} by default, because there are {count:,} training examples"
    return config, [f"train.batch_size: {config.train.batch_size} in place {reason}"]

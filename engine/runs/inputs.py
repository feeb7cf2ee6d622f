"""The config and data of a run before it trains: loaded, in the order of classes of an earlier run, matched."""

from dataclasses import replace

from engine.checkpoints.packing import opened
from engine.checkpoints.record import Record
from engine.checkpoints.run_directory import in_terms_of
from engine.checkpoints.steps import choose_step, read_record
from engine.config import RunConfig
from engine.config.correction import put_right
from engine.config.data import DataConfig
from engine.data.classes.matching import same_classes
from engine.data.contract import under_contract
from engine.data.coverage import check_several_classes, class_notes
from engine.data.decoded.dataset import Splits
from engine.data.in_memory import fitting
from engine.data.load import ClassOrder, load_splits, load_splits_intact
from engine.errors import Say
from engine.host.storage import expanded
from engine.runs.own_outputs import read_outputs


def follow_record(config: RunConfig, record: Record, say: Say) -> RunConfig:
    """The config of a resumed run, with what was corrected when the run was started."""
    if in_terms_of(record.config, config) != config:
        say("optimizer and activations mean what they did when the run was begun (optim.rules optax)")
        config = in_terms_of(record.config, config)
    stored = record.config
    return replace(config, model=stored.model, data=replace(config.data, scale=stored.data.scale))


def load_inputs(config: RunConfig, splits: Splits | None, resumed: Record | None, say: Say) -> Splits:
    """The splits of a run, loaded unless at hand, with their classes in the order of its outputs."""
    start = resumed or read_init_record(config)
    order = class_order(resumed, start)
    if splits is None:
        load = load_splits_intact if resumed else load_splits
        splits = load(_data_config(config, start), config.train.seed, say, order)
    return splits.in_classes(order(splits.train.class_names), say)


def match_to_data(
    config: RunConfig, splits: Splits, has_source: bool, is_resumed: bool
) -> tuple[RunConfig, Splits, list[str]]:
    """(config, splits, notes): what the data decides is corrected in the config of a new run, and noted.

    has_source: the run starts from a model at hand, whose input contract holds.
    """
    splits = fitting(splits, config.train.loss)
    check_several_classes(splits.train)
    if is_resumed:
        return config, splits, []
    has_contract = has_source or config.finetune.init is not None
    config, notes = put_right(config, splits.train.extremes, has_contract, read_outputs(config, splits.train))
    return config, splits, [*notes, *class_notes(splits)]


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

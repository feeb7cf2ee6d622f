"""The data that a model is evaluated on, read as its training data were."""

from os import PathLike
from typing import Any

from engine.checkpoints.record import Record
from engine.config.data import DataConfig, Layout
from engine.config.decoding import ValueRange
from engine.data.decoded.dataset import Dataset, Splits
from engine.data.held_out import load_held_out
from engine.data.in_memory import ClassNames, Reading, read_dataset, unpack_arrays
from engine.data.load import load_splits
from engine.errors import InputError, problem, shape_text
from engine.host.console import tell

Examples = Dataset | tuple[Any, Any] | str | PathLike[str]
Evaluable = Examples | DataConfig | Splits


def read_examples(
    data: Evaluable, record: Record, value_range: ValueRange | None, layout: Layout, class_names: ClassNames | None
) -> Dataset:
    """What `Classifier.evaluate` is given, as a Dataset.

    value_range, layout, class_names: of (images, labels); raises InputError for them beside anything else.
    """
    spec, config = record.input_spec, record.config
    if not isinstance(data, tuple | list):
        if (shape := getattr(data, "shape", None)) is not None:
            got, rule = f"an array {shape_text(shape)} by itself", "images and labels as one"
            raise InputError(problem("data", got, rule, "Pass them in brackets: evaluate((images, labels))."))
        if value_range is not None or layout != "auto" or class_names is not None:
            got, rule = f"one with {type(data).__name__}", "(images, labels), which these say more about"
            raise InputError(problem("value_range, layout, class_names", got, rule, "Leave them out."))
        if isinstance(data, Dataset):
            return data
        if isinstance(data, str | PathLike):
            return load_held_out(data, config.data, spec.levels, spec.color, tell)
        if isinstance(data, Splits | DataConfig):
            return _held_out(data if isinstance(data, Splits) else load_splits(data, config.train.seed, tell))
    arrays = unpack_arrays(data, "data", "a path, a tfds name, a DataConfig, Splits, a Dataset or (images, labels)")
    layout = config.data.layout if layout == "auto" else layout
    reading = Reading(value_range, spec.usual_range, layout, not record.class_names, record.task == "labels")
    return read_dataset(arrays, class_names, "data", reading, tell)


def _held_out(splits: Splits) -> Dataset:
    for name, dataset in (("test", splits.test), ("validation", splits.validation)):
        if dataset is not None:
            tell(f"data: the {name} split is used")
            return dataset
    rule = "a test or validation split among them"
    raise InputError(problem("data", "training data alone", rule, "Pass the Dataset to evaluate on."))

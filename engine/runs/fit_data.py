"""The data that `fit` and `finetune` are given, as the splits of a run."""

from dataclasses import dataclass, replace
from numbers import Real
from os import PathLike
from typing import Any

from engine.checkpoints.record import Record
from engine.config import RunConfig
from engine.config.data import DataConfig
from engine.config.decoding import USUAL_COLORS
from engine.data.decoded.dataset import Dataset, Splits, split_by_fraction
from engine.data.held_out import load_held_out
from engine.data.in_memory import ClassNames, Reading, as_task, read_dataset, unpack_arrays
from engine.data.load import load_splits, load_splits_intact
from engine.data.locate import located
from engine.errors import InputError, Say, problem
from engine.runs.inputs import class_order

Arrays = tuple[Any, Any] | tuple[Any, Any, Any]
Data = str | PathLike[str] | DataConfig | Splits | Dataset | Arrays
ImageSize = str | tuple[int, int]  # 180x180 or (180, 180)
DATA_RULE = "a path, a tfds name, a DataConfig, Splits, a Dataset or (images, labels)"


@dataclass(frozen=True)
class Given:
    """Data at hand, validation data or a share to set aside, the names of classes, and how arrays are read.

    scale: what uint8 pixels are multiplied by; a DataConfig says that itself.
    image_size: what the pictures of a path or a tfds name are resized to.
    Raises InputError for arguments that the data says itself, or has no use for.
    """

    data: Data
    validation: Any
    class_names: ClassNames | None
    reading: Reading
    scale: float = DataConfig.scale
    image_size: ImageSize | None = None

    def __post_init__(self):
        data, reading = self.data, self.reading
        if isinstance(data, DataConfig) and (self.scale != DataConfig.scale or self.validation != 0.1):
            rule = "the DataConfig to say it"
            raise InputError(problem("validation, scale", "an argument beside a DataConfig", rule, "Set it there."))
        if (reading.value_range is not None or reading.layout != "auto") and not isinstance(data, (tuple, list)):
            rule = "(images, labels), which these say more about"
            remedy = "Leave them out; a DataConfig and engine.dataset have their own."
            raise InputError(problem("value_range, layout", f"one with {type(data).__name__}", rule, remedy))
        if self.image_size is not None and not isinstance(data, (str, PathLike)):
            rule = "a path or a tfds name, whose pictures are resized"
            remedy = "Set it in the DataConfig." if isinstance(data, DataConfig) else "Resize arrays before."
            raise InputError(problem("image_size", f"one with {type(data).__name__}", rule, remedy))
        if self.class_names is not None and isinstance(data, (str, PathLike, DataConfig, Splits, Dataset)):
            raise InputError(problem("class_names", "names", "none: the data has its own", "Leave them out."))

    def make_config(self) -> DataConfig:
        """What is kept of the data: its path or name, if it has one, and what is set aside."""
        if isinstance(self.data, DataConfig):
            return self.data
        fraction = float(self.validation) if isinstance(self.validation, Real) else 0.0
        layout = self.reading.layout
        config = DataConfig(name="arrays", validation_fraction=fraction, scale=self.scale, layout=layout)
        if not isinstance(self.data, (str, PathLike)):
            return config
        return located(self.data, replace(config, image_size=self.image_size))  # type: ignore[arg-type]  # a pair becomes a text

    def load(self, config: RunConfig, say: Say, resumed: Record | None, source: Record | None) -> Splits:
        """The splits, in the order of classes of the run to resume or to start from, if there is one."""
        try:
            return self._load(config, say, resumed, source)
        except InputError as error:
            if error.field != "data.validation_fraction" or isinstance(self.data, DataConfig):
                raise
            raise InputError(problem("validation", error.got, str(error.rule), str(error.remedy))) from None

    def _load(self, config: RunConfig, say: Say, resumed: Record | None, source: Record | None) -> Splits:
        order, data = class_order(resumed, source), self.data
        if isinstance(data, (str, PathLike, DataConfig)):
            load = load_splits_intact if resumed else load_splits
            splits = load(config.data, config.train.seed, say, order)
        elif isinstance(data, Splits):
            splits = data.in_classes(order(data.train.class_names), say)
        else:
            pair = data if isinstance(data, Dataset) else unpack_arrays(data, "data", DATA_RULE)
            is_read = isinstance(pair, Dataset)
            whole = pair if is_read else read_dataset(pair, self.class_names, "arrays", self.reading, say)
            whole = whole.in_classes(order(whole.class_names), "the model", say)
            splits = Splits(*split_by_fraction(whole, config.data.validation_fraction, config.train.seed))
        if self.validation is None or isinstance(self.validation, Real):
            return splits
        held_out = self._read_held_out(config.data, splits.train, say)
        return Splits(splits.train, held_out.in_classes(splits.train.class_names, "data", say), splits.test)

    def _read_held_out(self, config: DataConfig, train: Dataset, say: Say) -> Dataset:
        """Validation data of its own, read like those that are trained on."""
        validation = self.validation
        if isinstance(validation, str | PathLike):
            color = USUAL_COLORS.get(train.images.shape[-1]) if train.images.dtype == "uint8" else None
            levels = train.levels or train.value_range
            validation = load_held_out(validation, config, levels, color, say, splits=("validation", "test"))
        if isinstance(validation, Dataset):
            return as_task(validation, train.task)
        pair = unpack_arrays(validation, "validation", "a share like 0.1, a path, a Dataset or (images, labels)")
        usual = train.value_range or self.reading.usual_range
        known = replace(self.reading, usual_range=usual, are_targets=not train.class_names, of="validation ")
        known = replace(known, are_several=train.task == "labels")
        return read_dataset(pair, self.class_names, "validation arrays", known, say)


def load(
    data: str | PathLike[str] | DataConfig,
    *,
    image_size: ImageSize | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Splits:
    """The Splits of a path, a tfds name or a DataConfig: Datasets of arrays, `splits.train.images`, `.labels`.

    image_size, validation: as of `fit`, which takes the Splits too; `seed` draws the validation share.
    """
    given = Given(data, validation, None, Reading(), image_size=image_size)
    return load_splits(given.make_config(), seed)

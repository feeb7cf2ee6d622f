"""DataConfig: where images come from and what a model is shown of them."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Suppress

from engine.config.decoding import ColorMode, Decoding, Interpolation, Levels, ResizeRule
from engine.config.matters import NOTHING, PROGRAM, RESULT
from engine.errors import problem
from engine.host.encodings import is_text_codec
from engine.records import ADDED, check, check_all
from engine.records.custom import Custom

BadFileRule = Literal["stop", "skip"]
Layout = Literal["auto", "channels_last", "channels_first"]
Standardization = Literal["dataset", "dataset_center", "example", "example_center", "whiten", "zca"]
FITTED = ("dataset", "dataset_center", "whiten", "zca")  # on the training split
MOST_PIXELS = 89_478_485  # of an image that is made; Pillow's own limit of those that are read
FollowLinks = Literal["on", "off"]
SplitRule = Literal["keras"]


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from and what the model is shown of them."""

    name: str = "fashion_mnist_12k"
    """Any tfds image-classification builder; fashion_mnist_12k comes with the package."""
    path: Annotated[Path | None, NOTHING] = None
    """Data of your own in place of a name: a folder of images, a CSV table, arrays (.npz, .npy, IDX), prepared tfds."""
    source: Annotated[Custom | None, Suppress] = None
    """Data of your own in place of a name or path: custom(function, …) of one that returns Splits, a Dataset, (images,
    labels) or a Source."""
    split: str = "train"
    """Split to train on; of tfds data in its notation: train, train[:80%], train+validation, …"""
    validation_split: str | None = None
    """Split to validate on; None: validation where data.path has it, else validation_fraction of the training split."""
    validation_fraction: float = 0.1
    """Share of the training split set aside for validation (drawn by the seed) when no split is named; 0 for none."""
    stratified: bool = False
    """Set aside the same share of every class."""
    test_split: str | None = "test"
    """Split evaluated once, at the end, if the data has it; None for no test."""
    image_feature: str | None = None
    """Which feature of tfds data is the picture; None: image, or the first one that is a picture."""
    label_feature: str | None = None
    """Which feature of tfds data is the class; None: label, or the first one that is a class."""
    path_column: str | None = None
    """Column of a table that names the files, by its name or, without a header, its number; None: as it is named."""
    label_column: str | None = None
    """Column of a table that holds the labels, by its name or number; several, like x,y, hold the numbers of a
    regression; None: as it is named."""
    label_separator: str | None = field(default=None, kw_only=True, metadata=ADDED)
    """What stands between several labels in a cell of a table, like | in cat|dog; None: a cell is one label."""
    weight_column: str | None = field(default=None, kw_only=True, metadata=ADDED)
    """Column of a table that says how much each example counts, numbers of 0 or more; None: all the same."""
    group_column: str | None = field(default=None, kw_only=True, metadata=ADDED)
    """Column of a table, by its name or number, whose rows of one value (a patient, a place) stay together: in one fold
    of train.folds, or all in the validation share or none."""
    image_directory: Annotated[Path | None, NOTHING] = None
    """Where the paths in a table start; None: beside the table, or where they are found near it."""
    suffix: str | None = None
    """What file names in a table lack at their end, like .jpg; None: found where it is clear."""
    encoding: str | None = None
    """Encoding of a table, like cp1250; None: UTF-8 or UTF-16, else the one in which its words are words."""
    class_names: tuple[str, ...] | None = None
    """Classes in the order of the model's outputs, others are left out; None: all, sorted."""
    follow_links: FollowLinks | None = None
    """Whether linked folders are read: on or off; None: on, but off with split-as keras, as there."""
    split_as: SplitRule | None = None
    """keras: list a folder's files, and set the validation share aside, exactly as Keras's
    image_dataset_from_directory does for the seed of the run; None: as this package does."""
    image_size: str | None = None
    """Height and width that images are resized to, like 180x180; None keeps their own, which must then be equal."""
    resize: ResizeRule = "stretch"
    """How images get that size: stretch, crop (fill and cut the middle), pad (fit and fill with black), or shorter, as
    torchvision and timm: the shorter side becomes size / crop_share, then the middle is cut out."""
    crop_share: float = field(default=1.0, kw_only=True, metadata=ADDED)
    """With resize shorter, the share that is kept of the shorter side, like 0.875."""
    interpolation: Interpolation = "bilinear"
    """What is between pixels when images are resized: nearest, bilinear, bicubic or lanczos."""
    antialias: bool = True
    """Average over all pixels where images get smaller, as Pillow and torchvision do; off as in Keras's pipelines."""
    levels: Levels = None
    """Black and white of pictures with more than 8 bits, like 0 4095; None: as their tags say, else by a rule that is
    reported; type: the ends of their type, as before there was this setting."""
    max_pixels: int | None = None
    """Most pixels of a picture, decoded, so that none fills the memory; None: 89,478,485."""
    center_crop: Annotated[str | None, RESULT | PROGRAM] = None
    """Height and width that are cut out of the middle of images of image_size before the model sees them, like 160x160;
    augment.random_crop cuts them out of a random place in training."""
    color: ColorMode | None = None
    """Colour mode that images are turned into; None keeps their own, of files rgb."""
    layout: Layout = "auto"
    """Where arrays have their channels; auto: first where the shape leaves no doubt, which is reported, else last."""
    background: tuple[int, int, int] = (0, 0, 0)
    """Colour (red, green, blue) that transparent pictures are laid over."""
    on_bad_file: BadFileRule = "stop"
    """What a file that cannot be read does: stop and name all of them, or skip them and continue."""
    scale: float = 1 / 255
    """What pixels (0 to 255) are multiplied by before the model sees them; 1 where the model rescales by itself."""
    mean: tuple[float, ...] | None = None
    """Subtracted after scaling, one number or one a channel."""
    std: tuple[float, ...] | None = None
    """Divided by after scaling and subtracting, one number or one a channel."""
    standardize: Standardization | None = None
    """Mean 0 and deviation 1 of each channel over the training split (dataset) or of each image (example), or the mean
    alone (…_center); whiten: ZCA about the mean image of the training split; zca: as Keras, about means of channels."""
    whiten_epsilon: float = 0.01
    """Added to the variances that whiten divides by, those of pixels from 0 to 1."""
    zca_epsilon: float = 1e-6
    """Added to the singular values that zca divides by, as Keras's zca_epsilon."""
    data_dir: Annotated[Path | None, NOTHING] = None
    """Where tfds keeps prepared data; None for its own default."""
    manual_dir: Annotated[Path | None, NOTHING] = None
    """Where files lie that were downloaded by hand."""
    cache_dir: Annotated[Path | None, NOTHING] = None
    """Where decoded images are cached; None for $ENGINE_CACHE_DIR or ~/.cache/engine."""

    def __post_init__(self):
        if isinstance(self.follow_links, bool):
            object.__setattr__(self, "follow_links", "on" if self.follow_links else "off")
        for name in ("image_size", "center_crop"):  # (180, 180), as Keras has it, is 180x180
            if isinstance(size := getattr(self, name), int | tuple | list):
                object.__setattr__(self, name, "x".join(map(str, size if isinstance(size, tuple | list) else (size,))))
        if isinstance(self.source, Custom):
            object.__setattr__(self, "name", self.source.name)
        check_all(self, "data", self._range_problems)

    def _range_problems(self) -> list[str]:
        # Builders of a namespace (huggingface:…) are code that tfds would fetch and run.
        problems = check(
            "data.name", repr(self.name), re.fullmatch(r"[^:]*(:[\d.*]+)?", self.name) is not None,
            "one of tfds's own builders, like mnist or mnist:3.0.1", "Prepare other data and give --data.path.",
        )  # fmt: skip
        if self.source is not None:
            problems += check("data.path", self.path, self.path is None, "none beside data.source", "Leave one out.")
        problems += check(
            "data.validation_fraction", self.validation_fraction, 0 <= self.validation_fraction < 1,
            "0 ≤ fraction < 1", "Give the share of the training split, like 0.1.",
        )  # fmt: skip
        problems += check("data.scale", self.scale, self.scale > 0, "a positive number", "Give 1/255 or 1.")
        problems += check("data.std", self.std, all(s > 0 for s in self.std or ()), "positive numbers", "Correct them.")
        problems += check(
            "data.background", self.background, all(0 <= level <= 255 for level in self.background),
            "three levels from 0 to 255", "Give red, green and blue, like 255 255 255.",
        )  # fmt: skip
        if isinstance(self.levels, tuple):
            low, high = self.levels
            rule, remedy = "two finite numbers, black and white, in order", "Give them like 0 4095."
            is_range = math.isfinite(low) and math.isfinite(high) and low < high
            problems += check("data.levels", self.levels, is_range, rule, remedy)
        problems += check(
            "data.max_pixels", self.max_pixels, self.max_pixels is None or self.max_pixels > 0,
            "a positive number", "Give the pixels of the largest picture.",
        )  # fmt: skip
        problems += check(
            "data.encoding", repr(self.encoding), self.encoding is None or is_text_codec(self.encoding),
            "an encoding that Python knows", "Give one like utf-8, cp1252, cp1251, shift_jis or gbk.",
        )  # fmt: skip
        problems += check(
            "data.suffix", repr(self.suffix), self.suffix is None or re.fullmatch(r"[^/\\]+", self.suffix) is not None,
            "the end of a file name", "Give it like .jpg.",
        )  # fmt: skip
        if self.class_names is not None:
            given = self.class_names
            rule = "at least one name, each once"
            problems += check("data.class_names", given, 0 < len(given) == len(set(given)), rule, "Correct the list.")
        if self.split_as == "keras":
            remedy = "Leave out one or the other."
            problems += check(
                "data.stratified", self.stratified, not self.stratified, "off with split-as keras", remedy
            )
            rule = "stop with split-as keras, whose share counts every file"
            problems += check("data.on_bad_file", self.on_bad_file, self.on_bad_file == "stop", rule, remedy)
        problems += check(
            "data.whiten_epsilon", self.whiten_epsilon, self.whiten_epsilon > 0, "a positive number", "Give 0.01."
        )
        problems += check("data.zca_epsilon", self.zca_epsilon, self.zca_epsilon > 0, "a positive number", "Give 1e-6.")
        if self.standardize in FITTED and (self.mean is not None or self.std is not None):
            rule = "no mean and std of your own, because they are fitted"
            problems.append(problem("data.standardize", self.standardize, rule, "Leave out one or the other."))
        if self.image_size is not None and not re.fullmatch(r"[1-9]\d{0,18}x[1-9]\d{0,18}", self.image_size):
            rule = "HEIGHTxWIDTH in pixels"
            problems.append(problem("data.image_size", repr(self.image_size), rule, "Give it like 180x180."))
        elif self.height_width is not None and math.prod(self.height_width) > MOST_PIXELS:
            rule = f"at most {MOST_PIXELS:,} pixels"
            problems.append(problem("data.image_size", repr(self.image_size), rule, "Give it like 180x180."))
        return problems + self._crop_problems() + self._group_problems()

    def _group_problems(self) -> list[str]:
        rule = "off with data.group_column, whose groups are set aside as a whole"
        is_alone = self.group_column is None or not self.stratified
        return check("data.stratified", self.stratified, is_alone, rule, "Leave out one or the other.")

    def _crop_problems(self) -> list[str]:
        share, rule = self.crop_share, "0 < share ≤ 1"
        problems = check("data.crop_share", share, 0 < share <= 1, rule, "Give one like 0.875.")
        if share != 1 and self.resize != "shorter":
            rule = f"none with data.resize {self.resize}"
            problems.append(problem("data.crop_share", share, rule, "Add --data.resize shorter."))
        if self.center_crop is None:
            return problems
        got = repr(self.center_crop)
        if not re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}", self.center_crop):
            problems.append(problem("data.center_crop", got, "HEIGHTxWIDTH in pixels", "Give it like 160x160."))
        if self.standardize in ("whiten", "zca"):
            rule = f"none with data.standardize {self.standardize}, which is fitted on whole images"
            problems.append(problem("data.center_crop", got, rule, "Leave out one or the other."))
        return problems

    @property
    def decoding(self) -> Decoding:
        """How stored pictures are decoded."""
        return Decoding(self.interpolation, self.antialias, self.levels, self.max_pixels, self.crop_share)

    @property
    def crop_height_width(self) -> tuple[int, int] | None:
        """`center_crop` as numbers."""
        if self.center_crop is None:
            return None
        height, width = self.center_crop.split("x")
        return int(height), int(width)

    @property
    def height_width(self) -> tuple[int, int] | None:
        """`image_size` as numbers."""
        if self.image_size is None:
            return None
        height, width = self.image_size.split("x")
        return int(height), int(width)

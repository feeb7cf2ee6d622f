"""Single examples of data; from image files only the example itself is decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.config.data import DataConfig, ResizeRule
from engine.data.kinds import open_source
from engine.data.pictures.deep_ranges import Ranges
from engine.data.pictures.images import decode_picture
from engine.data.pictures.resampling import fitted
from engine.errors import InputError, Say, problem, shape_text, unknown
from engine.report.survey import Survey, with_one_size

MOST_PIXELS = 256  # of the longer side of an image if the config gives no size


@dataclass(frozen=True)
class Example:
    """An image uint8[h w c] to show.

    title: its name, its size, and its stored size if that is larger.
    number: its index in its split.
    others: images of the same shape with their indices.
    """

    image: np.ndarray
    title: str
    number: int = 0
    others: tuple[tuple[np.ndarray, int], ...] = ()


def example_of_file(path: Path, config: DataConfig) -> Example:
    """A picture that is not part of a dataset."""
    return _example(path.name, lambda _: _decoded(str(path), config), [0], config)


def example_of_data(config: DataConfig, index: int, num_others: int, tell: Say) -> Example:
    """An example of the training split, and up to `num_others` others, spread over the split."""
    source = open_source(config, tell)
    files = source.image_files()
    if files and config.split not in files:
        raise InputError(unknown("data.split", config.split, files))
    if files:
        paths = files[config.split]
        count, read = len(paths), lambda number: _decoded(paths[number], config)
    else:
        sized, _ = with_one_size(config, source, Survey())
        dataset = (source if sized is config else open_source(sized, tell)).load(config.split, "data.split")
        count, read = len(dataset), lambda number: dataset.images[number]
    numbers = _numbers(count, index, num_others, source.name)
    return _example(f"{source.name}, example {index:,}", read, numbers, config)


def _example(name: str, read: Callable[[int], np.ndarray], numbers: Sequence[int], config: DataConfig) -> Example:
    own = read(numbers[0])
    image = own if config.image_size else _limited(own)
    title = f"{name}, {shape_text(image.shape[:2])}"
    if image.shape != own.shape:
        title += f" (of {shape_text(own.shape[:2])})"
    others = tuple((_fitted(read(number), image.shape, "crop"), number) for number in numbers[1:])
    return Example(image, title, numbers[0], others)


def _numbers(count: int, index: int, num_others: int, name: str) -> list[int]:
    """The index itself and those of other examples."""
    if not 0 <= index < count:
        rule = f"0 to {count - 1:,} for the {count:,} training examples of {name}"
        raise InputError(problem("index", index, rule, "Give another number."))
    steps = range(num_others if count > 1 else 0)
    return [index, *((index + 1 + (count - 1) * (2 * step + 1) // (2 * num_others)) % count for step in steps)]


def _decoded(path: str, config: DataConfig) -> np.ndarray:
    size, color, ranges = config.height_width, config.color or "rgb", Ranges(lambda: [path], config.decoding)
    return decode_picture(path, color, size, config.resize, config.background, config.decoding, ranges)


def _limited(image: np.ndarray) -> np.ndarray:
    """The image, scaled down in proportion if it is larger than a cell of a grid can show."""
    height, width, channels = image.shape
    factor = min(1, MOST_PIXELS / max(height, width))
    size = (max(round(height * factor), 1), max(round(width * factor), 1))
    return _fitted(image, (*size, channels), "stretch")


def _fitted(image: np.ndarray, shape: tuple[int, ...], resize: ResizeRule) -> np.ndarray:
    if image.shape == shape:
        return image
    return fitted(image, (shape[0], shape[1]), resize)

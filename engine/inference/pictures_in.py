"""The inputs that a model takes: arrays and pictures of any kind, as batches that fit its input contract."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from math import prod
from os import PathLike
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np
from PIL import Image

from engine.config.contract import InputSpec
from engine.config.data import ResizeRule
from engine.config.decoding import USUAL_COLORS, ValueRange
from engine.data.arrays.given import is_array_like, plain_array
from engine.data.arrays.stored import StoredImages
from engine.data.pictures.frames import SeveralFrames
from engine.data.pictures.images import Picture, fit_array, fit_values, fitting_remedy, levels_of, read_picture
from engine.data.pictures.stored import name_of_picture
from engine.data.sources.files import ahead
from engine.data.sources.walk import picture_files
from engine.errors import InputError, problem, shape_text, unknown
from engine.host.cores import num_cores

BATCH_PICTURES = 64  # whatever the number of cores, on which no bit of an answer shall depend
TASK_PICTURES = 8  # read by one thread at a time, so that the pictures of a batch are shared among the cores
STORED = (str, PathLike, bytes)
_ONE_PICTURE = (*STORED, np.ndarray, Image.Image)

Item = TypeVar("Item")


class PictureBatch(NamedTuple):
    """Neighbouring pictures, read: images [b …], zeros where `problems` has the error that names the picture."""

    pictures: tuple[Picture, ...]
    images: np.ndarray
    problems: dict[int, InputError]


def contract(spec: InputSpec, resize: ResizeRule | None) -> InputSpec:
    """The input contract with another resize rule, if one is given; raises InputError if there is none of that name."""
    if resize is None:
        return spec
    if resize not in get_args(ResizeRule):
        raise InputError(unknown("resize", resize, get_args(ResizeRule)))
    return replace(spec, resize=resize)


def as_array(pictures: Any, spec: InputSpec, value_range: ValueRange | None) -> np.ndarray | StoredImages | None:
    """[n …] that fits, of an array [n …] of many; None for anything else, one picture as an array for one."""
    if isinstance(pictures, StoredImages):
        return checked_array(pictures, spec)
    if not isinstance(pictures := _plain(pictures), np.ndarray):
        return None
    shape = tuple(spec.shape)
    if len(shape) == 3 and _are_grey(pictures, shape):
        if shape[-1] != 1:
            raise InputError(other_shape(pictures, spec))
        pictures = pictures[..., None]  # [n h w] → [n h w 1]
    if pictures.ndim == 2 and len(shape) == 3 and pictures.shape[1] == prod(shape):
        raise InputError(other_shape(pictures, spec))  # pictures in a row each
    if pictures.ndim != len(shape) + 1:
        return None
    if pictures.shape[1:] == shape:
        return fit_values(pictures, spec, value_range, "images")
    if spec.resize is None or spec.dtype != "uint8" or len(shape) != 3:
        raise InputError(other_shape(pictures, spec))
    levels = levels_of(pictures, spec, value_range, "images")
    return np.stack([fit_array(image, spec) for image in levels]) if len(levels) else np.zeros((0, *shape), np.uint8)


def checked_array(images: Any, spec: InputSpec) -> np.ndarray | StoredImages:
    """[n …] of the model's input, of an array that has its shape; raises InputError for values that cannot be of it."""
    array = images if isinstance(images, StoredImages) else plain_array(images, "images")
    if array.shape[1:] != tuple(spec.shape):
        raise InputError(other_shape(array, spec))
    return array if isinstance(array, StoredImages) else fit_values(array, spec, None, "images")


def _are_grey(pictures: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether an array is of many pictures [n h w], and not of one [h w c], or [c h w] as other libraries have it."""
    if pictures.ndim != 3:
        return False
    fits = pictures.shape[1:] == shape[:-1] and shape[-1] == 1
    is_one = pictures.shape[-1] in {*USUAL_COLORS, shape[-1]} or pictures.shape[0] == shape[-1] > 1
    return fits or not is_one


def other_shape(images: np.ndarray | StoredImages, spec: InputSpec) -> str:
    """The wording for an array [n …] whose examples are not the model's input."""
    got = f"{images.dtype.name} of {shape_text(images.shape[1:])}"
    rule = f"{spec.dtype} of {shape_text(spec.shape)}, the model's input"
    return problem("images", got, rule, fitting_remedy(tuple(images.shape[1:]), spec, are_many=True))


def listed(pictures: Any) -> list[Picture]:
    """One picture, or many, or those of a folder, as a list."""
    pictures = _plain(pictures)
    if not isinstance(pictures, (*_ONE_PICTURE, Sequence)):
        rule = "a path, bytes, a PIL image, an array, or a list of these"
        raise InputError(problem("pictures", type(pictures).__name__, rule, "Pass one of these."))
    many = [pictures] if isinstance(pictures, _ONE_PICTURE) else list(pictures)
    if len(many) == 1 and isinstance(many[0], (str, PathLike)):
        return list[Picture](picture_files([many[0]]))
    return many


def batches(
    pictures: Iterable[Picture],
    spec: InputSpec,
    value_range: ValueRange | None,
    size: int = BATCH_PICTURES,
    several: SeveralFrames | None = None,
) -> Iterator[PictureBatch]:
    """The pictures in order, read on all cores, `size` at a time; only a few batches are ever in memory.

    Files and bytes are what threads read. PIL images and arrays are read by the caller's thread: the same one may be
    there twice, and Pillow's do not bear two threads.
    several: counts those that hold several frames.
    """

    def read(picture: Any) -> np.ndarray | InputError:
        try:
            found = read_picture(_plain(picture), spec, value_range, kinds := list[str]())
            if several is not None and kinds:
                several.add(kinds[0], name_of_picture(picture))
            return found
        except InputError as error:
            return error

    def started(group: tuple[Picture, ...]) -> list[Any]:
        return [(one, one if isinstance(one, STORED) else read(one)) for one in group]

    def finished(group: list[Any]) -> list[Any]:
        return [(one, read(found) if isinstance(found, STORED) else found) for one, found in group]

    count = len(pictures) if isinstance(pictures, Sequence) else TASK_PICTURES * num_cores()
    tasks = map(started, _groups(pictures, max(1, min(TASK_PICTURES, count // num_cores()))))
    if count == 1:
        done = contextlib.nullcontext(map(finished, tasks))
    else:
        done = contextlib.closing(ahead(finished, tasks, num_cores() + 2 * size // TASK_PICTURES))
    with done as answers:
        for group in _groups(chain.from_iterable(answers), size):
            images, problems = np.zeros((len(group), *spec.shape), spec.dtype), {}
            for place, (_, found) in enumerate(group):
                if isinstance(found, InputError):
                    problems[place] = found
                else:
                    images[place] = found
            yield PictureBatch(tuple(one for one, _ in group), images, problems)


def _groups(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    rest = iter(items)
    while group := tuple(islice(rest, size)):
        yield group


def _plain(value: Any) -> Any:
    """Arrays of JAX, PyTorch and the like as NumPy's, views of bytes as these, columns of paths as lists.

    Raises InputError for masked values.
    """
    if isinstance(value, (bytearray, memoryview)):
        view = memoryview(value)
        return view.tobytes() if view.ndim == view.itemsize == 1 else np.asarray(view)
    array = plain_array(value, "pictures") if is_array_like(value) else value
    are_paths = isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "OUT"
    return array.tolist() if are_paths else array

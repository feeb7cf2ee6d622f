"""One picture in, one uint8 array out: files, bytes, PIL images and arrays made to fit an input contract."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from os import PathLike

import numpy as np
from PIL import Image

from engine.config.contract import InputSpec
from engine.config.data import DataConfig
from engine.config.decoding import (
    NUM_CHANNELS,
    USUAL,
    USUAL_COLORS,
    ColorMode,
    Decoding,
    ResizeRule,
    ValueRange,
)
from engine.data.pictures.formats import SUFFIXES
from engine.data.pictures.levels import as_levels, check_range, extremes
from engine.data.pictures.opening import MODES, Ranging, open_levels
from engine.data.pictures.ranges import check_like_training, check_not_raw, converting, find_usual
from engine.data.pictures.resampling import fitted
from engine.data.pictures.stored import Stored, UnreadablePicture, name_of_picture
from engine.errors import InputError, problem, shape_text

NAMED_PICTURES = 10
Picture = str | PathLike[str] | bytes | Image.Image | np.ndarray


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is taken for a picture; not the hidden ones that macOS lays beside each file."""
    dot = name.rfind(".")
    return dot > 0 and name[0] != "." and name[dot:].lower() in SUFFIXES


def read_pictures(pictures: Sequence[Picture], spec: InputSpec) -> np.ndarray:
    """uint8[n h w c] of many pictures; raises one InputError that names the bad ones (the first ten, and the count)."""
    images, problems = [], []
    for picture in pictures:
        try:
            images.append(read_picture(picture, spec))
        except InputError as error:
            problems.append(error)
    check_none(problems)
    return np.stack(images) if images else np.zeros((0, *spec.shape), np.uint8)


def check_none(problems: Sequence[InputError]) -> None:
    """Raises one InputError for many, if there are any."""
    if problems:
        raise joined(problems, len(problems))


def joined(problems: Sequence[InputError], count: int) -> InputError:
    """One error for `count`: the first ten of them, a line each, and how many more there are."""
    more = [f"… and {count - NAMED_PICTURES:,} more"] if count > NAMED_PICTURES else []
    return InputError(*(line for error in problems[:NAMED_PICTURES] for line in error.problems), *more)


def read_picture(
    picture: Picture, spec: InputSpec, value_range: ValueRange | None = None, several: list[str] | None = None
) -> np.ndarray:
    """uint8[h w c] of one picture, in the contract's colours, and in its size if a resize rule says how.

    For a model of float32 pictures float32[h w c]: levels 0 to 255 brought to the usual range of its training images.
    Files, bytes and PIL images are turned into the contract's colour mode; arrays keep theirs, see `fit_array`.
    value_range: of arrays and of pictures with more than 8 bits, what is black and what is white.
    several: as of `open_levels`.
    Raises InputError if the picture cannot be read or has another size and no rule is set.
    """
    if isinstance(picture, np.ndarray):
        return fit_array(picture, spec, value_range)
    are_floats = spec.dtype == "float32" and len(spec.shape) == 3 and spec.color is not None
    if are_floats and spec.value_range is not None and (usual := find_usual(spec.value_range)):
        levels = read_picture(picture, replace(spec, dtype="uint8", value_range=None), value_range, several)
        return (levels * np.float32((usual[1] - usual[0]) / 255) + np.float32(usual[0])).astype(np.float32)
    if len(spec.shape) != 3 or spec.dtype != "uint8" or spec.color is None:
        rule = f"an array of {shape_text(spec.shape)} ({spec.dtype}), the model's input"
        ways = ", scaled as for training; or train with value_range=(black, white)" if are_floats else ""
        remedy = f"Pass arrays{ways}."
        raise InputError(problem(name_of_picture(picture), "a picture", rule, remedy))
    height_width, decoding = (spec.shape[0], spec.shape[1]), spec.decoding
    if value_range is not None:
        check_range(value_range)
        decoding = replace(decoding, levels=value_range)
    if spec.resize is not None:
        return decode_picture(picture, spec.color, height_width, spec.resize, spec.background, decoding, None, several)
    opened = open_levels(picture, spec.color, None, decoding, None, several)
    image = Image.fromarray(opened) if isinstance(opened, np.ndarray) else opened
    if image.size != height_width[::-1]:
        got = shape_text((*image.size[::-1], len(image.getbands())))
        remedy = 'Resize it, or say how: resize="stretch", "crop", "pad" or "shorter" (--resize stretch).'
        raise InputError(problem(name_of_picture(picture), f"an image of {got}", shape_text(spec.shape), remedy))
    return fit_picture(image, spec.color, None, None, spec.background)


def decode_picture(
    source: Stored,
    color: ColorMode,
    height_width: tuple[int, int] | None,
    resize: ResizeRule | None,
    background: tuple[int, int, int],
    decoding: Decoding = USUAL,
    ranges: Ranging | None = None,
    several: list[str] | None = None,
) -> np.ndarray:
    """uint8[h w c] of a file, bytes or PIL image, in its own size if none is given.

    ranges: of pictures with more than 8 bits what is black and what is white, where the config does not say.
    several: as of `open_levels`.
    Both training data and pictures to predict come through here, so that they are decoded alike.
    """
    drafted = None if resize == "shorter" else height_width  # torchvision and timm resize the whole picture
    opened = open_levels(source, color, drafted, decoding, ranges, several)
    if isinstance(opened, np.ndarray):
        return fitted(opened, height_width or opened.shape[:2], resize, decoding)
    return fit_picture(opened, color, height_width, resize, background, decoding)


def fit_picture(
    image: Image.Image,
    color: ColorMode,
    height_width: tuple[int, int] | None,
    resize: ResizeRule | None,
    background: tuple[int, int, int] = (0, 0, 0),
    decoding: Decoding = USUAL,
) -> np.ndarray:
    """uint8[h w c] of a picture in a colour mode and a size (None: its own), stretched where no rule is given.

    Transparency is laid over `background` unless the mode has it; 16 bits become 8.
    """
    image = in_color(image, color, background)
    levels = np.asarray(image, np.uint8).reshape(image.height, image.width, -1)  # [h w] → [h w 1]
    return fitted(levels, height_width or levels.shape[:2], resize, decoding)


def fit_levels(
    levels: np.ndarray,
    color: ColorMode,
    height_width: tuple[int, int] | None,
    resize: ResizeRule | None,
    decoding: Decoding = USUAL,
) -> np.ndarray:
    """uint8[y x c'] of uint8[h w c]: as many channels as the mode has are taken for it, others converted."""
    if levels.shape[-1] != NUM_CHANNELS[color]:
        mode = MODES[USUAL_COLORS[levels.shape[-1]]]
        image = Image.frombytes(mode, levels.shape[1::-1], np.ascontiguousarray(levels).tobytes())
        levels = np.asarray(in_color(image, color), np.uint8).reshape(*levels.shape[:2], -1)
    return fitted(levels, height_width or levels.shape[:2], resize, decoding)


def in_color(image: Image.Image, color: ColorMode, background: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """The picture in a colour mode; what is transparent is laid over `background` unless the mode has transparency."""
    if 0 in image.size:
        got = f"a picture of {shape_text(image.size[::-1])}"
        raise UnreadablePicture(name_of_picture(image), got, "at least one pixel", "Leave it out.")
    if image.mode in ("La", "RGBa"):  # divided by opacity, which Pillow converts to nothing else
        image = image.convert(image.mode.upper())
    if image.mode == "F" and 0 < float(np.asarray(image).max()) <= 1:
        name, rule = name_of_picture(image), "levels of 8 or 16 bits"
        raise UnreadablePicture(name, "levels from 0 to 1", rule, "Multiply them by 255.")
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode == MODES[color] and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if color not in ("rgba", "la"):
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    if image.mode == "LAB" or (color == "lab" and image.mode != "RGB"):
        image = image.convert("RGB")
    return image.convert(MODES[color])


def fit_array(array: np.ndarray, spec: InputSpec, value_range: ValueRange | None = None) -> np.ndarray:
    """[h w c] as the contract wants it, of one picture as an array, [h w c] or, of one channel, [h w].

    uint8 is taken as it is, other numbers by the range that stands for black to white, see `as_levels`. Where the
    contract is float32, float32 of its shape is all that fits.
    """
    if array.ndim == 2 and spec.shape[-1:] == (1,):
        array = array[..., None]
    if spec.dtype == "uint8" and spec.resize is not None and _is_resizable(array, spec):
        levels = levels_of(array, spec, value_range, "image array")
        return fitted(levels, (spec.shape[0], spec.shape[1]), spec.resize, spec.decoding)
    if array.shape != tuple(spec.shape):
        got, expected = shape_text(array.shape), shape_text(spec.shape)
        raise InputError(problem("image array", f"an image of {got}", expected, fitting_remedy(array.shape, spec)))
    return fit_values(array, spec, value_range, "image array")


def fit_values(array: np.ndarray, spec: InputSpec, value_range: ValueRange | None, name: str) -> np.ndarray:
    """The array […] in the contract's dtype; raises InputError, showing both sides, for what does not fit it."""
    if spec.dtype == "uint8":
        return levels_of(array, spec, value_range, name)
    if value_range is not None:
        rule = f"none: the model's input is {spec.dtype}, which it gets unchanged"
        raise InputError(problem("value_range", value_range, rule, "Scale as for training, and leave it out."))
    if array.dtype != np.dtype(spec.dtype):
        found = extremes(array, name) if array.size and array.dtype.kind in "buif" else None
        remedy = converting(spec.dtype, found, spec.value_range)
        raise InputError(problem(name, array.dtype.name, spec.dtype, remedy))
    if array.size:
        count, found = len(array) if array.ndim > len(spec.shape) else 1, extremes(array, name)
        if spec.value_range is not None:
            check_like_training(found, spec.value_range, name, array.dtype, count)
    return array


def levels_of(array: np.ndarray, spec: InputSpec, value_range: ValueRange | None, name: str) -> np.ndarray:
    """uint8 […] as by `as_levels`; without a range, numbers other than uint8 have that of the training images."""
    if value_range is None:
        check_not_raw(array[None], spec.value_range, name)
    usual = None if array.dtype == np.uint8 else spec.value_range or (None if spec.levels == "type" else spec.levels)
    return as_levels(array, usual if value_range is None else value_range, name)


def _is_resizable(array: np.ndarray, spec: InputSpec) -> bool:
    is_picture = array.ndim == len(spec.shape) == 3 and array.shape[2] == spec.shape[-1]
    return is_picture and array.shape != tuple(spec.shape) and 0 not in array.shape


def fitting_remedy(shape: tuple[int, ...], spec: InputSpec, are_many: bool = False) -> str:
    """What makes an array of a shape, or each of many, fit a contract whose shape is another."""
    ours, array = tuple(spec.shape), "images" if are_many else "array"
    if len(shape) != len(ours) and prod(shape) == prod(ours):
        return f"Reshape: {array}.reshape({', '.join(map(str, (*[-1] * are_many, *ours)))})."
    if len(ours) != 3 or len(shape) not in (2, 3):
        return f"Use arrays of {shape_text(ours)}, as for training."
    has_size, has_color = shape[:2] == ours[:2], shape[2:] == ours[2:]
    how = f"Resize to {shape_text(ours[:2])}"
    if spec.dtype != "uint8":
        return f"{how} and {shape_text(ours[2:])} channels, as for training."
    how = f'{how}, or say how: resize="stretch", "crop", "pad" or "shorter".'
    if len(shape) == 3 and shape[0] == ours[2] and shape[2] not in USUAL_COLORS:
        is_sized = shape[1:] == ours[:2]
        return f"Put the channels last: np.moveaxis({array}, {int(are_many)}, -1).{'' if is_sized else f' {how}'}"
    if has_color:
        return how
    one = "image" if are_many else "array"
    picture = f"Image.fromarray({one}{'[..., 0]' if shape[2:] == (1,) else ''})"
    pictures = f"[{picture} for image in images]" if are_many else picture
    return f"Pass PIL images, whose colours are converted: {pictures}.{'' if has_size else f' {how}'}"


def fitted_shape(shape: tuple[int, ...], config: DataConfig) -> tuple[int, int, int]:
    """(h, w, c) that an image of a shape has under a config."""
    height, width = config.height_width or (shape[0], shape[1])
    return height, width, NUM_CHANNELS[config.color] if config.color else shape[2]


def fit_images(images: np.ndarray, config: DataConfig) -> np.ndarray:
    """uint8[b h w c] in the size and colours of the config; their own where it has none."""
    if images.shape[1:] == fitted_shape(images.shape[1:], config):
        return images
    color = config.color or USUAL_COLORS[images.shape[-1]]
    size, resize, decoding = config.height_width, config.resize, config.decoding
    return np.stack([fit_levels(image, color, size, resize, decoding) for image in images])

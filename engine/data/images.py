"""One picture in, one uint8 array out: files, bytes, PIL images and arrays made to fit an input contract."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from engine.data.config import ColorMode, ResizeRule
from engine.data.opening import MODES, Stored, UnreadablePicture, name_of_picture, open_picture
from engine.errors import InputError, problem, shape_text

SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
}
# Antialiased, as Pillow's filters all are. A third cheaper than bicubic, and what torchvision and Keras use.
RESAMPLING = Image.Resampling.BILINEAR
Picture = str | PathLike[str] | bytes | Image.Image | np.ndarray


@dataclass(frozen=True)
class InputSpec:
    """The input contract of a model: what it is shown is `(scale × pixels − mean) / std`.

    shape: of one example, (h, w, c) for pictures.
    per_example, whiten: what is shown is then also standardized for each example, or whitened by what was fitted.
    dtype: "uint8" for pictures with values 0 to 255, "float32" for other inputs.
    resize: how pictures of another size get this one; None refuses them.
    background: what transparent pictures are laid over.
    """

    shape: tuple[int, ...]
    dtype: str = "uint8"
    resize: ResizeRule | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    background: tuple[int, int, int] = (0, 0, 0)
    per_example: bool = False
    whiten: bool = False

    def __post_init__(self):
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) not in (1, self.shape[-1]):
                rule = f"1 number or {self.shape[-1]}, one a channel"
                raise InputError(problem(f"data.{name}", f"{len(numbers)} numbers", rule, "Correct it."))

    @property
    def color(self) -> ColorMode:
        """The colour mode that the number of channels stands for."""
        return "grayscale" if self.shape[-1] == 1 else "rgb"


def picture_files(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    """The files named, and in place of each folder all image files below it, in order of their names."""
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(f for f in path.rglob("*") if is_picture_name(f.name) and f.is_file())
        if not found:
            rule = "image files below it (" + " ".join(sorted(SUFFIXES)) + ")"
            raise InputError(problem(str(path), "an empty folder", rule, "Check the path."))
        files += found
    return files


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
            problems.append(str(error))
    if problems:
        more = [f"… and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise InputError("\n".join([*problems[:10], *more]))
    return np.stack(images) if images else np.zeros((0, *spec.shape), np.uint8)


def read_picture(picture: Picture, spec: InputSpec) -> np.ndarray:
    """uint8[h w c] of one picture, in the contract's colours, and in its size if a resize rule says how.

    Arrays must be uint8 of exactly the contract's shape. Files, bytes and PIL images are turned into the contract's
    colour mode. Raises InputError if the picture cannot be read or has another size and no rule is set.
    """
    if isinstance(picture, np.ndarray):
        return _check_array(picture, spec)
    if len(spec.shape) != 3:
        rule = f"an array of {shape_text(spec.shape)} ({spec.dtype}), the model's input"
        raise InputError(problem(name_of_picture(picture), "a picture", rule, "Pass arrays."))
    height_width = (spec.shape[0], spec.shape[1])
    if spec.resize is not None:
        return decode_picture(picture, spec.color, height_width, spec.resize, spec.background)
    image = open_picture(picture, spec.color)
    if image.size != height_width[::-1]:
        got = shape_text((*image.size[::-1], len(image.getbands())))
        remedy = 'Resize it, or say how: resize="stretch", "crop" or "pad" (--resize stretch).'
        raise InputError(problem(name_of_picture(picture), f"an image of {got}", shape_text(spec.shape), remedy))
    return fit_picture(image, spec.color, None, None, spec.background)


def decode_picture(
    source: Stored,
    color: ColorMode,
    height_width: tuple[int, int] | None,
    resize: ResizeRule | None,
    background: tuple[int, int, int],
) -> np.ndarray:
    """uint8[h w c] of a file, bytes or PIL image, in its own size if none is given.

    Both training data and what a model is asked about come through here, so that they are decoded alike.
    """
    image = open_picture(source, color, height_width)
    return fit_picture(image, color, height_width, resize, background)


def fit_picture(
    image: Image.Image,
    color: ColorMode,
    height_width: tuple[int, int] | None,
    resize: ResizeRule | None,
    background: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """uint8[h w c] of a picture in a colour mode and a size (None: its own), stretched where no rule is given.

    Transparency is laid over `background`; 16 bits become 8.
    """
    image = in_color(image, color, background)
    height, width = height_width or (image.height, image.width)
    size = (width, height)
    if image.size != size:
        if resize == "crop":
            image = ImageOps.fit(image, size, RESAMPLING)
        elif resize == "pad":
            image = ImageOps.pad(image, size, RESAMPLING)
        else:
            image = image.resize(size, RESAMPLING)
    return np.asarray(image, np.uint8).reshape(height, width, -1)  # [h w] → [h w 1]


def in_color(image: Image.Image, color: ColorMode, background: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """The picture in a colour mode; what is transparent is laid over `background` before it may become grey."""
    if image.mode == "F" and 0 < float(np.asarray(image).max()) <= 1:
        name, rule = name_of_picture(image), "levels of 8 or 16 bits"
        raise UnreadablePicture(name, "levels from 0 to 1", rule, "Multiply them by 255.")
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    if image.mode == "LAB":
        image = image.convert("RGB")
    return image if image.mode == MODES[color] else image.convert(MODES[color])


def _check_array(array: np.ndarray, spec: InputSpec) -> np.ndarray:
    if array.ndim == 2 and spec.shape[-1:] == (1,):
        array = array[..., None]
    if array.shape != tuple(spec.shape):
        got, expected = shape_text(array.shape), shape_text(spec.shape)
        raise InputError(problem("image array", f"an image of {got}", expected, "Resize it, or pass a PIL image."))
    if array.dtype != np.dtype(spec.dtype):
        remedy = "Pass pixels from 0 to 255 as uint8." if spec.dtype == "uint8" else "Convert it with astype."
        raise InputError(problem("image array", array.dtype.name, spec.dtype, remedy))
    return array

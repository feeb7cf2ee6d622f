"""How a picture becomes the pixels that a model sees: a part of the config of data and of a model's input contract."""

from dataclasses import dataclass
from typing import Literal

ColorMode = Literal["grayscale", "rgb", "rgba", "la", "cmyk", "lab"]
ResizeRule = Literal["stretch", "crop", "pad", "shorter"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ValueRange = tuple[float, float]
Levels = ValueRange | Literal["type"] | None

NUM_CHANNELS: dict[ColorMode, int] = {"grayscale": 1, "la": 2, "rgb": 3, "rgba": 4, "cmyk": 4, "lab": 3}
# The colour mode that arrays of so many channels have by default.
USUAL_COLORS: dict[int, ColorMode] = {1: "grayscale", 2: "la", 3: "rgb", 4: "rgba"}


@dataclass(frozen=True)
class Decoding:
    """Everything but size and colours that decides what a stored picture is decoded to.

    interpolation, antialias: how pictures are resized, see `resampling.stretched`.
    levels: what is black and what is white in pictures of more than 8 bits. "type": the ends of their type, as in runs
      saved before there was this field. None: what the file's own tags say.
    max_pixels: the most that a picture may hold once decoded; None for Pillow's limit, `Image.MAX_IMAGE_PIXELS`.
    crop_share: with the rule shorter, what is kept of the resized picture along its shorter side.
    """

    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    levels: Levels = None
    max_pixels: int | None = None
    crop_share: float = 1.0


USUAL = Decoding()


# A picture that uses less of its range than this was most likely scaled otherwise: 0 to 1 is 0.4 % of 0 to 255.
LEAST_SHARE = 0.01

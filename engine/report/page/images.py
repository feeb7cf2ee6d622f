"""Images as addresses that hold their data, small enough for a page of many."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from engine.data.pictures.shown import shown_levels, stretched

LONGEST = 160  # pixels of a side
PIXELATED = 64  # up to here all pixels are kept, and shown as such
QUALITY = 85


def as_address(image: np.ndarray, longest: int = LONGEST) -> str:
    """An image [h w c], of whatever kind, as `data:image/…`, scaled down if it is larger than `longest`."""
    levels = shown_levels(image)
    picture = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    picture.thumbnail((longest, longest))
    format = "png" if max(picture.size) <= PIXELATED else "jpeg"
    file = io.BytesIO()
    picture.save(file, format=format, **({"quality": QUALITY} if format == "jpeg" else {"optimize": True}))
    return f"data:image/{format};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def has_few_pixels(image: np.ndarray) -> bool:
    """Whether it is shown enlarged, each pixel as a square."""
    return max(image.shape[:2]) <= PIXELATED


def tile(maps: Sequence[np.ndarray], columns: int = 8, gap: int = 1) -> np.ndarray:
    """uint8[h w 1 or 3]: images of one shape [y x c], each stretched to all levels, side by side on grey."""
    height, width, channels = maps[0].shape
    rows = -(-len(maps) // columns)
    columns = min(columns, len(maps))
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 127, np.uint8)
    for number, each in enumerate(maps):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = stretched(each)
    return sheet

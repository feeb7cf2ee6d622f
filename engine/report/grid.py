"""A grid of nine pictures with one or two lines of text above each."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from engine.data.pictures.shown import shown_levels
from engine.report.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
PLACES = COLUMNS**2
TITLE_LETTERS = 24
# Written into the pictures of commands, so that a later one may replace them and nothing else.
SIGNATURE = "engine"


def draw_grid(images: Sequence[np.ndarray], titles: Sequence[str], path: Path, title: str) -> None:
    """Writes up to nine images uint8[h w c], three in a row, as a PNG, atomically."""
    figure = grid_figure(images, titles, title)
    save_figure(figure, path, metadata={"Software": SIGNATURE})


def grid_figure(images: Sequence[np.ndarray], titles: Sequence[str], title: str) -> "Figure":
    """The grid as a figure. Cells are square, unless all images share other proportions."""
    # The object interface draws without pyplot's global state and without a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    titles = [_wrapped(text) for text in titles]
    lines, rows = max(text.count("\n") + 1 for text in titles), -(-len(images) // COLUMNS)
    proportion = _proportion(images)
    figure = Figure(figsize=(6.3, 0.3 + rows * (2.05 * proportion + 0.06 + 0.15 * lines)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
        axes.axis("off")
    for axes, image, text in zip(figure.axes, images, titles, strict=False):
        _show(axes, image, proportion)
        axes.set_title(text, fontsize=9, pad=4, parse_math=False)
    figure.suptitle(_wrapped(title, 60), fontsize=12, parse_math=False)
    return figure


def is_our_picture(path: Path) -> bool:
    """Whether a file is a picture that a command of ours drew."""
    try:
        with PngImageFile(path) as image:
            return image.info.get("Software") == SIGNATURE
    except (OSError, SyntaxError, ValueError):  # Pillow raises SyntaxError for a file of another kind
        return False


def _proportion(images: Sequence[np.ndarray]) -> float:
    """Height over width of a cell."""
    found = {image.shape[0] / image.shape[1] for image in images}
    return min(max(found.pop(), 0.5), 1.5) if len(found) == 1 else 1.0


def _show(axes: Any, image: np.ndarray, proportion: float) -> None:
    """Draws an image in the middle of its cell, with unchanged levels."""
    height, width = image.shape[:2]
    cell = max(width, height / proportion)  # its width, in pixels of the image
    # Grey as three colours, because a colour map would stretch or round the levels.
    axes.imshow(np.broadcast_to(shown_levels(image), (height, width, 3)), extent=(0, width, height, 0))
    axes.set_xlim((width - cell) / 2, (width + cell) / 2)
    axes.set_ylim((height + cell * proportion) / 2, (height - cell * proportion) / 2)


def _wrapped(text: str, letters: int = TITLE_LETTERS) -> str:
    """At most two lines, cut with an ellipsis if that is not enough."""
    printable = "".join(letter if letter.isprintable() else "�" for letter in text)
    first, *more = textwrap.wrap(printable, letters) or [""]
    if len(more) > 1:
        more = [more[0][: letters - 1] + "…"]
    return "\n".join([first, *more])

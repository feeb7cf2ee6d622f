"""Drawings for Python and notebooks: figures that show themselves, and `show`, a grid of any pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from engine.data.arrays.given import is_array_like, plain_array
from engine.data.pictures.images import decode_picture
from engine.data.pictures.shown import shown_levels
from engine.errors import InputError, problem, shape_text
from engine.host.storage import check_file_place, expanded, replaced
from engine.report.figures import write_figure
from engine.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_INCHES, TITLE_LETTERS, DOTS = 1.5, 22, 110
MOST_COLUMNS, MOST_SHOWN = 8, 200  # pictures in a row, and in all
FORMS = (".png", ".svg", ".pdf")
COLOR_CHANNELS = (1, 3, 4)
WHITE = (255, 255, 255)
Shown = Any  # an array [h w] or [h w c], a PIL image, a path or the bytes of a file


@dataclass(frozen=True, eq=False)
class Drawing:
    """A Matplotlib figure, which a notebook shows."""

    figure: "Figure"

    def save(self, path: str | PathLike[str]) -> None:
        """Writes it as a PNG, or in the form that the ending of the name says: .svg, .pdf."""
        target = expanded(path)
        check_file_place(target, "path", *FORMS, *([] if target.suffix else [""]))
        kind = target.suffix.lower().removeprefix(".") or "png"
        with replaced(target) as file:
            write_figure(self.figure, file, dpi=DOTS, format=kind)

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        write_figure(self.figure, file, dpi=DOTS, format="png")
        return file.getvalue()


def show(
    pictures: "Shown | Sequence[Shown] | Mapping[str, np.ndarray]",
    titles: Sequence[object] = (),
    title: str = "",
    columns: int | None = None,
) -> Drawing:
    """A grid of pictures with a title above each.

    pictures: one or many: arrays [h w], [h w 1], [h w 3] or [h w 4], PIL images, paths, or bytes of files. Levels
      (uint8) stay as they are; other numbers go from black for the least of a picture to white for its largest. Of a
      dict of maps [y x c] by name, as of `feature_maps`, a row each, of its first channels.
    titles: one for each picture.
    columns: pictures in a row; by default up to 8.
    Raises InputError for what is no picture, and for more than 200.
    """
    if columns is not None and (not isinstance(columns, int | np.integer) or columns < 1):
        raise InputError(problem("columns", repr(columns), "a whole number of at least 1", "Give 4 or so."))
    if isinstance(pictures, Mapping):
        columns = columns or MOST_COLUMNS
        cells = [cell for name, maps in pictures.items() for cell in _row_of(name, maps, columns)]
    else:
        images = _listed(pictures)
        texts = [str(text) for text in titles] or [""] * len(images)
        if len(texts) != len(images):
            rule = f"{len(images)}, one for each picture"
            raise InputError(problem("titles", len(texts), rule, "Give as many, or none."))
        cells = list(zip(images, texts, strict=True))
    if not 0 < len(cells) <= MOST_SHOWN:
        raise InputError(problem("pictures", len(cells), f"1 to {MOST_SHOWN}", "Show fewer at once."))
    columns = columns or min(MOST_COLUMNS, len(cells))
    arrays = [None if cell is None else _levels(cell, number) for number, (cell, _) in enumerate(cells)]
    return _draw(arrays, [text for _, text in cells], title, columns)


def _draw(arrays: Sequence[np.ndarray | None], titles: Sequence[str], title: str, columns: int) -> Drawing:
    from matplotlib.figure import Figure

    rows = -(-len(arrays) // columns)
    height = rows * (CELL_INCHES + 0.25) + (0.4 if title else 0)
    figure = Figure(figsize=(max(2.0, columns * CELL_INCHES), height), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, array, text in zip(figure.axes, arrays, titles, strict=False):
        if array is not None:
            axes.imshow(np.broadcast_to(array, (*array.shape[:2], max(3, array.shape[2]))))
            axes.set_title(_cut(text), fontsize=8, pad=3, parse_math=False)
    if title:
        figure.suptitle(one_line(title), fontsize=11, parse_math=False)
    return Drawing(figure)


def _row_of(name: str, maps: np.ndarray, columns: int) -> list[tuple[np.ndarray | None, str]]:
    """The first channels of maps [y x c], and empty cells behind them."""
    if np.ndim(maps) != 3:
        raise InputError(problem(name, shape_text(np.shape(maps)), "maps [y x c]", "Show arrays in a list."))
    shown: list[tuple[np.ndarray | None, str]] = [
        (maps[..., channel], name if channel == 0 else "") for channel in range(min(columns, maps.shape[2]))
    ]
    return shown + [(None, "")] * (columns - len(shown))


def _listed(pictures: Any) -> list[Any]:
    """One picture, or many, as a list. An array [a b c] is one if it has as many channels as colours have."""
    if isinstance(pictures, str | PathLike | bytes | Image.Image):
        return [pictures]
    if isinstance(pictures, np.ndarray) or is_array_like(pictures):
        array = plain_array(pictures, "pictures")
        return [array] if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in COLOR_CHANNELS) else list(array)
    if not isinstance(pictures, Iterable):
        rule = "a picture or a list of pictures: arrays, paths, PIL images"
        raise InputError(problem("pictures", type(pictures).__name__, rule, "Pass one of these."))
    return list(pictures)


def _levels(picture: Any, number: int) -> np.ndarray:
    """uint8[h w c] with 1, 3 or 4 channels."""
    if isinstance(picture, str | PathLike | bytes):
        return decode_picture(picture if isinstance(picture, bytes) else str(picture), "rgb", None, None, WHITE)
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))
    array = plain_array(picture, f"picture {number}") if is_array_like(picture) else np.asarray(picture)
    if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "biuf":
        rule, remedy = "an array [h w] or [h w c], a PIL image, a path or bytes", "Pass one of these."
        got = shape_text(array.shape) or type(picture).__name__
        raise InputError(problem(f"picture {number}", got, rule, remedy))
    if not np.isfinite(array).all():
        raise InputError(problem(f"picture {number}", "numbers that are not finite", "finite ones", "Replace them."))
    return array if array.ndim == 3 and array.shape[2] == 4 and array.dtype == np.uint8 else shown_levels(array)


def _cut(text: str) -> str:
    lines = [one_line(line) for line in text.split("\n")[:2]]
    return "\n".join(line if len(line) <= TITLE_LETTERS else f"{line[: TITLE_LETTERS - 1]}…" for line in lines)

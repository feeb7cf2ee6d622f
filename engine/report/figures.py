"""Figures of matplotlib as files."""

import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from engine.host.storage import replaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS = 130  # an inch


def save_figure(figure: "Figure", path: Path, **how: Any) -> None:
    """Writes a figure as a PNG, atomically."""
    with replaced(path) as file:
        write_figure(figure, file, dpi=DOTS, format="png", **how)


def write_figure(figure: "Figure", file: IO[Any], **how: Any) -> None:
    """Writes a figure; letters that the font lacks are drawn as boxes, without a warning for each. how: of savefig."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(file, **how)

"""Pictures of a model's inputs and predictions, and when those of a run are drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from engine.data.decoded.dataset import Dataset
from engine.host.collecting import without_collecting
from engine.host.storage import replaced
from engine.report.figures import save_figure
from engine.report.mistakes import choose_shown
from engine.text import one_line

PLACES, MOST_WRONG = 9, 5  # of the nine places, those for mistakes at most


class Pictures:
    """The pictures of a run in its directory: drawn at once, or, where they may wait, once somebody needs its files.

    One that waits is replaced by a later one of the same name.
    """

    def __init__(self, directory: Path, may_wait: bool = False):
        self.directory, self._may_wait = directory, may_wait
        self._waiting: dict[str, Callable[[Path], None]] = {}

    def add(self, name: str, draw: Callable[[Path], None]) -> None:
        """Takes a picture: what writes it as a PNG at a path. It holds no more than it draws."""
        self._waiting[name] = draw
        if not self._may_wait:
            self.draw()

    def draw(self) -> None:
        """Draws what waits. One that cannot be written waits on."""
        with without_collecting():  # matplotlib is imported
            for name, draw in tuple(self._waiting.items()):
                draw(self.directory / name)
                self._waiting.pop(name, None)


@dataclass(frozen=True)
class Examples:
    """Nine examples to draw: their images, uint8[h w c], and what is said of each, with whether it is right."""

    images: tuple[np.ndarray, ...]
    captions: tuple[tuple[str, bool], ...]
    title: str


def save_picture(image: np.ndarray, path: Path) -> None:
    """Writes one uint8[h w c] image as a PNG."""
    with replaced(path) as file:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="png")


def choose_examples(dataset: Dataset, probabilities: np.ndarray, title: str) -> Examples:
    """Nine of the examples, of as many classes as there are: mistakes first, with what they are.

    probabilities: float32[n k], of all examples.
    """
    labels = dataset.class_numbers
    chosen = choose_shown(probabilities, labels, PLACES, MOST_WRONG).tolist()
    images = tuple(np.asarray(dataset.images[k]) for k in chosen)
    captions = tuple(_caption(dataset.class_names, probabilities[k], int(labels[k])) for k in chosen)
    num_wrong = int((probabilities.argmax(1) != labels).sum())
    return Examples(images, captions, f"{one_line(title)}\n{num_wrong:,} of {len(dataset):,} wrong")


def draw_predictions(examples: Examples, path: Path) -> None:
    """Draws them in a grid, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 6.9), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(3, 3).flat:
        axes.axis("off")
    for axes, image, (text, is_right) in zip(figure.axes, examples.images, examples.captions, strict=False):
        axes.imshow(np.broadcast_to(image, (*image.shape[:2], 3)))  # a colour map would stretch the levels
        axes.set_title(text, fontsize=9, color="black" if is_right else "firebrick", parse_math=False)
    figure.suptitle(examples.title, fontsize=11, parse_math=False)
    save_figure(figure, path)


def _caption(names: Sequence[str], probabilities: np.ndarray, label: int) -> tuple[str, bool]:
    guess = int(probabilities.argmax())
    text = f"{one_line(names[guess])} {probabilities[guess]:.0%}"
    return (text, True) if guess == label else (f"{text}\nis {one_line(names[label])}", False)

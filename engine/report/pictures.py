"""Pictures of a model's inputs and predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from engine.data.decoded.dataset import Dataset
from engine.host.storage import replaced
from engine.report.mistakes import choose_shown
from engine.text import one_line

PLACES, MOST_WRONG = 9, 5  # of the nine places, those for mistakes at most


def save_picture(image: np.ndarray, path: Path) -> None:
    """Writes one uint8[h w c] image as a PNG."""
    with replaced(path) as file:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="png")


def draw_predictions(dataset: Dataset, probabilities: np.ndarray, path: Path, title: str) -> None:
    """Draws nine examples in a grid, of as many classes as there are: mistakes first, with what they are.

    probabilities: float32[n k], of all examples.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = dataset.class_numbers
    chosen = choose_shown(probabilities, labels, PLACES, MOST_WRONG)
    figure = Figure(figsize=(6.2, 6.9), layout="constrained")
    FigureCanvasAgg(figure)
    for i, axes in enumerate(figure.subplots(3, 3).flat):
        axes.axis("off")
        if i >= len(chosen):
            continue
        image = np.asarray(dataset.images[int(chosen[i])])
        axes.imshow(np.broadcast_to(image, (*image.shape[:2], 3)))  # a colour map would stretch the levels
        text, is_right = _caption(dataset.class_names, probabilities[chosen[i]], int(labels[chosen[i]]))
        axes.set_title(text, fontsize=9, color="black" if is_right else "firebrick", parse_math=False)
    num_wrong = int((probabilities.argmax(1) != labels).sum())
    figure.suptitle(f"{one_line(title)}\n{num_wrong:,} of {len(dataset):,} wrong", fontsize=11, parse_math=False)
    with replaced(path) as file:
        figure.savefig(file, dpi=130, format="png")


def _caption(names: Sequence[str], probabilities: np.ndarray, label: int) -> tuple[str, bool]:
    guess = int(probabilities.argmax())
    text = f"{one_line(names[guess])} {probabilities[guess]:.0%}"
    return (text, True) if guess == label else (f"{text}\nis {one_line(names[label])}", False)

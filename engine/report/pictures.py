"""Pictures of a model's inputs and predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from engine.data.decoded.dataset import Dataset
from engine.host.storage import replaced


def save_picture(image: np.ndarray, path: Path) -> None:
    """Writes one uint8[h w c] image as a PNG."""
    with replaced(path) as file:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format="png")


def draw_predictions(dataset: Dataset, probabilities: np.ndarray, path: Path, title: str) -> None:
    """Draws the first nine examples in a grid, with predictions (float32[9 k]) and, if these are wrong, the label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 6.9), layout="constrained")
    FigureCanvasAgg(figure)
    for i, axes in enumerate(figure.subplots(3, 3).flat):
        axes.axis("off")
        if i >= len(probabilities):
            continue
        image = dataset.images[i]
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray")
        text, is_right = _caption(dataset.class_names, probabilities[i], int(dataset.class_numbers[i]))
        axes.set_title(text, fontsize=9, color="black" if is_right else "firebrick")
    figure.suptitle(title)
    with replaced(path) as file:
        figure.savefig(file, dpi=130, format="png")


def _caption(names: Sequence[str], probabilities: np.ndarray, label: int) -> tuple[str, bool]:
    guess = int(probabilities.argmax())
    text = f"{names[guess]} {probabilities[guess]:.0%}"
    return (text, True) if guess == label else (f"{text}\nis {names[label]}", False)

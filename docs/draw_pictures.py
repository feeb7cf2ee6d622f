"""Draws the pictures of the pages: from photographs of scikit-image, and from what a run printed (docs/terminal.txt).

make docs
"""

import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

from engine.augment.apply import augment_image
from engine.augment.config import AugmentConfig
from engine.data.pictures.images import fit_picture
from engine.report.augmentation import draws_of
from engine.report.grid import draw_grid
from engine.report.history import draw_curves

TRANSCRIPT = Path(__file__).parent / "terminal.txt"  # of `engine train convnet`
PHOTOGRAPHS = ("chelsea", "astronaut", "coffee", "rocket")
SIZE = (180, 180)
COLORS = (
    ("brightness 1.5", AugmentConfig(brightness=(1.5, 1.5))),
    ("contrast 1.6", AugmentConfig(contrast=(1.6, 1.6))),
    ("saturation 0.3", AugmentConfig(saturation=(0.3, 0.3))),
    ("hue 0.15", AugmentConfig(hue=(0.15, 0.15))),
    ("posterize", AugmentConfig(posterize=1.0, posterize_bits=2)),
    ("solarize", AugmentConfig(solarize=1.0)),
    ("equalize", AugmentConfig(equalize=1.0)),
    ("blur 2 pixels", AugmentConfig(blur=(2.0, 2.0))),
    ("noise 25", AugmentConfig(noise=25.0)),
)
FILLS = ("constant", "edge", "reflect", "wrap")


def photograph(name: str) -> Image.Image:
    """One of scikit-image's photographs."""
    return Image.fromarray(getattr(data, name)())


def square(name: str) -> np.ndarray:
    """uint8[h w 3]: the middle of a photograph."""
    return fit_picture(photograph(name), "rgb", SIZE, "crop")


def changed(image: np.ndarray, config: AugmentConfig) -> np.ndarray:
    """The image after one draw."""
    return np.asarray(augment_image(jax.random.key(0), image, config)).round().astype(np.uint8)


def draw_all(folder: Path) -> None:
    """Writes every picture into a folder."""
    cat, woman, cup, _ = images = [square(name) for name in PHOTOGRAPHS]
    nine = [images[i % 4] if i < 4 else changed(images[i % 4], AugmentConfig(crop_area=(0.3, 0.6))) for i in range(9)]
    draw_grid(nine, [PHOTOGRAPHS[i % 4] for i in range(9)], folder / "samples.png", "photographs")

    wide = photograph("coffee")
    rules = ("stretch", "crop", "pad")
    fitted = [fit_picture(wide, "rgb", SIZE, rule) for rule in rules]
    draw_grid(fitted, rules, folder / "resize.png", "a picture of 600×400 made square")

    def draw_draws(name: str, config: AugmentConfig, title: str, others: list[np.ndarray] | None = None) -> None:
        partners = [(image, number + 1) for number, image in enumerate(others or [])]
        draws, shares = draws_of(cat, 0, partners, 0, config)
        titles = [f"{share:.0%} cat" if others else "" for share in shares]
        draw_grid([cat, *draws], ["original", *titles], folder / f"{name}.png", title)

    usual = AugmentConfig(horizontal_flip=True, rotation=36, zoom=0.1)
    draw_draws("flip_rotation_zoom", usual, "horizontal flip, rotation ±36°, zoom ±0.1")
    draw_draws("trivial_augment", AugmentConfig(policy="trivial_augment"), "TrivialAugment")
    others = [woman, cup] * 4
    draw_draws("mixing", AugmentConfig(mixup=2.0, cutmix=2.0), "mixup and cutmix", others)

    turned = [changed(cat, AugmentConfig(rotation=(30, 30), fill=fill, fill_value=128)) for fill in FILLS]  # type: ignore[arg-type]
    draw_grid([cat, *turned], ["original", *FILLS], folder / "fill.png", "turned by 30°")
    shown = [changed(cat, config) for _, config in COLORS]
    draw_grid(shown, [name for name, _ in COLORS], folder / "color.png", "colour")
    transcript = TRANSCRIPT.read_text(encoding="utf-8")
    draw_curves(read_history(transcript), "convnet", ("loss", "accuracy"), None, folder / "curves.png")
    for path in folder.glob("*.png"):
        _shrink(path)
    draw_terminal(transcript, folder / "terminal.png")


def read_history(transcript: str) -> list[dict[str, Any]]:
    """The history of a run, from the lines of its epochs."""
    line = r"^epoch (\d+)/.* loss (\S+)  accuracy (\S+)  val loss (\S+)  val accuracy (\S+)$"
    names = ("loss", "accuracy", "validation_loss", "validation_accuracy")
    found = re.findall(line, transcript, re.MULTILINE)
    return [{"epoch": int(epoch), **dict(zip(names, map(float, values), strict=True))} for epoch, *values in found]


def draw_terminal(text: str, path: Path) -> None:
    """Draws text as a terminal shows it."""
    lines = text.rstrip().splitlines()
    figure = Figure(figsize=(0.079 * max(map(len, lines)) + 0.3, 0.165 * len(lines) + 0.3), facecolor="#1e1e2e")
    FigureCanvasAgg(figure)
    for number, line in enumerate(lines):
        height = 1 - (0.165 * (number + 1) + 0.1) / figure.get_figheight()
        color = "#89b4fa" if line.startswith("$") else "#cdd6f4"
        figure.text(0.15 / figure.get_figwidth(), height, line, family="DejaVu Sans Mono", fontsize=9, color=color)
    figure.savefig(path, dpi=110)
    with Image.open(path) as image:
        image.convert("RGB").quantize(16).save(path, optimize=True)


def _shrink(path: Path) -> None:
    """A tenth of the bytes, so that the repository stays small: two thirds of the width, 128 colours."""
    with Image.open(path) as image:
        smaller = image.convert("RGB").resize((image.width * 2 // 3, image.height * 2 // 3))
    smaller.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures")

"""Real weights on real photographs, and a new head on their features; skipped without the packages."""

from pathlib import Path

import numpy as np
from PIL import Image

import engine
from engine.models import Dense, GlobalAveragePool
from tests.importers.photographs import find_photograph, find_weights

SOURCES = {"cat": "skimage/data/chelsea.png", "coffee": "skimage/data/coffee.png", "rocket": "skimage/data/rocket.jpg"}
CROPS, SIDE = 8, 200


def make_folder(path: Path) -> Path:
    """A folder a class, of crops of one photograph each."""
    draw = np.random.default_rng(0)
    for name, source in SOURCES.items():
        (path / name).mkdir(parents=True)
        image = Image.open(find_photograph(source)).convert("RGB")
        for number in range(CROPS):
            left, top = (int(draw.integers(0, size - SIDE)) for size in image.size)
            image.crop((left, top, left + SIDE, top + SIDE)).save(path / name / f"{number}.png")
    return path


def test_lite0_names_a_cat_and_learns_three_classes_of_crops(tmp_path: Path):
    weights = find_weights()
    classifier = engine.pretrained("efficientnet_lite0", weights, say=lambda text: None)
    photograph = find_photograph("skimage/data/coffee.png")
    best = classifier.predict(photograph)[0]
    assert best.label == "n07920052 espresso"
    assert best.probability > 0.9
    trunk = engine.pretrained("efficientnet_lite0", weights, top=False, image_size=96, say=lambda text: None)
    head = [GlobalAveragePool(), Dense()]
    result = engine.finetune(
        trunk, make_folder(tmp_path / "crops"), head=head, freeze=["conv_stem", "bn1", "blocks*", "conv_head", "bn2"],
        epochs=20, batch_size=8, validation=0.25, verbose=False,
    )  # fmt: skip
    assert result.metrics["validation"]["accuracy"] == 1

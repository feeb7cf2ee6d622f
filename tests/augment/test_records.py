"""Records of old runs keep their meaning: the same pixels as the engine that wrote them made."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from engine.augment.apply import augment_batch, example_keys
from engine.augment.config import AugmentConfig

FILE = Path(__file__).parents[1] / "references" / "augment_before.npz"
GEOMETRY: dict[str, Any] = {
    "horizontal_flip": True, "vertical_flip": True, "rotation": 40.0, "height_shift": 0.2, "width_shift": (-0.1, 0.3),
    "shear": 15.0, "zoom": 0.2, "width_zoom": 0.3, "crop_padding": 1, "crop_area": (0.5, 1.0),
}  # fmt: skip
OLD: dict[str, dict[str, Any]] = {
    "flips": {"horizontal_flip": True, "vertical_flip": True},
    "pixels": {"crop_padding": 2, "height_shift": 3.0, "shift_unit": "pixels", "fill": "wrap"},
    "geometry, constant": {**GEOMETRY, "fill": "constant", "fill_value": 37.0},
    "geometry, edge": {**GEOMETRY, "fill": "edge", "interpolation": "nearest"},
    "geometry, reflect": GEOMETRY,
    "geometry, wrap": {**GEOMETRY, "fill": "wrap", "interpolation": "nearest"},
    "colour": {
        "brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "hue": 0.2, "channel_shift": 30.0, "grayscale": 0.4,
        "posterize": 0.5, "solarize": 0.5, "autocontrast": 0.5, "equalize": 0.5, "sharpness": 0.7, "blur": (0.0, 1.0),
        "noise": 4.0,
    },
    "rand_augment": {"policy": "rand_augment"},
    "trivial_augment": {"policy": "trivial_augment", "fill": "constant"},
    "erasing": {"erasing": 0.8},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "both": {"mixup": 0.4, "cutmix": 1.0},
}  # fmt: skip
# A halved place rounds one way or the other on processors that fuse multiplication and addition.
LEVELS = 0.01


def pictures() -> np.ndarray:
    """uint8[4 8 7 3]."""
    return np.random.default_rng(7).integers(0, 256, (4, 8, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", OLD)
def test_settings_of_old_runs_make_the_same_pictures(name: str):
    images, share = jax.jit(augment_batch, static_argnums=2)(
        example_keys(3, 1, np.arange(4)), pictures(), AugmentConfig(**OLD[name])
    )
    with np.load(FILE) as stored:
        np.testing.assert_allclose(images, stored[name], rtol=0, atol=LEVELS)
        if share is not None:
            np.testing.assert_allclose(share, stored[f"{name} share"], rtol=0, atol=1e-6)

"""A family with few numbers, and files of weights for it as Keras's legacy format has them."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest

from engine.importers import catalogue, variants
from engine.importers.catalogue import Variant, of_keras
from engine.models import Activation, BatchNorm, Conv, Dense, GlobalAveragePool, Sequential

SIZE = 8


def tiny(*, top: bool = True, num_classes: int | None = None) -> Sequential:
    """A convolution, a batch norm and a classifier."""
    layers = [Conv(4, 3, 2, use_bias=False, name="conv1"), BatchNorm(name="bn1"), Activation("relu", name="relu1")]
    head = (GlobalAveragePool(name="avg_pool"), Dense(num_classes, name="predictions")) if top else ()
    return Sequential((*layers, *head))


VARIANT = of_keras("tiny", tiny, {}, catalogue.CAFFE, catalogue.RESNET, "tiny/tiny{}.h5", size=SIZE)


@pytest.fixture
def known_as_tiny(monkeypatch: pytest.MonkeyPatch) -> Variant:
    """The family in the catalogue, for one test."""
    monkeypatch.setitem(variants.VARIANTS, "tiny", VARIANT)
    return VARIANT


def draw_arrays(num_classes: int = 1000, top: bool = True) -> dict[str, np.ndarray]:
    """Random arrays by Keras's names; none is like a fresh one."""
    draw = np.random.default_rng(0)
    shapes = {"conv1/kernel": (3, 3, 3, 4), "bn1/gamma": (4,), "bn1/beta": (4,), "bn1/moving_mean": (4,)}
    shapes |= {"bn1/moving_variance": (4,)}
    shapes |= {"predictions/kernel": (4, num_classes), "predictions/bias": (num_classes,)} if top else {}
    return {name: draw.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_h5(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Weights in Keras's legacy format."""
    with h5py.File(path, "w") as file:
        layers = list(dict.fromkeys(name.split("/")[0] for name in arrays))
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            own = {name: array for name, array in arrays.items() if name.split("/")[0] == layer}
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in own]
            for name, array in own.items():
                group.create_dataset(f"{name}:0", data=array)
    return path

"""What all readers have in common: memory, and nothing of Python's pickle."""

import tracemalloc

import h5py
import numpy as np
import pytest

from engine.importers.read import read_weights
from tests.importers.files import safetensors, torch_of, written

ARRAYS = {f"layer_{number}/kernel": np.full((256, 256), 0.5, np.float32) for number in range(32)}  # 8 MB


def as_h5(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.partition("/")[0] for name in ARRAYS]
        for name, array in ARRAYS.items():
            layer = name.partition("/")[0]
            file.create_dataset(f"{layer}/{name}", data=array)
            file[layer].attrs["weight_names"] = [name]
    return path


def as_safetensors(path):
    size = 4 * 256 * 256
    header = {
        name: {"dtype": "F32", "shape": [256, 256], "data_offsets": [size * number, size * (number + 1)]}
        for number, name in enumerate(ARRAYS)
    }
    return written(path, safetensors(header, b"".join(array.tobytes() for array in ARRAYS.values())))


FORMATS = {
    "h5": as_h5,
    "safetensors": as_safetensors,
    "torch": lambda path: written(path, torch_of(ARRAYS)),
    "old torch": lambda path: written(path, torch_of(ARRAYS, is_old=True)),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_reading_takes_little_more_than_the_file(tmp_path, kind):
    path = FORMATS[kind](tmp_path / "weights")
    tracemalloc.start()
    try:
        found = read_weights(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.arrays.keys() == ARRAYS.keys()
    assert peak < 1.3 * path.stat().st_size


def test_pickle_is_not_used(tmp_path, monkeypatch):
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", lambda *arguments, **named: pytest.fail("pickle was used"))
    for is_old in (False, True):
        assert read_weights(written(tmp_path / "a.pth", torch_of(ARRAYS, is_old))).arrays.keys() == ARRAYS.keys()

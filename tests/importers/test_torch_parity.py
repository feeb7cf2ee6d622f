"""Networks of timm and ours with the same arrays, moved over by name, give the same logits."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.keras_twins import difference
from benchmarks.torch_twins import draw_arrays, draw_images, make_torch_twin
from engine.importers.torch_names import is_counter
from tests.further import further
from tests.importers.torch_cases import CASES

STORED = Path(__file__).with_name("torch_logits.npz")  # made by make_torch_logits.py


def read_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of timm's state dict."""
    with np.load(STORED) as stored:
        return {key: tuple(shape) for key, shape in json.loads(stored[f"{name}/shapes"].tobytes()).items()}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, case.sizes[0]) for name, case in CASES.items()),
        *further((name, size) for name, case in CASES.items() for size in case.sizes[1:]),
    ],
)
def test_logits_are_those_of_timm(name: str, size: int):
    with np.load(STORED) as stored:
        expected = stored[f"{name}/{size}"]
    twin = make_torch_twin(CASES[name].spec, size, draw_arrays(read_shapes(name)))
    assert not twin.left_over
    assert difference(twin.run(draw_images(size)), expected) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_the_arrays_of_timm_are_used_or_counters(name: str):
    case, shapes = CASES[name], read_shapes(name)
    used = {key for key in shapes if not is_counter(key)}
    size = case.sizes[0]
    counts = case.spec.num_params((size, size, 3)) + case.spec.num_statistics((size, size, 3))
    assert counts == sum(int(np.prod(shapes[key])) for key in used)

"""Which array of a file fills which array of a model: every one once, by name, or an error that names both sides."""

import numpy as np
import pytest

from engine.errors import InputError
from engine.importers.matching import Origin, Target, fill
from engine.models import Dense

TARGETS = [
    Target(Dense(3), "fc", "kernel", (2, 3), (0, "layers", 0, "kernel")),
    Target(Dense(3), "fc", "bias", (3,), (0, "layers", 0, "bias")),
]


def by_slash(target: Target) -> Origin:
    return Origin((f"{target.name}/{target.array}:0", f"{target.name}/{target.array}"))


def given(**changed: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {"fc/kernel": np.ones((2, 3), np.float32), "fc/bias": np.zeros(3, np.float32)}
    return arrays | {name.replace("_", "/"): array for name, array in changed.items()}


def test_each_target_is_filled_and_the_rest_named():
    filled = fill(TARGETS, given(extra=np.zeros(1)), by_slash, "file.h5")
    assert filled.left_over == ("extra",)
    assert {path[-1]: array.shape for path, array in filled.arrays.items()} == {"kernel": (2, 3), "bias": (3,)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (given(fc_kernel=np.ones((3, 2))), r"got 3×2; expected 2×3, as fc kernel has"),
        (given(fc_bias=np.array([0, np.nan, 1])), r"1 values that are no finite"),
        ({"fc/kernel": np.ones((2, 3)), "other": np.ones(1)}, r"nothing for 1 of 2 arrays: fc bias.*Left over.*other"),
    ],
)
def test_what_does_not_fit_is_named(arrays: dict[str, np.ndarray], message: str):
    with pytest.raises(InputError, match=message):
        fill(TARGETS, arrays, by_slash, "file.h5")


def test_one_array_fills_no_two_targets():
    with pytest.raises(InputError, match="one array for fc and fc"):
        fill(TARGETS, given(), lambda target: Origin(("fc/kernel",)), "file.h5")

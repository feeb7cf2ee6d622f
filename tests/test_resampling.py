"""Pictures in another size: the same as Pillow's, to the bit, with our own code and without."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.data import resampling
from engine.data.resampling import resized

SIDES = st.one_of(st.integers(1, 12), st.integers(1, 200))
NEEDED = pytest.mark.skipif(resampling._resample() is None, reason="needs a C++ compiler")


def by_pillow(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h w c] → [height width c]"""
    image = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)


@NEEDED
@given(shape=st.tuples(SIDES, SIDES, st.sampled_from((1, 3))), made=st.tuples(SIDES, SIDES), seed=st.integers(0, 1000))
def test_resized_equals_pillow(shape: tuple[int, int, int], made: tuple[int, int], seed: int):
    levels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(resized(levels, made), by_pillow(levels, *made))


@NEEDED
@pytest.mark.parametrize("value", [0, 255])
def test_resized_keeps_black_and_white(value: int):
    assert (resized(np.full((37, 51, 3), value, np.uint8), (180, 20)) == value).all()


def test_resized_reads_a_view_that_is_not_contiguous():
    levels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    turned = levels.transpose(1, 0, 2)
    np.testing.assert_array_equal(resized(turned, (9, 8)), resized(turned.copy(), (9, 8)))


def test_resized_without_a_compiler_is_pillows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resampling, "_resample", lambda: None)
    for channels in (1, 3):
        levels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
        np.testing.assert_array_equal(resized(levels, (9, 40)), by_pillow(levels, 9, 40))

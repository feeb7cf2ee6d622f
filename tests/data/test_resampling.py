"""Pictures in another size: the same as Pillow's, to the bit, with our own code and without."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from engine.config.decoding import Decoding, Interpolation
from engine.data.pictures import resampling
from engine.data.pictures.interpolating import interpolated
from engine.data.pictures.resampling import FILTERS, fitted, resized, stretched

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


KERAS = np.load(Path(__file__).parents[1] / "pinned" / "keras_resizes.npz")


@pytest.mark.parametrize("name", [name for name in KERAS.files if "/" in name])
def test_resizing_equals_keras_within_half_a_level(name: str):
    """Pinned: see pinned/make_keras_resizes.py. What Keras lets go below 0 or beyond 255 is cut off there."""
    shape, size, interpolation, how = name.split("/")
    height, width = map(int, size.split("x"))
    rule: Any = {"load_img": "stretch", "load_img_crop": "crop"}.get(how, how)
    decoding = Decoding(interpolation, antialias=how == "load_img")  # type: ignore[arg-type]
    shown = fitted(KERAS[shape][..., None], (height, width), rule, decoding)[..., 0]
    np.testing.assert_allclose(shown, KERAS[name].astype(float).clip(0, 255), atol=0.5 + 1e-4)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_antialiased_resizing_equals_pillow_in_each_channel(interpolation: Any, rule: Any, channels: int):
    levels = np.random.default_rng(0).integers(0, 256, (31, 22, channels), np.uint8)
    by_rule = {"stretch": Image.Image.resize, "crop": ImageOps.fit, "pad": ImageOps.pad}[rule]
    for height, width in ((9, 11), (50, 40), (31, 22)):
        shown = fitted(levels, (height, width), rule, Decoding(interpolation))
        for c in range(channels):
            expected = by_rule(Image.fromarray(levels[..., c].copy()), (width, height), FILTERS[interpolation])
            np.testing.assert_array_equal(shown[..., c], np.asarray(expected))


@settings(max_examples=30)
@given(shape=st.tuples(SIDES, SIDES, st.integers(1, 4)), made=st.tuples(SIDES, SIDES), seed=st.integers(0, 1000))
@pytest.mark.parametrize("interpolation", FILTERS)
def test_resizing_without_antialiasing_keeps_even_pictures_even(interpolation: Any, shape: Any, made: Any, seed: int):
    level = seed % 256
    shown = interpolated(np.full(shape, level, np.uint8), made, interpolation)
    np.testing.assert_array_equal(shown, np.full((*made, shape[2]), level))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 2_000_000, 1), (2_000_000, 1, 1), (700_000, 3, 1)])
def test_memory_of_thin_pictures_is_bounded(
    interpolation: Any, antialias: bool, rule: Any, shape: tuple[int, int, int]
):
    levels = np.full(shape, 130, np.uint8)
    tracemalloc.start()
    shown = fitted(levels, (28, 28), rule, Decoding(interpolation, antialias))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shown.shape == (28, 28, 1)
    assert shown.max() == 130  # also padded: at least a line of it is left
    assert most < 12 * levels.size + 2**24


def test_long_side_is_shortened_to_what_it_would_be():
    """A ramp of 400,000 pixels: averaged before, it is the same within a level."""
    ramp = np.linspace(0, 255, 400_000).astype(np.uint8)[None, :, None]
    shown = stretched(ramp, (1, 50))[0, :, 0]
    expected = (np.arange(50) + 0.5) / 50 * 255
    assert np.abs(shown.astype(float) - expected).max() <= 1.5


def test_tables_that_are_kept_are_small():
    resampling._kept_taps.cache_clear()
    for size in (100, 5000, 6000, 100_000):
        resampling._table(size, 28)
    assert resampling._kept_taps.cache_info().currsize == 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("share", [1.0, 0.875, 0.95])
@pytest.mark.parametrize("size", [(60, 90), (90, 61), (40, 40), (31, 200)])
def test_shorter_is_resize_and_center_crop_of_torchvision(
    interpolation: Interpolation, share: float, size: tuple[int, int]
):
    levels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    made = fitted(levels, (32, 32), "shorter", Decoding(interpolation, crop_share=share))
    (h, w), side = size, int(32 / share)
    tall, wide = (side, int(side * w / h)) if h <= w else (int(side * h / w), side)  # transforms.Resize
    whole = Image.fromarray(levels).resize((wide, tall), FILTERS[interpolation])
    top, left = round((tall - 32) / 2), round((wide - 32) / 2)  # transforms.CenterCrop
    np.testing.assert_array_equal(made, np.asarray(whole)[top : top + 32, left : left + 32])


def test_shorter_of_other_sizes_keeps_the_ratio_and_fits():
    levels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    for size in [(16, 32), (32, 16), (30, 31)]:
        assert fitted(levels, size, "shorter", Decoding(crop_share=0.9)).shape == (*size, 3)


def test_shorter_of_a_line_takes_no_gigabytes():
    line = np.zeros((1, 100_000, 3), np.uint8)
    assert fitted(line, (32, 32), "shorter").shape == (32, 32, 3)

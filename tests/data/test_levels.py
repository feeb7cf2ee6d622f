"""Levels of arrays: every range gives back the levels it was made of, and values of another range are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from engine.data.pictures.levels import USUAL_RANGES, as_levels
from engine.errors import InputError

LEVELS = arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
RANGES = st.one_of(
    st.sampled_from(USUAL_RANGES),
    st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(0.125, 1e4, width=32)).map(lambda r: (r[0], r[0] + r[1])),
)


def is_too_dark(levels: np.ndarray) -> bool:
    return 0 < levels.max(initial=0) <= 2


@given(LEVELS, RANGES, st.sampled_from([np.float16, np.float32, np.float64]))
def test_numbers_made_of_levels_give_back_these_levels(levels, value_range, dtype):
    low, high = value_range
    values = (levels.astype(np.float64) / 255 * (high - low) + low).astype(dtype)
    if dtype == np.float16 and np.abs([low, high]).max() / 1024 > (high - low) / 2550:
        return  # its eleven bits do not tell the levels of this range apart
    if dtype == np.float32 and np.abs([low, high]).max() / 2**23 > (high - low) / 2550:
        return
    if is_too_dark(levels):
        with pytest.raises(InputError, match="not its first hundredth alone"):
            as_levels(values, value_range, "images")
    else:
        found = as_levels(values, value_range, "images")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, levels)


@given(LEVELS)
def test_uint8_is_itself_without_a_range_and_in_its_own(levels):
    assert as_levels(levels, None, "images") is levels
    assert as_levels(levels, (0, 255), "images") is levels


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_masks_of_zero_and_one_are_black_and_white(dtype):
    assert as_levels(np.array([0, 1, 1]).astype(dtype), (0, 1), "images").tolist() == [0, 255, 255]


@given(st.sampled_from(USUAL_RANGES), st.sampled_from(USUAL_RANGES), st.integers(0, 99))
def test_photograph_stated_to_be_of_another_range_is_refused_or_lies_within_it(truth, stated, seed):
    values = np.random.default_rng(seed).uniform(*truth, (8, 8, 3)).astype(np.float32)
    lies_within = (
        stated[0] <= truth[0] and truth[1] <= stated[1] and truth[1] - truth[0] > (stated[1] - stated[0]) / 100
    )
    if lies_within:
        as_levels(values, stated, "images")
        return
    with pytest.raises(InputError, match=r"images: got float32 from .*; expected values from .*, the value_range"):
        as_levels(values, stated, "images")


def test_remedy_names_the_range_that_the_values_are_of():
    for values, fitting in (([0.0, 0.7], r"\(0, 1\)"), ([-0.7, 0.7], r"\(-1, 1\)"), ([0.0, 200.0], r"\(0, 255\)")):
        with pytest.raises(InputError, match=rf"expected uint8, .*uint8\), or pass value_range={fitting}\."):
            as_levels(np.array(values), None, "images")
    with pytest.raises(InputError, match=r"Pass the value_range they have, \(black, white\)"):
        as_levels(np.array([0.0, 4095.0]), None, "images")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(InputError, match="images: got NaN or infinity; expected finite values"):
        as_levels(np.array([0.5, value]), (0, 1), "images")


@pytest.mark.parametrize("value_range", [(1, 0), (0, 0), (0, np.nan), (0, np.inf), (0,), (0, 1, 2), 255, "0-1"])
def test_range_that_is_none_is_refused(value_range):
    with pytest.raises(InputError, match=r"value_range: got .*; expected two numbers, what is black and what is white"):
        as_levels(np.zeros(3), value_range, "images")


@pytest.mark.parametrize("array", [np.zeros(3, complex), np.array(["a"]), np.array([None])])
def test_what_is_no_number_is_refused(array):
    with pytest.raises(InputError, match=r"images: got .*; expected uint8, or numbers with a value_range"):
        as_levels(array, (0, 1), "images")

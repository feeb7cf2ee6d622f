"""Keys and orders as pure functions of (seed, stream, step)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.weighing import ClassDraws
from engine.keys import step_key, stream_key
from engine.training.batches import batch_mask, epoch_order, num_batches

SETTINGS = settings(max_examples=25, derandomize=True, deadline=None, database=None)
LARGEST_SEED = 2**32 - 1
SIZES = st.sampled_from((1, 7, 31))  # few: each is compiled anew
BATCH_SIZES = st.sampled_from((1, 4, 50))
SEEDS = st.integers(0, LARGEST_SEED)
TRACED_STEP_KEY = jax.jit(lambda seed, step: step_key(seed, "dropout", step))


def numbers(key: jax.Array) -> tuple[int, ...]:
    """What a key consists of."""
    return tuple(jax.random.key_data(key).tolist())


@SETTINGS
@given(SEEDS, st.integers(0, 1000), SIZES, BATCH_SIZES)
def test_epoch_order_gives_every_example_once_under_the_mask(seed: int, epoch: int, num: int, batch_size: int):
    batches = epoch_order(seed, epoch, num, batch_size).reshape(-1, batch_size)
    assert len(batches) == num_batches(num, batch_size)
    masks = [np.asarray(batch_mask(i, num, batch_size)) for i in range(len(batches))]
    assert sorted(np.asarray(batches)[np.stack(masks)]) == list(range(num))
    assert all(mask.any() for mask in masks)


@SETTINGS
@given(SEEDS, SIZES, BATCH_SIZES)
def test_epoch_order_is_the_same_for_every_batch_size_and_padded_with_its_start(seed: int, num: int, batch_size: int):
    whole, padded = np.asarray(epoch_order(seed, 3, num, num)), np.asarray(epoch_order(seed, 3, num, batch_size))
    np.testing.assert_array_equal(padded, np.resize(whole, len(padded)))
    assert (padded.dtype, whole.shape) == (np.int32, (num,))


def test_epoch_order_is_the_same_when_asked_again_and_another_for_each_epoch_and_seed():
    orders = {(s, e): tuple(epoch_order(s, e, 31, 4).tolist()) for s in (0, 1, LARGEST_SEED) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert all(tuple(epoch_order(s, e, 31, 4).tolist()) == order for (s, e), order in orders.items())


def test_epoch_order_shuffles():
    assert epoch_order(0, 0, 31, 31).tolist() != list(range(31))


def test_epoch_order_is_the_same_when_seed_and_epoch_are_traced():
    traced = jax.jit(lambda seed, epoch: epoch_order(seed, epoch, 12, 5))
    for seed, epoch in ((0, 0), (7, 3), (LARGEST_SEED, 2)):
        np.testing.assert_array_equal(traced(np.uint32(seed), np.int32(epoch)), epoch_order(seed, epoch, 12, 5))


def test_balanced_order_draws_all_classes_equally_often():
    counts = np.array([40, 9, 1], np.int32)
    draws = ClassDraws(np.random.default_rng(0).permutation(np.repeat(np.arange(3, dtype=np.int32), counts)), counts)
    ordered = jax.jit(lambda seed, epoch: epoch_order(seed, epoch, 50, 50, draws=draws))
    orders = [np.asarray(ordered(np.uint32(3), np.int32(epoch))) for epoch in range(20)]
    extra = np.zeros(3, int)
    for order in orders:
        of_class = np.bincount(draws.classes[order], minlength=3)
        assert sorted(of_class) == [16, 17, 17]
        extra += of_class - 16
        times = np.bincount(order, minlength=50)
        for k in range(3):  # of one class none is drawn again before all have been
            assert np.ptp(times[draws.classes == k]) <= 1
    assert (extra > 5).all()  # which class has one fewer is drawn
    assert len({order.tobytes() for order in orders}) == 20
    assert len(np.unique(np.concatenate(orders))) == 50


@pytest.mark.parametrize(("num", "batch_size", "expected"), [(128, 64, 2), (129, 64, 3), (1, 64, 1), (0, 64, 0)])
def test_num_batches_counts_the_padded_last_one(num: int, batch_size: int, expected: int):
    assert num_batches(num, batch_size) == expected


def test_batch_mask_marks_the_end_of_the_last_batch():
    assert batch_mask(0, 6, 4).tolist() == [True] * 4
    assert batch_mask(jnp.int32(1), 6, 4).tolist() == [True, True, False, False]


@SETTINGS
@given(SEEDS, st.integers(0, 2**31 - 1))
def test_key_is_the_same_when_the_seed_is_an_int_or_a_traced_uint32(seed: int, step: int):
    expected = numbers(step_key(seed, "dropout", step))
    assert numbers(step_key(seed, "dropout", step)) == expected
    assert numbers(TRACED_STEP_KEY(np.uint32(seed), np.int32(step))) == expected


def test_keys_differ_between_seeds_streams_and_steps():
    keys = [
        numbers(step_key(seed, stream, step))
        for seed in (0, 1, 2**31, LARGEST_SEED)
        for stream in ("init", "order", "dropout", "split")
        for step in (0, 1, 1000)
    ]
    assert len(set(keys)) == len(keys)


def test_stream_key_is_not_the_key_of_its_first_step():
    assert numbers(stream_key(0, "order")) != numbers(step_key(0, "order", 0))


def test_stream_key_stays_what_it_was_when_a_run_is_resumed_by_a_later_version():
    assert numbers(stream_key(0, "a")) == (208555866, 2927674385)

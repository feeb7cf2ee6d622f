"""Erasing, mixup and cutmix: where the boxes lie, what is drawn, and the losses of mixed examples."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.augment.apply import augment_batch, augment_image, example_keys
from engine.augment.config import AugmentConfig
from engine.augment.mixing import cutmix, erase, mix_pairs, mixup, partners
from engine.config import TrainConfig
from engine.config.contract import InputSpec
from engine.metrics.losses import LOSSES
from engine.metrics.sums import make_scoring
from engine.models import Dense, Flatten, Sequential
from engine.networks.network import network_of
from engine.training.state import init_state
from engine.training.step import Batch, Objective, _losses, train_step, with_partners
from tests.augment.test_geometry import HARNESSES, looks_even, looks_uniform, looped, random_image
from tests.further import choose_examples

NUM = 2000


@cache
def draw_keys() -> jax.Array:
    """As many keys; functions of them are not jitted, which would compile the same draws again for each."""
    return jax.random.split(jax.random.key(5), NUM)


def boxes(covered: np.ndarray) -> np.ndarray:
    """int[n 4]: (top, left, height, width) of what bool[n h w] marks; it must be a full box, or nothing (all 0)."""
    rows, columns = covered.any(2), covered.any(1)
    height, width = rows.sum(1), columns.sum(1)
    np.testing.assert_array_equal(covered, rows[:, :, None] & columns[:, None, :])
    top, left = rows.argmax(1), columns.argmax(1)
    for marked, first, size in ((rows, top, height), (columns, left, width)):
        place = np.arange(marked.shape[1])
        is_between = (place >= first[:, None]) & (place < (first + size)[:, None])
        np.testing.assert_array_equal(marked, is_between)
    return np.stack([top, left, height, width], 1)


def erased(config: AugmentConfig, image: np.ndarray) -> np.ndarray:
    """[NUM h w c]: what as many keys make of an image."""
    return np.asarray(jax.vmap(lambda key: erase(key, image, config))(draw_keys()))


@pytest.mark.parametrize("shape", [(40, 40, 1), (23, 48, 3)], ids=str)
@pytest.mark.parametrize("area", [(0.02, 0.33), (0.4, 0.6)])
def test_erased_box_keeps_area_and_ratio_up_to_rounding(shape: tuple[int, int, int], area: tuple[float, float]):
    image = np.full(shape, 10.0, np.float32)
    config = AugmentConfig(erasing=1.0, erasing_area=area, erasing_ratio=(0.4, 2.5), erasing_value=200.0)
    results = erased(config, image)
    assert set(np.unique(results)) == {10, 200}
    found = boxes(results[..., 0] == 200)
    np.testing.assert_array_equal(results == 200, np.broadcast_to(results[..., :1] == 200, results.shape))
    height, width = found[:, 2], found[:, 3]
    least, most = (share * shape[0] * shape[1] for share in area)
    assert np.all(((height + 0.5) * (width + 0.5) >= least) & ((height - 0.5) * (width - 0.5) <= most))
    assert np.all(((height + 0.5) / (width - 0.5) >= 0.4) & ((height - 0.5) / (width + 0.5) <= 2.5))
    assert len(np.unique(found, axis=0)) > 100


def test_erased_area_and_ratio_are_drawn_uniformly_and_in_logarithm():
    size = 120  # large, that rounding is small
    image = np.zeros((size, size, 1), np.float32)
    config = AugmentConfig(erasing=1.0, erasing_area=(0.1, 0.2), erasing_ratio=(0.5, 3.0), erasing_value=9.0)
    top, left, height, width = boxes(erased(config, image)[:500, ..., 0] == 9).T
    assert looks_uniform(np.clip(height * width / size**2, 0.1, 0.2), 0.1, 0.2)
    assert looks_uniform(np.clip(np.log(height / width), np.log(0.5), np.log(3)), np.log(0.5), np.log(3))
    for first, length in ((top, height), (left, width)):
        assert looks_uniform((first + 0.5) / (size - length + 1), 0, 1)


def test_erased_box_reaches_every_pixel_also_of_the_border():
    image = np.zeros((5, 7, 1), np.float32)
    covered = erased(AugmentConfig(erasing=1.0, erasing_value=1.0), image)[..., 0]
    assert np.all(covered.mean(0) > 0.01)
    np.testing.assert_allclose(covered.mean(0), covered.mean(0)[::-1, ::-1], atol=0.08)


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_happens_with_its_probability(probability: float):
    image = random_image((6, 7, 3)) + 0.5
    results = erased(AugmentConfig(erasing=probability), image)
    is_changed = np.any(results != image, axis=(1, 2, 3))
    assert stats.binomtest(int(is_changed.sum()), NUM, probability).pvalue > 1e-3
    np.testing.assert_array_equal(results[results != image], 0)  # the rest of the image stays to the bit


def test_erasing_covers_a_whole_image_of_one_pixel():
    assert np.all(erased(AugmentConfig(erasing=1.0, erasing_value=7.0), np.ones((1, 1, 3), np.float32)) == 7)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_blends_two_images_by_a_share_from_the_beta_distribution(alpha: float):
    ours, other = random_image((3, 4, 3), 0), random_image((3, 4, 3), 1)
    blends, shares = jax.vmap(lambda key: mixup(key, ours, other, alpha))(draw_keys())
    shares = np.asarray(shares, np.float64)
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    expected = np.einsum("n,hwc->nhwc", shares, ours) + np.einsum("n,hwc->nhwc", 1 - shares, other)
    np.testing.assert_allclose(blends, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 9, 3)], ids=str)
def test_cutmix_pastes_a_box_of_the_other_image_and_its_share_is_what_is_left(shape: tuple[int, int, int]):
    ours, other = random_image(shape, 0) / 2, random_image(shape, 1) / 2 + 128
    results, shares = jax.vmap(lambda key: cutmix(key, ours, other, 1.0))(draw_keys())
    pasted = np.asarray(results)[..., 0] >= 128
    np.testing.assert_array_equal(results, np.where(pasted[..., None], other, ours))
    size = shape[0] * shape[1]
    np.testing.assert_allclose(shares, 1 - pasted.sum((1, 2)) / size, rtol=0, atol=1e-6)
    boxes(pasted)
    assert np.all(pasted.mean(0) > 0.1), "some pixels are hardly ever pasted"


def test_cutmix_that_lies_within_the_image_pastes_a_share_from_the_beta_distribution():
    size, alpha = 100, 2.0
    ours, other = np.zeros((size, size, 1), np.float32), np.ones((size, size, 1), np.float32)
    pasted = jax.vmap(lambda key: cutmix(key, ours, other, alpha)[0][..., 0] > 0)(draw_keys())
    top, left, height, width = boxes(np.asarray(pasted)).T
    # A box of side s lies within with probability (1 − s)²; what the border cuts, the other side still shows.
    is_whole = (top > 0) & (left > 0) & (top + height < size) & (left + width < size)
    assert np.all(np.abs(height - width)[is_whole] <= 1)
    sides = np.sqrt(1 - np.random.default_rng(0).beta(alpha, alpha, 100_000))
    is_within = np.random.default_rng(1).random(100_000) < (1 - sides) ** 2
    assert abs(is_whole.mean() - is_within.mean()) < 0.04
    assert stats.ks_2samp(height[is_whole] / size, sides[is_within]).pvalue > 1e-3


def test_partners_exchange_the_two_of_every_pair_and_twice_is_nothing():
    for shape in ((6,), (4, 3), (8, 2, 3, 1)):
        values = jnp.arange(np.prod(shape)).reshape(shape)
        there = partners(values)
        for i in range(0, len(values), 2):
            np.testing.assert_array_equal(there[i], values[i + 1])
            np.testing.assert_array_equal(there[i + 1], values[i])
        np.testing.assert_array_equal(partners(there), values)


def mixed(config: AugmentConfig) -> tuple[np.ndarray, np.ndarray]:
    """(images, shares) of NUM examples in pairs of one image of 0 and one of 100."""
    images = jnp.tile(jnp.array([0.0, 100.0]), NUM // 2)[:, None, None, None] * jnp.ones((1, 6, 5, 1))
    images, shares = mix_pairs(draw_keys(), images, config)
    return np.asarray(images), np.asarray(shares)


@pytest.mark.parametrize("on", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}], ids=str)
def test_every_example_is_mixed_with_its_partner_and_keeps_its_share(on: dict[str, float]):
    images, shares = mixed(AugmentConfig(**on))
    own, other = np.tile([0.0, 100.0], NUM // 2), np.tile([100.0, 0.0], NUM // 2)
    np.testing.assert_allclose(images.mean((1, 2, 3)), shares * own + (1 - shares) * other, atol=1e-3)
    assert np.all((shares > -1e-6) & (shares < 1 + 1e-6))
    assert abs(np.corrcoef(shares[::2], shares[1::2])[0, 1]) < 0.1, "the two of a pair draw apart"


def test_mixup_and_cutmix_together_are_each_drawn_half_of_the_time_with_the_draws_of_each_alone():
    (images, shares), blended, cut = (
        mixed(AugmentConfig(**on)) for on in ({"mixup": 2.0, "cutmix": 0.5}, {"mixup": 2.0}, {"cutmix": 0.5})
    )
    is_blend, is_cut = ((shares == alone[1]) for alone in (blended, cut))
    assert np.all(is_blend | is_cut)
    for chosen, (expected, _) in ((is_blend, blended), (is_cut, cut)):
        np.testing.assert_array_equal(images[chosen], expected[chosen])
    assert looks_even(np.array([is_blend.sum(), NUM - is_blend.sum()]))


@pytest.mark.parametrize("name", ["erase", "mixup of cutmix"])
def test_operation_gives_the_same_under_every_transformation(name: str):
    function: Callable[..., Any] = {
        "erase": lambda key, image, other: erase(key, image, AugmentConfig(erasing=0.6)),
        "mixup of cutmix": lambda key, image, other: mixup(key, cutmix(key, image, other, 1.0)[0], other, 0.4)[0],
    }[name]
    keys = jax.random.split(jax.random.key(3), 4)
    images, others = (jnp.stack([random_image((6, 7, 3), seed + i) for i in range(4)]) for seed in (0, 10))
    expected = looped(function, keys, images, others)
    for harness in HARNESSES.values():
        np.testing.assert_allclose(harness(function, keys, images, others), expected, rtol=0, atol=1e-3)


def test_batch_is_augmented_image_by_image_and_then_mixed():
    images = jnp.stack([random_image((12, 10, 3), i) for i in range(4)]).astype(jnp.uint8)
    keys = example_keys(7, 2, jnp.array([5, 3, 8, 0]))
    config = AugmentConfig(rotation=20.0, brightness=0.3, erasing=0.5, mixup=0.4)
    results, shares = jax.jit(partial(augment_batch, config=config))(keys, images)
    changed = looped(jax.jit(partial(augment_image, config=config)), keys, images)
    shares = np.asarray(shares)[:, None, None, None]
    np.testing.assert_allclose(results, shares * changed + (1 - shares) * partners(changed), rtol=0, atol=0.05)
    assert augment_batch(keys, images, AugmentConfig(vertical_flip=True))[1] is None


def test_example_is_augmented_alike_wherever_it_lies_in_whatever_batch():
    images = jnp.stack([random_image((8, 8, 1), i) for i in range(12)])
    config = AugmentConfig(rotation=20.0, noise=3.0)
    augment = jax.jit(partial(augment_batch, config=config))

    def augmented(examples: list[int], epoch: int = 3, seed: int = 1) -> dict[int, np.ndarray]:
        order = jnp.array(examples)
        return dict(zip(examples, np.asarray(augment(example_keys(seed, epoch, order), images[order])[0]), strict=True))

    alone = augmented(list(range(12)))
    for examples in ([7, 2, 9, 0], [5, 9, 2, 11]):
        for example, result in augmented(examples).items():
            np.testing.assert_allclose(result, alone[example], rtol=0, atol=0.01)
    for other in (augmented([7, 2, 9, 0], epoch=4), augmented([7, 2, 9, 0], seed=2)):
        assert all(np.abs(result - alone[example]).max() > 1 for example, result in other.items())


def test_key_is_a_function_of_seed_epoch_example_and_stream():
    def bits(seed: int, epoch: int, example: int, stream: str = "augment") -> bytes:
        return np.asarray(jax.random.key_data(example_keys(seed, epoch, jnp.array([example]), stream))).tobytes()

    assert bits(1, 2, 3) == bits(1, 2, 3)
    others = {bits(0, 2, 3), bits(1, 0, 3), bits(1, 2, 0), bits(1, 3, 2), bits(2, 1, 3), bits(1, 2, 3, "tta")}
    assert len(others | {bits(1, 2, 3)}) == 7


LOSSES_OF_MIXED: list[tuple[str, float]] = [
    ("softmax_cross_entropy", 0.0),
    ("softmax_cross_entropy", 0.1),
    ("binary_cross_entropy", 0.0),
    ("binary_cross_entropy", 0.2),
]


def blended_loss(outputs: jax.Array, labels: np.ndarray, shares: np.ndarray, loss: str, smoothing: float) -> jax.Array:
    """float[b]: the cross entropy with one target for both, blended before the loss and not after it."""
    others = labels.reshape(-1, 2)[:, ::-1].reshape(-1)
    if loss == "binary_cross_entropy":
        targets = shares * labels + (1 - shares) * others
        return optax.sigmoid_binary_cross_entropy(outputs[:, 0], targets * (1 - smoothing) + smoothing / 2)
    one_hot = np.eye(outputs.shape[-1], dtype=np.float32)
    targets = shares[:, None] * one_hot[labels] + (1 - shares)[:, None] * one_hot[others]
    return optax.softmax_cross_entropy(outputs, optax.smooth_labels(targets, smoothing))


def task_of(loss: str, smoothing: float, num_outputs: int) -> tuple[Objective, Any]:
    network, init = network_of(Sequential((Flatten(), Dense())), (4, 3, 1), num_outputs, "xla")
    optimizer = optax.sgd(0.1)
    scoring = make_scoring(TrainConfig(loss=loss), num_outputs, task="classes")
    objective = Objective(network, scoring, smoothing, optimizer, InputSpec((4, 3, 1)), AugmentConfig(mixup=1.0))
    return objective, jax.jit(lambda seed: init_state(*init(seed), optimizer))(jnp.uint32(0))


@pytest.mark.parametrize(("loss", "smoothing"), LOSSES_OF_MIXED)
@settings(max_examples=choose_examples(4, 10), derandomize=True, deadline=None, database=None)
@given(seed=st.integers(0, 10_000))
def test_loss_of_mixed_examples_is_that_of_blended_targets(loss: str, smoothing: float, seed: int):
    draw, size = np.random.default_rng(seed), 8
    classes = 2 if loss == "binary_cross_entropy" else 5
    outputs = draw.normal(0, 3, (size, 1 if classes == 2 else classes)).astype(np.float32)
    labels, shares = draw.integers(0, classes, size), draw.random(size).astype(np.float32)
    objective, _ = task_of(loss, smoothing, outputs.shape[1])
    batch = Batch(jnp.zeros((size, 4, 3, 1)), jnp.asarray(labels), jnp.ones(size, bool), jnp.asarray(shares))
    expected = blended_loss(outputs, labels, shares, loss, smoothing)
    losses = _losses(objective, jnp.asarray(outputs), with_partners(batch))
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)


def test_loss_of_mixed_regression_targets_is_the_mean_of_both_by_their_shares():
    objective, _ = task_of("mean_squared_error", 0.0, 2)
    outputs, targets = jnp.array([[0.0, 0.0], [1.0, 2.0]]), jnp.array([[2.0, 0.0], [0.0, 4.0]])
    shares = jnp.array([0.25, 1.0])
    batch = Batch(jnp.zeros((2, 4, 3, 1)), targets, jnp.ones(2, bool), shares)
    losses = _losses(objective, outputs, with_partners(batch))
    np.testing.assert_allclose(losses, [0.25 * 2 + 0.75 * 8, 2.5], rtol=1e-6)


@pytest.mark.parametrize(("loss", "smoothing"), LOSSES_OF_MIXED[1::2])
def test_step_on_mixed_examples_is_one_on_blended_targets_and_leaves_out_the_masked(loss: str, smoothing: float):
    draw, size = np.random.default_rng(0), 6
    num_outputs, classes = (1, 2) if loss == "binary_cross_entropy" else (5, 5)
    objective, state = task_of(loss, smoothing, num_outputs)
    images = draw.integers(0, 256, (size, 4, 3, 1)).astype(np.float32)
    labels, shares = draw.integers(0, classes, size), draw.random(size).astype(np.float32)
    mask = np.array([True] * 5 + [False])
    step = jax.jit(lambda state, *batch: train_step(objective, state, Batch(*batch), jax.random.key(0)))
    after, metrics = step(state, images, labels, mask, shares)

    kernel, bias = (
        next(leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim == rank) for rank in (2, 1)
    )  # of the one Dense

    def batch_loss(parts: tuple[jax.Array, jax.Array]) -> jax.Array:
        outputs = (images.reshape(size, -1) / 255) @ parts[0] + parts[1][None]
        return blended_loss(outputs, labels, shares, loss, smoothing)[:5].mean()

    mean, gradients = jax.jit(jax.value_and_grad(batch_loss))((kernel, bias))
    assert float(metrics.sums["loss"]) == pytest.approx(5 * float(mean), rel=1e-4)
    assert int(metrics.count) == 5
    expected = {2: kernel - 0.1 * gradients[0], 1: bias - 0.1 * gradients[1]}
    for leaf in jax.tree.leaves(after.params):
        np.testing.assert_allclose(leaf, expected[leaf.ndim], rtol=1e-4, atol=1e-5)


def test_loss_of_examples_that_are_not_mixed_stays_that_of_their_own_target():
    objective, _ = task_of("softmax_cross_entropy", 0.1, 5)
    outputs, labels = jax.random.normal(jax.random.key(0), (4, 5)), jnp.array([0, 3, 4, 1])
    alone = Batch(jnp.zeros((4, 4, 3, 1)), labels, jnp.ones(4, bool))
    own = LOSSES["softmax_cross_entropy"](outputs, labels, 0.1)
    np.testing.assert_array_equal(_losses(objective, outputs, alone), own)
    mixed_by_nothing = Batch(alone.inputs, labels, alone.mask, jnp.ones(4))
    np.testing.assert_allclose(_losses(objective, outputs, with_partners(mixed_by_nothing)), own, rtol=1e-6)

"""Training with augmentation: what the network is shown, that a run stays one run, and prediction over many draws."""

from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import engine
from engine.augment.apply import augment_batch, augment_image, example_keys
from engine.augment.mixing import partners
from engine.checkpoints.steps import choose_step
from engine.config import DataPlacement, OptimConfig, PlanConfig, RunConfig, TrainConfig
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Splits
from engine.host.clock import Clock
from engine.host.interrupts import Interrupted
from engine.inference.classifier import Classifier
from engine.inference.single import TTA_DRAWS, SingleClassifier
from engine.models import Dense, Dropout, Flatten, Sequential
from engine.runs.session import Session
from engine.training.batches import epoch_order
from tests.conftest import TINY, make_dataset
from tests.runs.test_loop import StopsAt, all_arrays, start, without_seconds
from tests.training.test_program import compilations, leaves, train_epochs  # noqa: F401

LINEAR = Sequential((Flatten(), Dropout(0.2), Dense()))
MIXED = engine.AugmentConfig(horizontal_flip=True, rotation=20.0, brightness=0.2, mixup=0.4)
PLAIN = replace(MIXED, mixup=0.0)
SEED = 3


class Seen(nnx.Variable):
    """The inputs of the last training step."""


class Witness(nnx.Module):
    """A linear model that keeps, as part of its state, what it was last shown in training."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs, batch_size: int):
        size = int(np.prod(input_shape))
        self.dense = nnx.Linear(size, num_outputs, rngs=rngs)
        self.seen = Seen(jnp.zeros((batch_size, *input_shape)))
        self.deterministic = True

    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.deterministic:
            self.seen.set_value(x)
        return self.dense(x.reshape(len(x), -1))  # [b h w c] → [b d]


ODD = Splits(make_dataset(21))


class Run(NamedTuple):
    """A run of two epochs on 21 examples with a witness."""

    first: dict[int, jax.Array]
    """Rank → the one parameter of that rank, before the first step."""
    last: dict[int, jax.Array]
    shown: dict[int, np.ndarray]
    """Step → the levels that the network was shown."""
    loss: float
    """Mean over the examples of both epochs."""


def by_rank(params: Any) -> dict[int, jax.Array]:
    return {leaf.ndim: jnp.array(leaf) for leaf in jax.tree.leaves(params)}


@cache
def witnessed(batch_size: int, augment: engine.AugmentConfig, data: DataPlacement = "resident") -> Run:
    model, plan = engine.custom(Witness, batch_size=batch_size), PlanConfig(chunk_steps=1, placement=data)
    train, optim = TrainConfig(2, batch_size, seed=SEED), OptimConfig("sgd", 0.05)
    config = RunConfig("seen", model, DataConfig(scale=1 / 256), train, optim, plan, augment)  # exact in float32
    session = Session(config, ODD, Clock(), Path("unused"))
    first, shown = by_rank(session.state.params), {}
    while session.epoch < 2:
        step = session.step
        session.train_chunk()
        (seen,) = (leaf for leaf in jax.tree.leaves(session.state.model_state) if leaf.ndim == 4)
        shown[step] = 256 * np.asarray(seen)
    session.close()
    return Run(first, by_rank(session.state.params), shown, session.training_metrics()["loss"])


def shown_examples(batch_size: int, augment: engine.AugmentConfig) -> dict[tuple[int, int], np.ndarray]:
    """(epoch, example) → what the network was shown of it; the last batch's padding left out."""
    found, steps = {}, witnessed(batch_size, augment).shown
    for epoch, of_epoch in enumerate(np.array_split(sorted(steps), 2)):
        images = np.concatenate([steps[step] for step in of_epoch])
        order = np.asarray(epoch_order(SEED, epoch, 21, batch_size))
        found.update({(epoch, int(order[place])): images[place] for place in range(21)})
    return found


@jax.jit
def mean_and_gradients(
    parts: dict[int, jax.Array], images: jax.Array, targets: jax.Array, is_counted: jax.Array
) -> tuple[jax.Array, dict[int, jax.Array]]:
    """Of the cross entropy of a linear model on levels [b h w c] with soft targets [b k]."""

    def objective(parts: dict[int, jax.Array]) -> jax.Array:
        outputs = images.reshape(len(images), -1) / 256 @ parts[2] + parts[1][None]  # [b h w c] → [b k]
        losses = -jnp.sum(targets * jax.nn.log_softmax(outputs), -1)
        return jnp.sum(losses * is_counted) / jnp.sum(is_counted)

    return jax.value_and_grad(objective)(parts)


def test_training_is_a_plain_loop_on_the_augmented_images_of_seed_epoch_and_example_and_blended_targets():
    run, labels = witnessed(8, MIXED), jax.nn.one_hot(ODD.train.labels, 3)
    parts, loss_sum, augment = run.first, 0.0, jax.jit(partial(augment_batch, config=MIXED))
    for epoch, batch in product(range(2), range(3)):
        examples, count = epoch_order(SEED, epoch, 21, 8)[8 * batch : 8 * batch + 8], min(8, 21 - 8 * batch)
        stored = jnp.asarray(ODD.train.images)[examples]
        images, shares = augment(example_keys(SEED, epoch, examples), stored)
        np.testing.assert_allclose(run.shown[3 * epoch + batch], images, rtol=0, atol=0.05)
        assert np.abs(images - stored).mean() > 5

        targets = shares[:, None] * labels[examples] + (1 - shares)[:, None] * partners(labels[examples])
        mean, gradients = mean_and_gradients(parts, images, targets, np.arange(8) < count)
        parts = jax.tree.map(lambda part, gradient: part - 0.05 * gradient, parts, gradients)
        loss_sum += count * float(mean)
    for rank, part in run.last.items():
        np.testing.assert_allclose(part, parts[rank], rtol=1e-3, atol=1e-5)
    assert run.loss == pytest.approx(loss_sum / 42, rel=1e-4)


def test_network_is_shown_the_stored_images_without_augmentation():
    for step, shown in witnessed(8, engine.AugmentConfig()).shown.items():
        epoch, batch = divmod(step, 3)
        examples = np.asarray(epoch_order(SEED, epoch, 21, 8)[8 * batch : 8 * batch + 8])
        np.testing.assert_array_equal(shown, ODD.train.images[examples])


def test_what_is_shown_of_an_example_does_not_depend_on_the_batch_size():
    small, large = shown_examples(8, MIXED), shown_examples(14, MIXED)  # the last example's partner is padding
    assert small.keys() == large.keys()
    for place, shown in small.items():
        np.testing.assert_allclose(shown, large[place], rtol=0, atol=0.05)
    assert all(np.abs(small[0, example] - small[1, example]).max() > 1 for example in range(21)), "epochs look alike"


def test_streamed_images_are_augmented_to_the_same_bits_as_resident_ones():
    resident, streamed = witnessed(8, PLAIN), witnessed(8, PLAIN, "streamed")
    for step, shown in resident.shown.items():
        np.testing.assert_array_equal(shown, streamed.shown[step])
    assert resident.loss == streamed.loss


def test_cutting_an_augmented_epoch_otherwise_gives_the_same_bits_and_compiles_nothing(
    splits,
    compilations,  # noqa: F811
):
    config = RunConfig("cut", LINEAR, train=TrainConfig(2, 64), plan=PlanConfig(chunk_steps=4), augment=MIXED)
    whole = train_epochs(config, splits, 2)
    cut = train_epochs(replace(config, plan=PlanConfig(chunk_steps=3)), splits, 1)  # 3 + 1 of 4
    assert compilations, "the listener hears nothing"
    compilations.clear()
    cut.pacer.next_steps = cut.pacer.chunk_steps = 1
    while cut.epoch < 2:
        cut.train_chunk()
    cut.finish_epoch()
    assert compilations == []
    for a, b in zip(leaves(whole), leaves(cut), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(whole.history, cut.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_resumed_augmented_run_is_bit_identical_to_one_that_was_not_stopped(splits, tmp_path):
    config = RunConfig("cut", LINEAR, train=TrainConfig(2, 64), plan=PlanConfig(chunk_steps=1), augment=PLAIN)
    whole = start(config, splits, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(config, splits, tmp_path / "cut", StopsAt(6))  # in the second epoch
    assert choose_step(tmp_path / "cut", "last") == 6
    resumed = start(config, splits, tmp_path / "cut")
    for a, b in zip(all_arrays(tmp_path / "whole", 8), all_arrays(tmp_path / "cut", 8), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert resumed.metrics == whole.metrics

    restored, images = engine.restore(tmp_path / "cut"), splits.test.images[:3]
    assert restored.record.config.augment == PLAIN
    expected = whole.classifier.predict_proba(images, tta=3)
    np.testing.assert_array_equal(restored.predict_proba(images, tta=3), expected)


def without_augmentation(classifier: Classifier) -> Classifier:
    """The same weights under a config that asks for none."""
    config = replace(classifier.record.config, augment=engine.AugmentConfig())
    record = replace(classifier.record, config=config)
    return SingleClassifier(record, classifier.network, classifier.params, classifier.model_state)


@pytest.fixture(scope="module")
def session() -> Session:
    """A run before its first step, with augmentation, on pictures of three colours."""
    train, held_out = (three_colours(num, seed) for num, seed in ((64, 0), (40, 1)))
    config = RunConfig("tta", LINEAR, train=TrainConfig(1, 32, seed=SEED), augment=replace(MIXED, erasing=0.9))
    return Session(config, Splits(train, held_out), Clock(), Path("unused"))


@pytest.fixture(scope="module")
def classifier(session) -> Classifier:
    """Its model."""
    return session.classifier()


@pytest.fixture
def images(session) -> np.ndarray:
    """Pictures it was not trained on."""
    return session.splits.validation.images


def three_colours(num: int, seed: int) -> engine.Dataset:
    plain = make_dataset(num, seed)
    return replace(plain, images=np.random.default_rng(seed).integers(0, 256, (num, 8, 8, 3), dtype=np.uint8))


def test_evaluation_never_sees_augmentation(session, classifier):
    data = session.splits.validation
    plain = without_augmentation(classifier)
    assert classifier.evaluate(data) == plain.evaluate(data) == session.validate()
    outputs = classifier.outputs(data.images)
    np.testing.assert_array_equal(outputs, plain.outputs(data.images))
    parts = {leaf.ndim: np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(classifier.params)}
    by_hand = data.images.reshape(40, -1) / 255 @ parts[2] + parts[1]
    np.testing.assert_allclose(outputs, jax.nn.softmax(by_hand), rtol=1e-4, atol=1e-5)
    assert classifier.evaluate(data)["loss"] == pytest.approx(
        -np.log(outputs[np.arange(40), data.labels]).mean(), rel=1e-4
    )


def drawn_by_hand(classifier: Classifier, images: np.ndarray, augment: engine.AugmentConfig, draws: int) -> np.ndarray:
    """The mean of the plain probabilities and those of `draws` augmented images, one example after the other."""
    augment_one = jax.jit(lambda key, image: augment_image(key, image, augment))
    parts = {leaf.ndim: np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(classifier.params)}

    def probabilities(levels: np.ndarray) -> np.ndarray:
        return np.asarray(jax.nn.softmax(np.asarray(levels).reshape(len(levels), -1) / 255 @ parts[2] + parts[1]))

    total = probabilities(images)
    for draw in range(draws):
        keys = example_keys(SEED, draw, jnp.arange(len(images)), "tta")
        total = total + probabilities(np.stack([augment_one(k, i) for k, i in zip(keys, images, strict=True)]))
    return total / (draws + 1)


def test_tta_is_the_mean_over_the_plain_picture_and_its_draws(session, classifier, images):
    images = images[:7]
    trained_with = replace(session.config.augment, mixup=0.0, erasing=0.0)  # which would hide what is asked about
    found = classifier.predict_proba(images, tta=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, drawn_by_hand(classifier, images, trained_with, 4), rtol=1e-3, atol=1e-4)
    assert np.abs(found - classifier.predict_proba(images)).max() > 0.01
    np.testing.assert_array_equal(classifier.predict_proba(images, tta=0), classifier.predict_proba(images))


def test_tta_with_a_config_draws_from_that_one(classifier, images):
    classifier, images = without_augmentation(classifier), images[:7]
    augment = engine.AugmentConfig(vertical_flip=True, brightness=0.4)
    expected = drawn_by_hand(classifier, images, augment, TTA_DRAWS)
    np.testing.assert_allclose(classifier.predict_proba(images, tta=augment), expected, rtol=1e-3, atol=1e-4)


def test_tta_is_the_same_every_time_and_for_a_picture_in_its_place_among_others(session, classifier, images):
    found = classifier.predict_proba(images, tta=2)
    np.testing.assert_array_equal(session.classifier().predict_proba(images, tta=2), found)
    for count in (1, 3, 8):  # other sizes of the padded batch
        part = classifier.predict_proba(images[:count], tta=2)
        np.testing.assert_allclose(part, found[:count], rtol=1e-4, atol=1e-5)


def test_tta_draws_go_on_from_one_batch_to_the_next(classifier, images, monkeypatch):
    whole = classifier.predict_proba(images, tta=2)
    monkeypatch.setattr("engine.inference.forward.eval_batch_size", lambda shape, most: 8)
    np.testing.assert_allclose(classifier.predict_proba(images, tta=2), whole, rtol=1e-4, atol=1e-5)


def test_tta_names_the_likeliest_class_of_the_mean(classifier, images):
    images = images[:7]
    for row, prediction in zip(classifier.predict_proba(images, tta=4), classifier.predict(images, tta=4), strict=True):
        assert prediction.label == f"band {row.argmax()}"
        assert prediction.probability == row.max()


def test_tta_without_anything_to_draw_is_refused(classifier, images):
    plain = without_augmentation(classifier)
    rule = "expected a model that was trained with augmentation, or an AugmentConfig"
    for tta, got in ((4, "4"), (engine.AugmentConfig(), r"AugmentConfig\("), (engine.AugmentConfig(mixup=0.2), "Aug")):
        with pytest.raises(engine.InputError, match=rf"tta: got {got}.*; {rule}"):
            plain.predict_proba(images, tta=tta)


@pytest.mark.parametrize("tta", [-1, 2.5, True, "many"])
def test_tta_of_no_number_is_refused(classifier, images, tta):
    with pytest.raises(engine.InputError, match=rf"tta: got {tta!r}; expected a number of draws or an AugmentConfig"):
        classifier.predict_proba(images, tta=tta)


@pytest.mark.parametrize("field", ["mixup", "cutmix"])
def test_odd_batch_size_is_refused_where_pairs_are_mixed(field: str):
    augment = engine.AugmentConfig(**{field: 0.2})
    with pytest.raises(
        engine.InputError, match=r"train\.batch_size: got 63; expected an even number with mixup or cut"
    ):
        RunConfig("odd", TINY, train=TrainConfig(1, 63), augment=augment)
    assert RunConfig("odd", TINY, train=TrainConfig(1, 63), augment=PLAIN).augment == PLAIN


def test_inputs_that_are_no_pictures_are_refused():
    labels = np.array([0, 1, 0, 1])
    config = RunConfig("floats", LINEAR, train=TrainConfig(1, 2), augment=PLAIN)
    for images, got in (
        (np.zeros((4, 8, 8, 1), np.float32), r"float32 inputs \(8, 8, 1\)"),
        (np.zeros((4, 12), np.float32), r"float32 inputs \(12,\)"),
        (np.zeros((4, 8, 8, 2), np.uint8), r"uint8 inputs \(8, 8, 2\)"),
    ):
        splits = Splits(engine.dataset(images, labels))
        with pytest.raises(
            engine.InputError, match=rf"augment: got {got}; expected uint8 images \[h w 1\] or \[h w 3\]"
        ):
            Session(config, splits, Clock(), Path("unused"))

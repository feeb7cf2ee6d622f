"""Training with augmentation: what the network is shown, that a run stays one run, and prediction over many draws."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import engine
from engine.augment.apply import augment_batch, augment_image, example_keys
from engine.augment.mixing import partners
from engine.batches import epoch_order
from engine.checkpoint import choose_step
from engine.clock import Clock
from engine.config import DataConfig, OptimConfig, PlanConfig, RunConfig, TrainConfig
from engine.data.dataset import Splits
from engine.interrupts import Interrupted
from engine.models import Dense, Flatten, Sequential
from engine.predict import TTA_DRAWS, Classifier
from engine.session import Session
from tests.conftest import TINY, make_dataset
from tests.test_loop import StopsAt, all_arrays, start, without_seconds
from tests.test_program import compilations, leaves, train_epochs  # noqa: F401

LINEAR = Sequential((Flatten(), Dense()))
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


def witness_config(batch_size: int, augment: engine.AugmentConfig) -> RunConfig:
    """A run whose network keeps the images it is shown, in levels."""
    return RunConfig(
        "seen",
        engine.custom(Witness, batch_size=batch_size),
        data=DataConfig(scale=1.0),
        train=TrainConfig(epochs=2, batch_size=batch_size, seed=SEED),
        plan=PlanConfig(chunk_steps=1),
        augment=augment,
    )


ODD = Splits(make_dataset(21))


@cache
def seen_inputs(batch_size: int, augment: engine.AugmentConfig, data: str = "resident") -> dict[int, np.ndarray]:
    """What the network was shown in each of the steps of two epochs of 21 examples."""
    config = witness_config(batch_size, augment)
    config = replace(config, plan=PlanConfig(chunk_steps=1, data=data))  # type: ignore[arg-type]
    session, seen = Session(config, ODD, Clock(), Path("unused")), {}
    while session.epoch != 2:
        step = session.step
        session.train_chunk()
        (shown,) = (leaf for leaf in jax.tree.leaves(session.state.model_state) if leaf.ndim == 4)
        seen[step] = np.asarray(shown)
    session.close()
    return seen


def seen_examples(batch_size: int, augment: engine.AugmentConfig) -> dict[tuple[int, int], np.ndarray]:
    """(epoch, example) → what the network was shown of it; the last batch's padding left out."""
    found, seen = {}, seen_inputs(batch_size, augment)
    for epoch in range(2):
        images = np.concatenate(
            [seen[step] for step in sorted(seen)][epoch * len(seen) // 2 : (epoch + 1) * len(seen) // 2]
        )
        order = np.asarray(epoch_order(SEED, epoch, 21, batch_size))
        found.update({(epoch, int(order[place])): images[place] for place in range(21)})
    return found


def test_network_is_shown_the_augmented_images_of_seed_epoch_and_example():
    seen = seen_inputs(8, MIXED)
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    for step, shown in seen.items():
        epoch, batch = divmod(step, 3)
        examples = epoch_order(SEED, epoch, 21, 8)[8 * batch : 8 * batch + 8]
        images = jnp.asarray(ODD.train.images)[examples]
        expected, _ = augment_batch(example_keys(SEED, epoch, examples), images, MIXED)
        np.testing.assert_allclose(shown, expected, rtol=0, atol=0.05)
        assert np.abs(shown - images).mean() > 5


def test_network_is_shown_the_stored_images_without_augmentation():
    for step, shown in seen_inputs(8, engine.AugmentConfig()).items():
        epoch, batch = divmod(step, 3)
        examples = np.asarray(epoch_order(SEED, epoch, 21, 8)[8 * batch : 8 * batch + 8])
        np.testing.assert_array_equal(shown, ODD.train.images[examples])


@pytest.mark.parametrize("augment", [PLAIN, MIXED], ids=["alone", "mixed"])
def test_what_is_shown_of_an_example_does_not_depend_on_the_batch_size(augment: engine.AugmentConfig):
    small, large = seen_examples(8, augment), seen_examples(14, augment)  # the last examples have a padded partner
    assert small.keys() == large.keys()
    for place, shown in small.items():
        np.testing.assert_allclose(shown, large[place], rtol=0, atol=0.05)
    assert all(np.abs(small[0, example] - small[1, example]).max() > 1 for example in range(21)), "epochs look alike"


def test_streamed_images_are_augmented_to_the_same_bits_as_resident_ones():
    streamed = seen_inputs(8, MIXED, "streamed")
    for step, shown in seen_inputs(8, MIXED).items():
        np.testing.assert_array_equal(shown, streamed[step])


def test_training_on_mixed_images_is_a_plain_loop_on_blended_targets():
    config = RunConfig(
        "mixed", LINEAR, DataConfig(), TrainConfig(1, 8, seed=SEED), OptimConfig("sgd", 0.05), augment=MIXED
    )
    session = Session(config, ODD, Clock(), Path("unused"))
    parts = {leaf.ndim: jnp.array(leaf) for leaf in jax.tree.leaves(session.state.params)}
    while session.step < session.steps_per_epoch:
        session.train_chunk()

    labels, loss_sum = jax.nn.one_hot(jnp.asarray(ODD.train.labels), 3), 0.0
    order = epoch_order(SEED, 0, 21, 8)
    for batch in range(3):
        examples, count = order[8 * batch : 8 * batch + 8], min(8, 21 - 8 * batch)
        keys, images = example_keys(SEED, 0, examples), jnp.asarray(ODD.train.images)[examples]
        images, shares = augment_batch(keys, images, MIXED)
        targets = shares[:, None] * labels[examples] + (1 - shares)[:, None] * partners(labels[examples])

        def objective(parts, images=images, targets=targets, count=count):
            outputs = images.reshape(8, -1) / 255 @ parts[2] + parts[1][None]
            return -jnp.sum(targets * jax.nn.log_softmax(outputs), -1)[:count].mean()

        mean, gradients = jax.value_and_grad(objective)(parts)
        loss_sum += count * float(mean)
        parts = jax.tree.map(lambda part, gradient: part - 0.05 * gradient, parts, gradients)
    for leaf in jax.tree.leaves(session.state.params):
        np.testing.assert_allclose(leaf, parts[leaf.ndim], rtol=1e-3, atol=1e-5)
    assert session.training_metrics()["loss"] == pytest.approx(loss_sum / 21, rel=1e-4)


@pytest.fixture
def mixed_config(tiny_config) -> RunConfig:
    """The tiny run with augmentation and mixup, with dropout."""
    return replace(tiny_config, augment=MIXED, plan=PlanConfig(chunk_steps=4))


def test_results_are_bit_identical_however_an_augmented_epoch_is_cut(mixed_config, splits):
    whole = train_epochs(mixed_config, splits, 2)
    cut = train_epochs(replace(mixed_config, plan=PlanConfig(chunk_steps=3)), splits, 2)  # 3 + 1 of 4
    for a, b in zip(leaves(whole), leaves(cut), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(whole.history, cut.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_nothing_recompiles_after_the_first_augmented_epoch(mixed_config, splits, compilations):  # noqa: F811
    session = train_epochs(mixed_config, splits, 1)
    assert compilations, "the listener hears nothing"
    compilations.clear()
    for chunk_steps in (3, 1):
        session.pacer.next_steps = session.pacer.chunk_steps = chunk_steps
        end = session.step + session.steps_per_epoch
        while session.step < end:
            session.train_chunk()
        session.finish_epoch()
    assert compilations == []


def test_resumed_augmented_run_is_bit_identical_to_one_that_was_not_stopped(mixed_config, splits, tmp_path):
    config = replace(mixed_config, plan=PlanConfig(chunk_steps=1))
    whole = start(config, splits, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(config, splits, tmp_path / "cut", StopsAt(6))  # in the second epoch
    assert choose_step(tmp_path / "cut", "last") == 6
    resumed = start(config, splits, tmp_path / "cut")
    for a, b in zip(all_arrays(tmp_path / "whole", 8), all_arrays(tmp_path / "cut", 8), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert resumed.metrics == whole.metrics


def without_augmentation(classifier: Classifier) -> Classifier:
    """The same weights under a config that asks for none."""
    config = replace(classifier.record.config, augment=engine.AugmentConfig())
    record = replace(classifier.record, config=config)
    return Classifier(record, classifier._network, classifier._params, classifier._model_state)


@pytest.fixture(scope="module")
def session() -> Session:
    """A run of one epoch with augmentation, on pictures of three colours."""
    train, held_out = (three_colours(num, seed) for num, seed in ((64, 0), (40, 1)))
    config = RunConfig("tta", LINEAR, train=TrainConfig(1, 32, seed=SEED), augment=replace(MIXED, erasing=0.9, hue=0.3))
    return train_epochs(config, Splits(train, held_out), 1)


def three_colours(num: int, seed: int) -> engine.Dataset:
    plain = make_dataset(num, seed)
    return replace(plain, images=np.random.default_rng(seed).integers(0, 256, (num, 8, 8, 3), dtype=np.uint8))


def test_evaluation_never_sees_augmentation(session):
    data, classifier = session.splits.validation, session.classifier()
    plain = without_augmentation(classifier)
    assert classifier.evaluate(data) == plain.evaluate(data) == session.validate()
    outputs = classifier.outputs(data.images)
    np.testing.assert_array_equal(outputs, plain.outputs(data.images))
    parts = {leaf.ndim: np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(classifier._params)}
    by_hand = data.images.reshape(40, -1) / 255 @ parts[2] + parts[1]
    np.testing.assert_allclose(outputs, jax.nn.softmax(by_hand), rtol=1e-4, atol=1e-5)
    assert classifier.evaluate(data)["loss"] == pytest.approx(
        -np.log(outputs[np.arange(40), data.labels]).mean(), rel=1e-4
    )


def drawn_by_hand(classifier: Classifier, images: np.ndarray, augment: engine.AugmentConfig, draws: int) -> np.ndarray:
    """The mean of the plain probabilities and those of `draws` augmented images, one example after the other."""
    augment_one = jax.jit(lambda key, image: augment_image(key, image, augment))
    parts = {leaf.ndim: np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(classifier._params)}

    def probabilities(levels: np.ndarray) -> np.ndarray:
        return np.asarray(jax.nn.softmax(np.asarray(levels).reshape(len(levels), -1) / 255 @ parts[2] + parts[1]))

    total = probabilities(images)
    for draw in range(draws):
        keys = example_keys(SEED, draw, jnp.arange(len(images)), "tta")
        total = total + probabilities(np.stack([augment_one(k, i) for k, i in zip(keys, images, strict=True)]))
    return total / (draws + 1)


def test_tta_is_the_mean_over_the_plain_picture_and_its_draws(session):
    classifier, images = session.classifier(), session.splits.validation.images[:7]
    trained_with = replace(session.config.augment, mixup=0.0, erasing=0.0)  # which would hide what is asked about
    found = classifier.predict_proba(images, tta=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, drawn_by_hand(classifier, images, trained_with, 4), rtol=1e-3, atol=1e-4)
    assert np.abs(found - classifier.predict_proba(images)).max() > 0.01
    np.testing.assert_array_equal(classifier.predict_proba(images, tta=0), classifier.predict_proba(images))


def test_tta_with_a_config_draws_from_that_one(session):
    classifier, images = without_augmentation(session.classifier()), session.splits.validation.images[:7]
    augment = engine.AugmentConfig(vertical_flip=True, brightness=0.4)
    expected = drawn_by_hand(classifier, images, augment, TTA_DRAWS)
    np.testing.assert_allclose(classifier.predict_proba(images, tta=augment), expected, rtol=1e-3, atol=1e-4)


def test_tta_is_the_same_every_time_and_for_a_picture_in_its_place_among_others(session):
    images = session.splits.validation.images
    found = session.classifier().predict_proba(images, tta=2)
    np.testing.assert_array_equal(session.classifier().predict_proba(images, tta=2), found)
    for count in (1, 3, 8):  # other sizes of the padded batch
        part = session.classifier().predict_proba(images[:count], tta=2)
        np.testing.assert_allclose(part, found[:count], rtol=1e-4, atol=1e-5)


def test_tta_draws_go_on_from_one_batch_to_the_next(session, monkeypatch):
    images = session.splits.validation.images
    whole = session.classifier().predict_proba(images, tta=2)
    monkeypatch.setattr("engine.predict.eval_batch_size", lambda shape: 16)
    np.testing.assert_allclose(session.classifier().predict_proba(images, tta=2), whole, rtol=1e-4, atol=1e-5)


def test_tta_names_the_likeliest_class_of_the_mean(session):
    classifier, images = session.classifier(), session.splits.validation.images[:7]
    for row, prediction in zip(classifier.predict_proba(images, tta=4), classifier.predict(images, tta=4), strict=True):
        assert prediction.label == f"band {row.argmax()}"
        assert prediction.probability == row.max()


def test_tta_without_anything_to_draw_is_refused(session):
    plain, images = without_augmentation(session.classifier()), session.splits.validation.images[:1]
    rule = "expected a model that was trained with augmentation, or an AugmentConfig"
    for tta, got in ((4, "4"), (engine.AugmentConfig(), r"AugmentConfig\("), (engine.AugmentConfig(mixup=0.2), "Aug")):
        with pytest.raises(engine.InputError, match=rf"tta: got {got}.*; {rule}"):
            plain.predict_proba(images, tta=tta)


@pytest.mark.parametrize("tta", [-1, 2.5, True, "many"])
def test_tta_of_no_number_is_refused(session, tta):
    with pytest.raises(engine.InputError, match=rf"tta: got {tta!r}; expected a number of draws or an AugmentConfig"):
        session.classifier().predict_proba(session.splits.validation.images[:1], tta=tta)


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


def test_saved_model_keeps_its_augmentation_for_tta(mixed_config, splits, tmp_path):
    result = start(replace(mixed_config, train=TrainConfig(1, 64)), splits, tmp_path)
    restored, images = engine.restore(tmp_path), splits.test.images[:3]
    assert restored.record.config.augment == MIXED
    expected = result.classifier.predict_proba(images, tta=3)
    np.testing.assert_array_equal(restored.predict_proba(images, tta=3), expected)

"""Standardisation: fitted on the training split, exact, stored with the model, applied to whatever it is shown."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine import DataConfig, InputError, PlanConfig, RunConfig, Splits, TrainConfig
from engine.config.contract import InputSpec
from engine.data.contract import input_spec
from engine.data.decoded.dataset import Dataset
from engine.data.fitting import channel_statistics, whitening
from engine.host.clock import Clock
from engine.models import Conv, Dense, Flatten, Sequential
from engine.networks.network import normalize
from engine.report.progress import Silent
from engine.runs import loop
from tests.conftest import make_dataset

LINEAR = Sequential((Flatten(), Dense()))


def whiten(epsilon: float) -> DataConfig:
    return DataConfig(standardize="whiten", whiten_epsilon=epsilon)


def pictures(num: int, shape: tuple[int, ...], seed: int = 0) -> Dataset:
    """Noise with neighbouring pixels alike, so that there is something to whiten."""
    draw = np.random.default_rng(seed)
    noise = draw.normal(size=(num, *shape)) + 2 * draw.normal(size=(num, 1, 1, shape[-1]))
    images = np.clip(noise * 20 + 120, 0, 255).astype(np.uint8)
    return Dataset(images, draw.integers(0, 2, num).astype(np.int32), ("a", "b"), "pictures", "pictures")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 9))
def test_channel_statistics_are_those_of_numpy(num: int, height: int, width: int, channels: int, seed: int):
    data = pictures(num, (height, width, channels), seed)
    mean, std = channel_statistics(data)
    np.testing.assert_allclose(mean, data.images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, data.images.std((0, 1, 2)), rtol=1e-9, atol=1e-9)


def test_channel_statistics_do_not_depend_on_the_order_of_examples():
    data = pictures(3000, (4, 4, 3))
    shuffled = data.take(np.random.default_rng(1).permutation(3000), "shuffled")
    for ours, theirs in zip(channel_statistics(data), channel_statistics(shuffled), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(5, 4, 1), (4, 4, 3)])
def test_whitened_images_have_the_identity_as_covariance(shape: tuple[int, ...]):
    data, size = pictures(3000, shape), int(np.prod(shape))
    mean, matrix = whitening(data, whiten(1e-9))
    white = (data.images.reshape(-1, size) / 255 - mean) @ matrix
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(size), atol=5e-3)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-3)  # ZCA, the one that stays closest to the image


def test_whitening_is_that_of_keras_where_epsilon_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    legacy = pytest.importorskip("keras.src.legacy.preprocessing.image", reason="needs Keras")
    data = pictures(2000, (4, 5, 1))
    images = data.images.astype(np.float32) / 255
    images -= images.mean(0)  # Keras subtracts the mean of each channel, we that of each pixel
    generator = legacy.ImageDataGenerator(featurewise_center=True, zca_whitening=True, zca_epsilon=1e-9)
    generator.fit(images)
    _, matrix = whitening(data, whiten(1e-12))
    np.testing.assert_allclose(matrix, np.asarray(generator.zca_whitening_matrix), rtol=2e-2, atol=2e-2 * matrix.max())


@pytest.mark.parametrize(
    ("num", "shape", "epsilon"), [(400, (4, 5, 3), 1e-6), (400, (5, 4, 1), 3.0), (40, (4, 5, 3), 1.0)]
)
def test_zca_is_that_of_keras_with_its_mean_of_each_channel_and_its_epsilon(num: int, shape: Any, epsilon: float):
    legacy = pytest.importorskip("keras.src.legacy.preprocessing.image", reason="needs Keras")
    data = pictures(num, shape)
    images = data.images.astype(np.float64)
    generator = legacy.ImageDataGenerator(
        featurewise_center=True, zca_whitening=True, zca_epsilon=epsilon, rescale=1 / 255, dtype="float64"
    )
    generator.fit(images)
    expected = np.stack([generator.standardize(image.copy()) for image in images])
    mean, matrix = whitening(data, DataConfig(standardize="zca", zca_epsilon=epsilon))
    shown = (images.reshape(num, -1) / 255 - mean) @ matrix
    np.testing.assert_allclose(shown.reshape(images.shape), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_centering_takes_the_mean_of_the_training_split_or_of_the_image_alone():
    data = pictures(50, (4, 5, 3))
    shown = normalize(data.images, input_spec(DataConfig(standardize="dataset_center"), data))
    np.testing.assert_allclose(np.mean(shown, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(shown), np.std(data.images / 255 - data.images.mean((0, 1, 2)) / 255), rtol=1e-5)
    shown = normalize(data.images, input_spec(DataConfig(standardize="example_center"), data))
    means = data.images.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(shown, (data.images - means) / 255, atol=1e-6)


def test_epsilon_holds_back_directions_that_hardly_vary():
    images = np.repeat(np.random.default_rng(0).integers(0, 256, (500, 4, 1, 1), dtype=np.uint8), 4, 2)  # rank 4 of 16
    data = Dataset(images, np.zeros(500, np.int32), ("a",), "stripes", "stripes")
    _, matrix = whitening(data, whiten(0.01))
    assert np.linalg.norm(matrix, 2) == pytest.approx(10, rel=1e-3)  # 1 / sqrt(0.01) where nothing varies


def test_images_too_large_to_whiten_are_refused():
    data = pictures(2, (64, 65, 1))
    with pytest.raises(InputError, match=r"data.standardize: got whiten with images of 64×65×1, 4,160 .*at most 4,096"):
        whitening(data, whiten(0.01))


def test_statistics_become_the_input_contract():
    data = pictures(200, (6, 6, 3))
    spec = input_spec(DataConfig(standardize="dataset"), data)
    shown = np.asarray(normalize(data.images, spec))
    np.testing.assert_allclose(shown.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(shown.std((0, 1, 2)), 1, atol=1e-5)


def test_channel_that_never_changes_is_not_divided_by_zero():
    images = np.full((10, 4, 4, 1), 7, np.uint8)
    data = Dataset(images, np.zeros(10, np.int32), ("a",), "flat", "flat")
    assert np.isfinite(normalize(images, input_spec(DataConfig(standardize="dataset"), data))).all()
    assert np.isfinite(normalize(images, input_spec(DataConfig(standardize="example"), data))).all()


def test_each_example_is_standardized_as_by_keras():
    images = pictures(5, (6, 7, 3)).images
    shown = np.asarray(normalize(images, InputSpec((6, 7, 3), per_example=True)))
    scaled = images.astype(np.float32) / 255
    mean, std = scaled.mean((1, 2, 3), keepdims=True), scaled.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(shown, (scaled - mean) / (std + 1e-6), atol=1e-4)


def test_fitting_is_refused_where_it_means_nothing():
    floats = Dataset(np.zeros((4, 3), np.float32), np.zeros(4, np.int32), ("a",), "floats", "floats")
    for kind in ("dataset", "whiten"):
        with pytest.raises(InputError, match=rf"data.standardize: got {kind} of float inputs; expected uint8 images"):
            input_spec(DataConfig(standardize=kind), floats)
        with pytest.raises(InputError, match=r"data.standardize: got .*expected no mean and std of your own"):
            DataConfig(standardize=kind, mean=(0.5,))


@pytest.mark.parametrize("kind", ["dataset", "example", "whiten"])
def test_model_restores_with_its_standardization_and_resumes_with_the_same_bits(kind: str, tmp_path):
    train, held_out = make_dataset(200), make_dataset(50, 1)
    model = Sequential((Conv(4, 3, activation="relu"), Flatten(), Dense()))
    data = DataConfig(standardize=kind)
    config = RunConfig("s", model, data, TrainConfig(2, 64, seed=1), plan=PlanConfig(chunk_steps=2))
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = loop.train(config, Splits(train, held_out), tmp_path / "whole", Clock(), Silent())
    classifier = engine.restore(tmp_path / "whole", step="last")
    images = np.asarray(held_out.images)
    np.testing.assert_array_equal(
        classifier.predict_proba(images), engine.restore(tmp_path / "whole", "last").outputs(images)
    )
    assert classifier.evaluate(held_out)["loss"] == pytest.approx(whole.history[-1]["validation_loss"], rel=1e-5)

    one = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1))
    loop.train(one, Splits(train, held_out), tmp_path / "cut", Clock(), Silent())
    record = engine.checkpoints.steps.read_record(
        tmp_path / "cut", engine.checkpoints.steps.choose_step(tmp_path / "cut", "last")
    )
    loop.train(config, Splits(train, held_out), tmp_path / "cut", Clock(), Silent(), record)
    resumed = engine.restore(tmp_path / "cut", "last")
    np.testing.assert_array_equal(resumed.outputs(images), classifier.outputs(images))


def test_whitened_model_computes_what_numpy_does(tmp_path):
    train = make_dataset(300)
    config = RunConfig("w", LINEAR, DataConfig(standardize="whiten", validation_fraction=0.0), TrainConfig(1, 50))
    (tmp_path / "run").mkdir()
    result = loop.train(config, Splits(train), tmp_path / "run", Clock(), Silent())
    mean, matrix = whitening(train, whiten(0.01))
    images = np.asarray(train.images[:7])
    dense = result.classifier.params["layers"]
    (kernel, bias) = (np.asarray(value) for value in _kernel_and_bias(dense))
    logits = ((images.reshape(7, -1) / 255 - mean) @ matrix) @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(result.classifier.outputs(images), expected, atol=2e-5)


def _kernel_and_bias(tree) -> tuple:
    import jax

    leaves = jax.tree.leaves(tree)
    return next(leaf for leaf in leaves if leaf.ndim == 2), next(leaf for leaf in leaves if leaf.ndim == 1)

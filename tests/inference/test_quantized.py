"""`engine.quantize`: the same predictions in int8, and what is refused."""

import jax
import numpy as np
import pytest
from flax import nnx

import engine
from engine.inference.classifier import Classifier
from engine.inference.quantized import QuantizedClassifier
from engine.kernels import quantized
from engine.models import Conv, Dense, Flatten, MaxPool, Sequential
from tests.conftest import make_dataset

NET = Sequential((Conv(8, 3, activation="relu"), MaxPool(2), Flatten(), Dense(8, activation="relu"), Dense()))


class Own(nnx.Module):
    def __init__(self, input_shape, num_outputs, rngs):
        self.dense = nnx.Linear(input_shape[0] * input_shape[1], num_outputs, rngs=rngs)

    def __call__(self, x):
        return self.dense(x.reshape(x.shape[0], -1))


def fit(model, **settings) -> Classifier:
    return engine.fit(model, make_dataset(192), epochs=2, validation=0, verbose=False, **settings).classifier


@pytest.fixture(scope="module")
def ensemble() -> Classifier:
    return fit(NET, members=2, augment=engine.AugmentConfig(horizontal_flip=True))


@pytest.fixture(scope="module")
def pair(ensemble) -> tuple[Classifier, QuantizedClassifier]:
    """A classifier and the same in int8."""
    made = engine.quantize(ensemble.members[0], make_dataset(32, 1).images)
    assert isinstance(made, QuantizedClassifier)
    return ensemble.members[0], made


def test_layers_and_pictures_are_reported_with_their_number(pair, capsys):
    made = engine.quantize(pair[0], make_dataset(32, 1).images)
    assert (made.int8_layers, made.float32_layers) == (("conv_1", "dense_1"), ("dense_2",))
    said = capsys.readouterr().err
    assert "int8: 2 of 3 layers with weights, calibrated with 32 pictures" in said
    assert "float32: 1 (dense_2)" in said
    assert "so few pictures" not in said
    engine.quantize(pair[0], make_dataset(1, 1).images)
    said = capsys.readouterr().err
    assert "calibrated with 1 picture\n" in said
    assert "so few pictures may not have the values of others" in said


def test_predictions_are_near_those_of_float32(pair):
    classifier, made = pair
    images = make_dataset(70, 5).images
    difference = np.abs(made.predict_proba(images) - classifier.predict_proba(images))
    assert 0 < difference.max() < 0.05
    difference = np.abs(made.outputs(images, tta=2) - classifier.outputs(images, tta=2))
    assert 0 < difference.max() < 0.05


def test_metrics_are_those_of_its_own_outputs(pair):
    made, dataset = pair[1], make_dataset(70, 5)
    metrics, scores = made.evaluate_by_class(dataset)
    right = made.outputs(dataset.images).argmax(1) == dataset.labels
    assert (metrics["n"], metrics["accuracy"]) == (70, pytest.approx(right.mean()))
    assert scores.confusion.trace() == right.sum()


def test_a_processor_without_the_instructions_gives_the_same_bits_and_says_that_it_is_slower(pair, monkeypatch, capsys):
    images = make_dataset(9, 5).images
    monkeypatch.setattr(quantized, "is_fast", lambda: False)
    slow = engine.quantize(pair[0], make_dataset(32, 1).images)
    assert "slower than float32 here" in capsys.readouterr().err
    np.testing.assert_array_equal(slow.outputs(images), pair[1].outputs(images))


def test_each_member_of_an_ensemble_is_quantized(ensemble):
    made, images = engine.quantize(ensemble, make_dataset(32, 1).images), make_dataset(20, 5).images
    assert all(isinstance(member, QuantizedClassifier) for member in made.members)
    assert 0 < np.abs(made.outputs(images) - ensemble.outputs(images)).max() < 0.05
    with pytest.raises(engine.InputError, match="classifier: got a quantized one; expected a float32 one"):
        engine.export(made, "never")


def test_what_looks_into_it_is_float32_and_its_weights_stay(pair):
    classifier, made = pair
    images = make_dataset(3, 5).images
    np.testing.assert_array_equal(made.features(images, "conv_1"), classifier.features(images, "conv_1"))
    with pytest.raises(engine.InputError, match="Change the float32 classifier"):
        made.set_weights(classifier.get_weights())


def test_what_has_no_int8_form_is_refused(pair, monkeypatch):
    images = make_dataset(8, 1).images
    with pytest.raises(engine.InputError, match="quantize: got a quantized classifier"):
        engine.quantize(pair[1], images)
    with pytest.raises(engine.InputError, match="pictures: got none"):
        engine.quantize(pair[0], images[:0])
    with pytest.raises(engine.InputError, match="quantize: got a class of its author's own; expected a model"):
        engine.quantize(fit(engine.custom(Own)), images)
    with pytest.raises(engine.InputError, match="quantize: got dense_1; expected a convolution or dense layer before"):
        engine.quantize(fit(Sequential((Flatten(), Dense()))), images)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(engine.InputError, match="quantize: got a GPU; expected a CPU"):
        engine.quantize(pair[0], images)

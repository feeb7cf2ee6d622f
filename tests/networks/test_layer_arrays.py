"""Models and layers applied to arrays: the numbers of the tutorials, and those of plain lax for any."""

import jax
import numpy as np
import pytest
from jax import lax

import engine
from engine.models import BatchNorm, Conv, Dense, Flatten, MaxPool, SeparableConv, Sequential


def test_a_convolution_and_a_pool_give_the_numbers_of_the_tutorials():
    image = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    found = engine.apply(Conv(1, 2, use_bias=False), image, {"kernel": np.ones((2, 2, 1, 1))})
    assert found[0, :, :, 0].tolist() == [[12, 16], [24, 28]]
    pixels = np.array([[4, 1, 3, 0], [2, 3, 1, 2], [0, 2, 1, 0], [1, 0, 0, 1]])[None, :, :, None]
    assert engine.apply(MaxPool(2), pixels)[0, :, :, 0].tolist() == [[4, 3], [2, 1]]


def test_a_model_is_applied_with_the_weights_given_by_layer():
    rng = np.random.default_rng(4)
    model = Sequential((Conv(3, 3, activation="relu"), MaxPool(2), Flatten(), Dense(2)))
    kernel, dense = rng.normal(size=(3, 3, 2, 3)).astype(np.float32), rng.normal(size=(12, 2)).astype(np.float32)
    images = rng.normal(size=(5, 6, 7, 2)).astype(np.float32)
    found = engine.apply(model, images, {"conv_1": {"kernel": kernel}, "dense_1": {"kernel": dense, "bias": [1, 2]}})
    numbers = ("NHWC", "HWIO", "NHWC")
    maps = jax.nn.relu(lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=numbers))
    pooled = lax.reduce_window(maps, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_allclose(found, pooled.reshape(5, -1) @ dense + np.array([[1, 2]]), rtol=1e-5, atol=1e-5)


def test_weights_that_are_not_given_are_drawn_by_the_seed():
    x = np.ones((2, 3))
    same = [engine.apply(Dense(4), x, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(same[0], same[1])
    assert not np.array_equal(same[0], same[2])


@pytest.mark.parametrize(
    ("model", "inputs", "weights", "reason"),
    [
        (Dense(2), [1.0, 2.0], None, r"inputs: got float64 of 2; expected numbers \[b …\].*array\[None\]"),
        (
            Dense(2),
            [[1.0, 2.0]],
            {"kernle": np.ones((2, 2))},
            r"weights of dense_1: got 'kernle'.*Did you mean 'kernel'",
        ),
        (
            Dense(2),
            [[1.0, 2.0]],
            {"kernel": np.ones((3, 2))},
            r"dense_1 kernel: got an array \(3, 2\); expected \(2, 2\)",
        ),
        (engine.mlp((3,)), [[1.0]], {"dense_2": {}}, r"no number of units"),
        (Dense(2), [[1.0, 2.0]], [1], r"weights of dense_1: got list; expected arrays by name"),
        (Dense(1), [[1.0]], {"bias": [1e300]}, r"bias: got numbers that are not finite as float32"),
        (Dense(1), [[1.0]], {"bias": ["a"]}, r"bias: got str\d+; expected real numbers"),
        (engine.custom(np.tanh), [[1.0]], None, r"model: got numpy:tanh, a class of its author's own"),
        ("conv", [[1.0]], None, r"model: got str; expected a model of layers, or a layer"),
    ],
)
def test_what_cannot_be_applied_is_said_in_words(model, inputs, weights, reason: str):
    with pytest.raises(engine.InputError, match=reason):
        engine.apply(model, inputs, weights)


def test_weights_of_a_classifier_are_read_and_changed_by_layer():
    images, labels = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 2), np.uint8), np.arange(30) % 3
    model = Sequential((SeparableConv(4, 3), BatchNorm(), Flatten(), Dense()))
    classifier = engine.fit(model, (images, labels), epochs=1, verbose=False).classifier
    weights = classifier.get_weights()
    assert {layer: sorted(arrays) for layer, arrays in weights.items()} == {
        "separable_conv_1": ["depthwise.kernel", "pointwise.bias", "pointwise.kernel"],
        "batch_norm_1": ["bias", "mean", "scale", "var"],
        "dense_1": ["bias", "kernel"],
    }
    before = classifier.predict_proba(images)
    logits = engine.apply(classifier.model, images / 255, weights)
    np.testing.assert_allclose(jax.nn.softmax(logits), before, rtol=1e-4, atol=1e-6)
    classifier.set_weights({"dense_1": {"kernel": 0 * weights["dense_1"]["kernel"], "bias": np.array([0, 0, 5])}})
    np.testing.assert_allclose(
        classifier.predict_proba(images), jax.nn.softmax(np.array([[0.0, 0, 5]] * 30)), rtol=1e-5
    )
    with pytest.raises(engine.InputError, match=r"weights: got 'dense_2'; expected one of .*dense_1"):
        classifier.set_weights({"dense_1": weights["dense_1"], "dense_2": {}})
    assert not classifier.get_weights()["dense_1"]["kernel"].any()
    classifier.set_weights(weights)
    np.testing.assert_array_equal(classifier.predict_proba(images), before)
    page = classifier._repr_html_()
    assert "separable_conv_1" in page
    assert classifier.graph().nodes[0].shape == (6, 6, 2)

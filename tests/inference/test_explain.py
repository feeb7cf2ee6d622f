"""Grad-CAM and feature maps equal what the formula gives by jax.grad, of a forward pass written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import engine
from engine.models import Conv, Dense, Flatten, MaxPool, Sequential
from tests.conftest import make_dataset
from tests.inference.test_layer_outputs import Own, fitted

NET = Sequential(
    (Conv(4, 3, activation="relu"), MaxPool(2), Conv(5, 2, activation="tanh"), MaxPool(2), Flatten(), Dense())
)
IMAGES = make_dataset(11, 5).images


def convolved(x: jax.Array, layer: dict) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    maps = lax.conv_general_dilated(x, layer["kernel"], (1, 1), "VALID", dimension_numbers=numbers)
    return maps + layer["bias"].reshape(1, 1, 1, -1)


def pooled(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def maps_by_hand(params: dict, images: np.ndarray) -> dict[str, jax.Array]:
    found, p = {}, params["layers"]
    x = found["conv_1 before relu"] = convolved(images / np.float32(255), p[0]["layer"])
    x = found["conv_1"] = jax.nn.relu(x)
    x = found["max_pool_1"] = pooled(x)
    x = found["conv_2 before tanh"] = convolved(x, p[2]["layer"])
    x = found["conv_2"] = jnp.tanh(x)
    found["max_pool_2"] = pooled(x)
    return found


def scores_by_hand(params: dict, maps: jax.Array) -> jax.Array:
    """[b k] of the maps of conv_2."""
    x = pooled(maps)
    return x.reshape(len(x), -1) @ params["layers"][5]["kernel"] + params["layers"][5]["bias"][None]


def heat_by_hand(maps: jax.Array, score) -> jax.Array:
    """ReLU(Σ_c mean(∂score/∂maps_c) maps_c), Selvaraju et al. 2017, equations 1 and 2."""
    gradient = jax.grad(lambda maps: score(maps).sum())(maps)
    return jax.nn.relu(jnp.einsum("byxc,bc->byx", maps, gradient.mean((1, 2))))


@pytest.fixture(scope="module")
def classifier() -> engine.Classifier:
    return fitted(NET)


@pytest.fixture(scope="module")
def own() -> engine.Classifier:
    return fitted(engine.custom(Own))


def test_grad_cam_of_any_class_is_that_of_the_formula(classifier: engine.Classifier):
    maps = maps_by_hand(classifier.params, IMAGES)["conv_2"]
    for number, name in enumerate(classifier.class_names):
        expected = heat_by_hand(maps, lambda maps, k=number: scores_by_hand(classifier.params, maps)[:, k])
        found = classifier.explain(IMAGES, of=name)
        assert [each.label for each in found] == [name] * len(IMAGES)
        np.testing.assert_allclose([each.heat for each in found], expected, rtol=1e-5, atol=1e-5)
        shares = classifier.predict_proba(IMAGES)[:, number]
        np.testing.assert_allclose([each.probability for each in found], shares, rtol=1e-5)
    assert max(each.heat.max() for each in found) > 1e-3


def test_the_likeliest_class_is_explained_and_drawn_over_the_picture(classifier: engine.Classifier, tmp_path):
    found, guesses = classifier.explain(IMAGES), classifier.predict(IMAGES)
    assert [each.label for each in found] == [guess.label for guess in guesses]
    for each, image in zip(found, IMAGES, strict=True):
        np.testing.assert_array_equal(each.image, image)
        assert each.picture.shape == (8, 8, 3)
        assert each.picture.dtype == np.uint8
        if not each.heat.any():
            np.testing.assert_array_equal(each.picture, np.repeat(image, 3, 2))
    found[0].save(tmp_path / "heat.png")
    for name, rule in (
        ("heat.jpg", r"ends in \.png"),
        ("no/heat.png", "a directory that exists.*mkdir -p"),
        ("heat.png/heat.png", "a directory that exists.*heat.png is a file"),
    ):
        with pytest.raises(engine.InputError, match=rule):
            found[0].save(tmp_path / name)
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_grad_cam_of_a_layer_of_ones_own_class_is_that_of_the_formula(own: engine.Classifier):
    module = Own((8, 8, 1), 3, jax_rngs())
    for arrays in (own.params, own.model_state):
        from flax import nnx

        nnx.update(module, arrays)
    module.eval()
    maps = module.blocks[0](module.stem(IMAGES / np.float32(255)))

    def score(maps: jax.Array) -> jax.Array:
        x = module.norm(module.blocks[1](maps)).mean((1, 2))
        x, _ = module.pair(module.twice(module.twice(x)))
        linear = module.mapped
        x = jnp.stack([x @ linear.kernel[i] + linear.bias[i][None] for i in range(2)]).mean(0)
        return module.head(x)[:, 1]

    found = own.explain(IMAGES, of=1, layer="blocks.0")
    np.testing.assert_allclose([each.heat for each in found], heat_by_hand(maps, score), rtol=1e-5, atol=1e-5)


def jax_rngs():
    from flax import nnx

    return nnx.Rngs(0)


def test_feature_maps_are_those_before_and_after_each_activation_and_pool(classifier: engine.Classifier):
    found, expected = classifier.feature_maps(IMAGES[0]), maps_by_hand(classifier.params, IMAGES[:1])
    assert list(found) == list(expected)
    for name, maps in expected.items():
        np.testing.assert_allclose(found[name], maps[0], rtol=1e-5, atol=1e-5, err_msg=name)


def test_one_output_for_two_classes_explains_both():
    images, labels = np.random.default_rng(3).integers(0, 256, (40, 8, 8, 1), np.uint8), np.arange(40) % 2
    result = engine.fit(NET, (images, labels), epochs=1, loss="binary_cross_entropy", verbose=False)
    classifier = result.classifier
    maps = maps_by_hand(classifier.params, images[:5])["conv_2"]
    for number, sign in enumerate((-1, 1)):
        expected = heat_by_hand(maps, lambda maps, sign=sign: sign * scores_by_hand(classifier.params, maps)[:, 0])
        found = [each.heat for each in classifier.explain(images[:5], of=number)]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"of": "dress"}, r"of: got 'dress'; expected one of"),
        ({"of": 3}, r"of: got 3; expected 0 to 2\. Give the name or the number"),
        ({"of": 1.0}, r"of: got 1\.0; expected 0 to 2"),
        ({"of": [0, 1]}, r"of: got 2 classes; expected one for each of 11 pictures, or one for all"),
        ({"layer": "conv_3"}, r"layer: got 'conv_3'; expected one of conv_1, .* Did you mean 'conv_"),
        ({"layer": "flatten_1"}, r"layer: got 'flatten_1', which gives 5; expected a layer that gives images"),
    ],
)
def test_what_cannot_be_explained_is_said_in_words(classifier: engine.Classifier, arguments: dict, reason: str):
    with pytest.raises(engine.InputError, match=reason):
        classifier.explain(IMAGES, **arguments)


def test_models_without_maps_are_refused_in_words(own: engine.Classifier):
    with pytest.raises(engine.InputError, match=r"explain: got a class of its author's own; .*explain\(picture, layer"):
        own.explain(IMAGES)
    with pytest.raises(
        engine.InputError, match=r"feature_maps: got a class of its author's own; expected a Sequential"
    ):
        own.feature_maps(IMAGES[0])
    with pytest.raises(engine.InputError, match=r"feature_maps: got 11 pictures; expected one picture"):
        own.feature_maps(IMAGES)
    ensemble = fitted(engine.mlp(()), members=2)
    with pytest.raises(engine.InputError, match=r"explain: got an ensemble; .* Ask members\[0\]\.explain"):
        ensemble.explain(IMAGES)
    with pytest.raises(engine.InputError, match="explain: got a model without maps"):
        ensemble.members[0].explain(IMAGES)
    assert ensemble.members[0].feature_maps(IMAGES[0]) == {}

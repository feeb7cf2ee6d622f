"""Features of a layer equal what a forward pass written by hand, of plain lax operations, gives there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import engine
from engine.models import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Sequential
from tests.conftest import make_dataset

NET = Sequential(
    (Conv(4, 3, activation="relu"), BatchNorm(), MaxPool(2), Conv(5, 2), Flatten(), Dropout(0.3),
     Dense(6, activation="tanh"), Dense())
)  # fmt: skip
DATA = make_dataset(96)


def fitted(model=NET, standardize=None, precision="float32", **options) -> engine.Classifier:
    """A model after one epoch, so that batch statistics are no more those at the start."""
    from engine.data.decoded.dataset import Splits
    from engine.host.clock import Clock
    from engine.report.progress import Silent
    from engine.runs.loop import train

    config = engine.RunConfig(
        "f", model, engine.DataConfig(standardize=standardize), engine.TrainConfig(1, precision=precision, **options)
    )
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as directory:
        return train(config, Splits(DATA), Path(directory), Clock(), Silent()).classifier


def by_hand(classifier: engine.Classifier, images: np.ndarray) -> dict[str, jax.Array]:
    """What each layer of NET gives, by lax alone."""
    p, s = classifier.params["layers"], classifier.model_state
    if classifier.input_spec.whiten:
        (mean, matrix), s = s
    s = s["layers"]
    x = images / np.float32(255)
    if classifier.input_spec.whiten:
        x = jnp.matmul(x.reshape(len(x), -1) - mean[None], matrix, precision="highest").reshape(x.shape)

    def convolved(x, kernel, bias):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers) + bias.reshape(
            1, 1, 1, -1
        )

    found, norm = {}, {**p[1], **s[1]}
    x = found["conv_1"] = jax.nn.relu(convolved(x, p[0]["layer"]["kernel"], p[0]["layer"]["bias"]))
    wide = {name: value.reshape(1, 1, 1, -1) for name, value in norm.items()}
    x = (x - wide["mean"]) / jnp.sqrt(wide["var"] + NET.layers[1].epsilon) * wide["scale"] + wide["bias"]
    found["batch_norm_1"] = x
    x = found["max_pool_1"] = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = found["conv_2"] = convolved(x, p[3]["kernel"], p[3]["bias"])
    x = found["flatten_1"] = found["dropout_1"] = x.reshape(len(x), -1)
    x = found["dense_1"] = jnp.tanh(x @ p[6]["layer"]["kernel"] + p[6]["layer"]["bias"][None])
    found["dense_2"] = x @ p[7]["kernel"] + p[7]["bias"][None]
    return found


@pytest.mark.parametrize("standardize", [None, "whiten"])
def test_features_of_every_layer_equal_those_by_hand(standardize):
    classifier, images = fitted(standardize=standardize), make_dataset(11, 5).images
    expected = by_hand(classifier, images)
    assert tuple(expected) == NET.layer_names or set(expected) == set(NET.layer_names)
    for layer, values in expected.items():
        found = classifier.features(images, layer)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5, err_msg=layer)
    probabilities = jax.nn.softmax(classifier.features(images, "dense_2"))
    np.testing.assert_allclose(classifier.predict_proba(images), probabilities, rtol=1e-5)


def test_features_of_a_bfloat16_model_are_float32_of_bfloat16():
    classifier, images = fitted(precision="bfloat16"), make_dataset(11, 5).images
    for layer, values in by_hand(classifier, images).items():
        found = classifier.features(images, layer)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, values, rtol=0.05, atol=0.05, err_msg=layer)


def test_any_number_of_pictures_of_any_kind_has_features_and_few_sizes_are_compiled():
    classifier, images = fitted(), make_dataset(300, 5).images
    whole = classifier.features(images, "max_pool_1")
    for count in (0, 1, 7, 65, 300):
        found = classifier.features(images[:count], "max_pool_1")
        assert found.shape == (count, *whole.shape[1:])
        np.testing.assert_allclose(found, whole[:count], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(classifier.features(list(images[:70]), "max_pool_1"), whole[:70], rtol=1e-5, atol=1e-5)
    floats = images / np.float32(255)
    np.testing.assert_array_equal(classifier.features(floats, "max_pool_1", value_range=(0, 1)), whole)
    before = classifier.executables.num_compiled("features")
    classifier.features(images[:60], "max_pool_1")
    assert classifier.executables.num_compiled("features") == before


def test_unknown_layer_is_refused_with_the_known_ones_and_the_nearest():
    classifier = fitted()
    with pytest.raises(
        engine.InputError, match=r"layer: got 'conv2'; expected one of conv_1, .* Did you mean 'conv_2'"
    ):
        classifier.features(DATA.images[:2], "conv2")


def test_features_of_an_ensemble_are_those_of_a_member():
    ensemble, images = fitted(members=2), DATA.images[:3]
    with pytest.raises(
        engine.InputError, match=r"features: got an ensemble; expected one of its 2 members. Ask members"
    ):
        ensemble.features(images, "dense_1")
    for member in ensemble.members:
        np.testing.assert_allclose(
            member.features(images, "dense_1"), by_hand(member, images)["dense_1"], rtol=1e-4, atol=1e-5
        )
    assert np.abs(np.subtract(*(member.features(images, "conv_1") for member in ensemble.members))).max() > 1e-3


class Residual(nnx.Module):
    """A block of a module of one's own."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.conv = nnx.Conv(features, features, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + nnx.relu(self.conv(x))


class Own(nnx.Module):
    """A user's module: blocks in a list, one layer used twice, one that gives two arrays, one that is never called."""

    def __init__(self, input_shape, num_outputs, rngs):
        self.stem = nnx.Conv(input_shape[-1], 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Residual(4, rngs), Residual(4, rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.twice = nnx.Linear(4, 4, rngs=rngs)
        self.pair = Pair()
        self.unused = nnx.Linear(4, 4, rngs=rngs)
        self.mapped = nnx.vmap(lambda seed: nnx.Linear(4, 4, rngs=nnx.Rngs(jax.random.key(seed))))(jnp.arange(2))
        self.head = nnx.Linear(4, num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).mean((1, 2))
        x, _ = self.pair(self.twice(self.twice(x)))
        x = nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(self.mapped, x).mean(0)
        return self.head(x)


class Pair(nnx.Module):
    """Gives two arrays."""

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x, x


@pytest.fixture(scope="module")
def own() -> engine.Classifier:
    return fitted(engine.custom(Own))


def test_features_of_a_class_of_one_s_own_are_asked_for_by_path(own: engine.Classifier):
    images = DATA.images[:5]
    module = Own((8, 8, 1), 3, nnx.Rngs(0))
    nnx.update(module, own.params)
    nnx.update(module, own.model_state)
    module.eval()
    stem = module.stem(images / np.float32(255))
    first = module.blocks[0](stem)
    expected = {
        "stem": stem, "blocks.0": first, "blocks.1.conv": module.blocks[1].conv(first),
        "norm": module.norm(module.blocks[1](first)), "head": module(images / np.float32(255)),
    }  # fmt: skip
    for layer, values in expected.items():
        np.testing.assert_allclose(own.features(images, layer), values, rtol=1e-4, atol=1e-5, err_msg=layer)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("block.0", r"layer: got 'block.0'; expected one of .*blocks\.0, .* Did you mean 'blocks\.0'"),
        ("twice", r"layer: got 'twice', called 2 times; expected a layer that is called once"),
        ("unused", r"layer: got 'unused', called 0 times"),
        ("pair", r"layer: got 'pair', which gives tuple; expected a layer that .* gives one array"),
        ("mapped", r"layer: got 'mapped'; expected a layer outside of vmap"),
    ],
)
def test_layer_that_has_no_features_to_give_is_refused_with_the_reason(own: engine.Classifier, layer: str, reason: str):
    with pytest.raises(engine.InputError, match=reason):
        own.features(DATA.images[:2], layer)
    assert own.features(DATA.images[:2], "stem").shape == (2, 8, 8, 4)

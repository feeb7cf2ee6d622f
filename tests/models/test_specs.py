"""Specs, which know shapes and counts by arithmetic, against the NNX modules that are built from them."""

import importlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import check_model
from engine.errors import InputError
from engine.kernels import ffi
from engine.models import (
    Activation,
    Attention,
    AveragePool,
    BatchNorm,
    ClassToken,
    Conv,
    ConvTranspose,
    Crop,
    Custom,
    Dense,
    DepthwiseConv,
    Dropout,
    DropPath,
    FirstToken,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    LayerNorm,
    LayerScale,
    MaxPool,
    Paths,
    PositionEmbedding,
    PReLU,
    Rescale,
    SeparableConv,
    Sequential,
    SpatialDropout,
    Tokens,
    UpSample,
    ZeroPad,
    cnn,
    custom,
    inverted_residual,
    l2,
    mlp,
    residual,
    squeeze_excite,
)
from engine.models.activations import ACTIVATIONS as ACTIVATION_NAMES
from engine.models.layer import CustomLayer, Layer
from engine.models.specs import Model
from engine.networks.build import build, takes_mask
from engine.networks.modules import moments
from engine.records import from_json, to_json
from tests.further import further

SETTINGS = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def abstract(spec: Model, input_shape: tuple[int, ...], num_outputs: int) -> nnx.Module:
    """The module that `build` makes, its arrays as shapes only: nothing is drawn or compiled."""
    return nnx.eval_shape(lambda: build(spec, input_shape, num_outputs, nnx.Rngs(0)))


def output_of(module: nnx.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape a module gives for one example."""
    inputs = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
    return nnx.eval_shape(lambda m, x: m(x), module, inputs).shape[1:]


def count_params(module: nnx.Module) -> int:
    """How many numbers of a module are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def assert_built_as_described(spec: Sequential, input_shape: tuple[int, ...], num_outputs: int) -> None:
    """Layer by layer, the module has the output shapes and parameters that the spec says."""
    module, shape = abstract(spec, input_shape, num_outputs), input_shape
    rows = spec.with_outputs(num_outputs).rows(input_shape)
    for row, layer in zip(rows, module.layers, strict=True):
        shape = output_of(layer, shape)
        assert (shape, count_params(layer)) == (row.output_shape, row.num_params), row


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("mlp", 6_442),
        ("convnet_wide", 180_874),
        ("convnet", 104_202),
        ("convnet_no_pool", 712_202),
        ("convnet_dropout", 890_218),
    ],
)
def test_recipe_has_the_known_number_of_parameters(recipe: str, expected: int):
    config = importlib.import_module(f"engine.recipes.{recipe}").config()
    assert config.name == recipe
    assert config.model.with_outputs(10).num_params((28, 28, 1)) == expected
    assert count_params(abstract(config.model, (28, 28, 1), 10)) == expected


def test_convnet_has_the_known_number_of_parameters_when_its_arrays_are_real():
    module = build(cnn((32, 64, 128)), (28, 28, 1), 10, nnx.Rngs(0))
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))]
    assert sum(array.size for array in arrays) == 104_202
    assert module(jnp.zeros((2, 28, 28, 1))).shape == (2, 10)


FLOWERS = Sequential((Rescale(1 / 255), *cnn((16, 32, 64), padding="same", pool_last=True, hidden=(128,)).layers))
SAME_TWICE = (Conv(16, padding="same", activation="relu"),) * 2
POOL = MaxPool(2, strides=1)
MALARIA = Sequential(
    (
        Conv(16, activation="relu"), POOL, *SAME_TWICE, POOL, *SAME_TWICE, POOL,
        Flatten(), Dense(64, "relu"), Dropout(0.2), Dense(32, "relu"), Dropout(0.2), Dense(),
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "input_shape", "num_outputs", "expected"),
    [
        pytest.param(FLOWERS, (180, 180, 3), 5, 3_989_285, id="flowers"),
        pytest.param(MALARIA, (32, 32, 3), 1, 758_401, id="malaria"),
        pytest.param(Sequential((Dense(),)), (32,), 1, 33, id="regression"),
        pytest.param(Sequential((Flatten(), Dense(100, use_bias=False))), (64, 64, 3), 100, 1_228_800, id="64x64"),
        pytest.param(Sequential((Flatten(), Dense(100, use_bias=False))), (720, 1280, 3), 100, 276_480_000, id="720p"),
    ],
)
def test_net_has_the_known_number_of_parameters(spec: Sequential, input_shape: tuple, num_outputs: int, expected: int):
    assert spec.with_outputs(num_outputs).num_params(input_shape) == expected
    assert count_params(abstract(spec, input_shape, num_outputs)) == expected
    assert_built_as_described(spec, input_shape, num_outputs)


IMAGE_LAYERS = [
    Conv(4),
    Conv(4, (2, 3)),
    Conv(4, 3, strides=2),
    Conv(4, 3, strides=(1, 3), padding="same"),
    Conv(4, 4, padding="same"),
    Conv(4, 3, padding=2),
    Conv(4, (5, 1), strides=(2, 1), padding=1),
    Conv(4, 3, dilation=2),
    Conv(4, 3, padding="same", dilation=(1, 3)),
    Conv(4, groups=2),
    Conv(4, groups=4, padding="same"),
    Conv(4, use_bias=False),
    *(Conv(4, 2, activation=name) for name in ACTIVATION_NAMES),
    MaxPool(),
    MaxPool(3, strides=1),
    MaxPool((2, 3), strides=(1, 2), padding="same"),
    MaxPool(3, padding="same"),
    MaxPool(3, strides=2, padding=1),
    AveragePool(),
    AveragePool(3, strides=1),
    AveragePool((2, 3), strides=(1, 2), padding="same"),
    AveragePool(3, strides=2, padding=1),
    BatchNorm(),
    Rescale(2.0, -1.0),
    Dropout(0.3),
    GlobalAveragePool(),
    Flatten(),
    *map(Activation, ACTIVATION_NAMES),
    Activation("leaky_relu", 0.3),
    Conv(4, activation=Activation("elu", 0.5), kernel_initializer="he_normal", kernel_regularizer="l1_l2"),
    GlobalMaxPool(),
    LayerNorm(),
    GroupNorm(2),
    SeparableConv(5, (3, 2), 2, "same", multiplier=2, kernel_regularizer=l2(1e-4)),
    SeparableConv(3, use_bias=False, dilation=2),
    DepthwiseConv(),
    DepthwiseConv((2, 3), (1, 2), "same", multiplier=3, activation="relu"),
    DepthwiseConv(3, padding=1, multiplier=2, dilation=2, use_bias=False),
    ConvTranspose(3),
    ConvTranspose(3, (2, 5), (3, 2), activation="relu"),
    ConvTranspose(2, 2, (3, 1), "same", use_bias=False),
    UpSample(),
    UpSample((1, 3), "bilinear"),
    ZeroPad(),
    ZeroPad((0, 2)),
    ZeroPad(((1, 0), (2, 3))),
    Crop((2, 1)),
    SpatialDropout(0.2),
    PReLU(),
    PReLU((1, 2)),
    Conv(4, 3, 2, ((0, 1), (2, 0))),
    DepthwiseConv(3, 2, ((0, 1), (0, 1))),
    MaxPool(3, 2, ((1, 0), (0, 2))),
    AveragePool(3, 2, ((1, 0), (0, 2))),
    GlobalAveragePool(keep_axes=True),
    GlobalMaxPool(keep_axes=True),
    *(BatchNorm(use_scale=s, use_offset=not s) for s in (False, True)),
    LayerScale(),
    DropPath(0.1),
    Tokens(),
    residual((Conv(4, padding="same"), BatchNorm(), squeeze_excite(4, 2), DropPath(0.1)), name="block"),
    Paths(((Conv(2),), (MaxPool(3, 1), inverted_residual(4, 3))), "concat", activation="relu6"),
]
TOKEN_LAYERS = [
    *(Attention(2), Attention(4, use_bias=False), ClassToken(), PositionEmbedding(), FirstToken()),
    *(LayerNorm(), Dense(5, "gelu"), residual((LayerNorm(), Attention(2)), activation=None), DropPath(0.2)),
]


@pytest.mark.parametrize("layer", IMAGE_LAYERS, ids=str)
def test_layer_is_built_as_described_when_it_follows_an_image(layer: Layer):
    assert_built_as_described(Sequential((layer, Flatten(), Dense())), (9, 11, 4), 3)


@pytest.mark.parametrize(
    "layer",
    [Dense(7), Dense(7, use_bias=False), *(Dense(7, name) for name in ACTIVATION_NAMES), BatchNorm(), Flatten(),
     Dropout(0.3), Rescale(3.0), Activation("tanh"), LayerNorm(), GroupNorm(3), PReLU()],
    ids=str,
)  # fmt: skip
def test_layer_is_built_as_described_when_it_follows_a_vector(layer: Layer):
    assert_built_as_described(Sequential((layer, Dense())), (6,), 3)


@pytest.mark.parametrize("layer", TOKEN_LAYERS, ids=str)
def test_layer_is_built_as_described_when_it_follows_tokens(layer: Layer):
    assert_built_as_described(Sequential((Tokens(), layer, Flatten(), Dense())), (3, 2, 4), 3)


def test_the_cases_above_cover_every_layer():
    assert {type(layer) for layer in (*IMAGE_LAYERS, *TOKEN_LAYERS)} | {Dense, CustomLayer} == set(Layer.KINDS.values())


SIDES = st.integers(1, 3)
SIZE = SIDES | st.tuples(SIDES, SIDES)
PADDING = st.sampled_from(("valid", "same", 0, 1))
NAME = st.none() | st.sampled_from(list(ACTIVATION_NAMES))
POOLED = {"size": st.integers(2, 3), "strides": st.none() | SIZE, "padding": PADDING}
ANY_LAYER = st.one_of(
    st.builds(
        Conv, filters=st.sampled_from((2, 4)), kernel_size=SIZE, strides=SIZE, padding=PADDING, dilation=SIZE,
        groups=st.integers(1, 2), use_bias=st.booleans(), activation=NAME,
    ),
    st.builds(MaxPool, **POOLED),
    st.builds(AveragePool, **POOLED),
    st.builds(Dropout, st.floats(0, 0.9)),
    st.builds(BatchNorm, st.floats(0, 0.99), st.floats(1e-6, 1)),
    st.builds(Activation, st.sampled_from(list(ACTIVATION_NAMES))),
    st.builds(Rescale, st.floats(-255, 255), st.floats(-1, 1)),
)  # fmt: skip
HEAD = st.sampled_from(((Flatten(), Dense()), (GlobalAveragePool(), Dense(5, "relu"), Dense())))
ANY_SPEC = st.builds(lambda body, head: Sequential((*body, *head)), st.lists(ANY_LAYER, max_size=4), HEAD)


@SETTINGS
@given(ANY_SPEC)
def test_layers_are_built_as_described_or_refused_by_number(spec: Sequential):
    try:
        spec.with_outputs(3).rows((8, 9, 2))
    except InputError:
        with pytest.raises(InputError, match=r"^layer \d+ \w+: got"):
            abstract(spec, (8, 9, 2), 3)
    else:
        assert_built_as_described(spec, (8, 9, 2), 3)


def test_rows_number_the_layers_from_one():
    rows = mlp((8,), dropout=0.5).with_outputs(10).rows((4, 4, 1))
    assert [row[:4] for row in rows] == [
        (1, "flatten_1", (16,), 0),
        (2, "dense_1", (8,), 136),
        (3, "dropout_1", (8,), 0),
        (4, "dense_2", (10,), 90),
    ]


def test_cnn_leaves_the_pool_after_the_last_convolution_out_unless_asked():
    def kinds(spec: Sequential) -> str:
        return " ".join(type(layer).__name__ for layer in spec.layers)

    assert kinds(cnn((4, 8))) == "Conv MaxPool Conv Flatten Dense"
    assert kinds(cnn((4, 8), pool_last=True)) == "Conv MaxPool Conv MaxPool Flatten Dense"
    assert kinds(cnn((4, 8), pool_size=None, hidden=(5,))) == "Conv Conv Flatten Dense Dense"


@pytest.mark.parametrize(
    ("spec", "input_shape", "message"),
    [
        (
            Sequential((Conv(4), MaxPool(), Conv(4), MaxPool(), Conv(4), Flatten(), Dense())),
            (10, 10, 1),
            r"layer 5 Conv: got 1×1; expected at least 3×3 for its window\.",
        ),
        (Sequential((Conv(4, 3, dilation=4), Flatten(), Dense())), (8, 9, 1), r"layer 1 Conv: got 8×9; .* 9×9"),
        (Sequential((Conv(4), AveragePool(7), Flatten(), Dense())), (8, 9, 1), r"layer 2 AveragePool: got 6×7; .* 7×7"),
        (Sequential((Dense(8), Flatten(), Dense())), (8, 9, 1), r"layer 1 Dense: got an image of 8×9×1; .*Flatten\(\)"),
        (Sequential((Flatten(), Conv(4), Dense())), (8, 9, 1), r"layer 2 Conv: got a vector of 72; expected an image"),
        (Sequential((Flatten(), MaxPool(), Dense())), (8, 9, 1), r"layer 2 MaxPool: got a vector of 72"),
        (Sequential((GlobalAveragePool(), Dense())), (8,), r"layer 1 GlobalAveragePool: got a vector of 8"),
        (Sequential((Conv(4, groups=2), Flatten(), Dense())), (8, 9, 3), r"layer 1 Conv: got 3 channels; .* 2 groups"),
        (Sequential((Flatten(), Dense(3))), (8, 9, 1), r"model: got 3 outputs an example; expected 10"),
        (Sequential((Conv(4),)), (8, 9, 1), r"model: got 6×7×4 outputs an example; expected 10"),
        (Sequential(()), (8, 9, 1), r"model: got 8×9×1 outputs an example; expected 10"),
    ],
)  # fmt: skip
def test_build_names_layer_and_sizes_when_shapes_do_not_fit(spec: Sequential, input_shape: tuple, message: str):
    with pytest.raises(InputError, match=message):
        abstract(spec, input_shape, 10)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Dense, {"units": 0}, r"Dense units: got 0; expected a positive whole number"),
        (Dense, {"units": -3}, "Dense units: got -3"),
        (Dense, {"units": 2.5}, r"Dense units: got 2\.5"),
        (Dense, {"units": True}, "Dense units: got True"),
        (Dense, {"units": (3, 4)}, "Dense units"),
        (Conv, {"filters": 0}, "Conv filters: got 0"),
        (Conv, {"filters": (3, 4)}, "Conv filters"),
        (Conv, {"filters": 4, "kernel_size": (3, 0)}, r"Conv kernel_size: got \(3, 0\)"),
        (Conv, {"filters": 4, "kernel_size": (3, 3, 3)}, r"Conv kernel_size: got \(3, 3, 3\)"),
        (Conv, {"filters": 4, "kernel_size": (3,)}, "Conv kernel_size"),
        (Conv, {"filters": 4, "kernel_size": ()}, "Conv kernel_size"),
        (Conv, {"filters": 4, "kernel_size": "3"}, "Conv kernel_size: got '3'"),
        (Conv, {"filters": 4, "strides": 0}, "Conv strides: got 0"),
        (Conv, {"filters": 4, "dilation": 0}, "Conv dilation: got 0"),
        (Conv, {"filters": 4, "padding": -1}, r'Conv padding: got -1; expected "valid", "same"'),
        (Conv, {"filters": 4, "padding": "SAME"}, "Conv padding: got 'SAME'"),
        (Conv, {"filters": 4, "padding": True}, "Conv padding"),
        (Conv, {"filters": 4, "groups": 3}, "Conv groups: got 3; expected a divisor of its 4 filters"),
        (Conv, {"filters": 4, "groups": 0}, "Conv groups: got 0"),
        (Conv, {"filters": 4, "groups": (2, 2)}, "Conv groups"),
        (MaxPool, {"size": 0}, "MaxPool size: got 0"),
        (MaxPool, {"size": 2, "strides": (0, 1)}, r"MaxPool strides: got \(0, 1\)"),
        (MaxPool, {"size": 2, "strides": 0}, "MaxPool strides: got 0"),
        (MaxPool, {"size": (3, 2), "padding": 2}, "MaxPool padding: got 2; expected less than the window"),
        (AveragePool, {"size": 0}, "AveragePool size: got 0"),
        (AveragePool, {"size": 2, "padding": 2}, "AveragePool padding: got 2"),
        (Dropout, {"rate": 1.0}, r"Dropout rate: got 1\.0; expected 0 ≤ rate < 1"),
        (Dropout, {"rate": -0.1}, r"Dropout rate: got -0\.1"),
        (Dropout, {"rate": float("nan")}, "Dropout rate: got nan"),
        (BatchNorm, {"momentum": 1.0}, r"BatchNorm momentum: got 1\.0"),
        (BatchNorm, {"momentum": "0.9"}, r"BatchNorm momentum: got '0\.9'"),
        (BatchNorm, {"momentum": None}, "BatchNorm momentum: got None"),
        (BatchNorm, {"epsilon": float("nan")}, "BatchNorm epsilon: got nan"),
        (LayerNorm, {"epsilon": float("inf")}, "LayerNorm epsilon: got inf"),
        (Dropout, {"rate": False}, "Dropout rate: got False"),
        (Dense, {"kernel_regularizer": ["l2"]}, r"kernel_regularizer: got \('l2',\)"),
        (Dense, {"kernel_regularizer": {"l2": 0.1}}, "kernel_regularizer: got {'l2': 0.1}"),
        (BatchNorm, {"epsilon": 0.0}, r"BatchNorm epsilon: got 0\.0"),
        (Activation, {"function": None}, "activation: got None"),
    ],
)
def test_layer_refuses_bad_numbers_by_name(kind: type, arguments: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        kind(**arguments)


def test_layers_take_lists_and_numbers_of_numpy():
    given = Conv(np.int64(8), [3, np.int32(2)], activation=Activation("leaky_relu", np.float32(0.5)))  # type: ignore[arg-type]
    assert given == Conv(8, (3, 2), activation=Activation("leaky_relu", 0.5))
    assert ZeroPad([[1, 0], [2, 1]]) == ZeroPad(((1, 0), (2, 1)))  # type: ignore[arg-type]
    assert Rescale(np.float32(0.5)) == Rescale(0.5)  # type: ignore[arg-type]
    spec = Sequential([given, Flatten(), Dense(np.int64(3))])  # type: ignore[arg-type]
    assert through_json(spec) == spec


@pytest.mark.parametrize("make", [lambda name: Dense(3, name), lambda name: Conv(3, activation=name), Activation])
def test_unknown_activation_lists_the_known_and_the_nearest(make: Any):
    rule = ", ".join(ACTIVATION_NAMES)
    with pytest.raises(InputError, match=rf"activation: got 'rellu'; expected one of {rule}\. Did you mean 'relu'\?"):
        make("rellu")


def test_sequential_refuses_what_is_no_layer_by_its_number():
    with pytest.raises(InputError, match=r"layer 2: got 'relu'; expected one of CustomLayer, Activation, Dense, Conv"):
        Sequential((Flatten(), "relu"))
    with pytest.raises(InputError, match=r"layer 2: .*\. Write Dense\(\), with what it needs"):
        Sequential((Flatten(), Dense))
    assert Sequential(Dense(3)) == Sequential((Dense(3),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        ([Flatten(), Dense()], r"Put the layers into Sequential\("),
        (Dense(), r"Put the layers into Sequential\("),
        (nnx.Linear, r"Pass the class itself to custom\(\)"),
        ("mlp", r"Build it of the layers of engine\.models"),
        (None, r"Build it of the layers of engine\.models"),
    ],
)
def test_what_is_no_model_is_answered_for_what_it_is(model: Any, remedy: str):
    with pytest.raises(InputError, match=remedy):
        check_model(model)


def through_json(spec: Model) -> Model:
    return from_json(Model, json.loads(json.dumps(to_json(spec))), "model")


@SETTINGS
@given(ANY_SPEC)
def test_spec_comes_back_equal_when_read_from_json_text(spec: Sequential):
    again = through_json(spec)
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize(
    "spec", [Sequential(tuple(IMAGE_LAYERS)), FLOWERS, MALARIA, mlp(), Custom("a.b:C", {"width": 3, "act": "x"})]
)
def test_spec_comes_back_equal_when_it_is_one_of_ours(spec: Model):
    assert through_json(spec) == spec


def test_unknown_layer_kind_lists_the_known_and_the_nearest_when_read_from_json():
    value = {"kind": "Sequential", "layers": [{"kind": "Flatten"}, {"kind": "Convolution", "filters": 3}]}
    rule = ", ".join(Layer.KINDS)
    message = rf"model\.layers\[1\]\.kind: got 'Convolution'; expected one of {rule}\."
    with pytest.raises(InputError, match=message):
        from_json(Model, value, "model")
    value["layers"][1]["kind"] = "Convv"
    with pytest.raises(InputError, match=r"Did you mean 'Conv'\?"):
        from_json(Model, value, "model")


def test_layer_numbers_are_checked_again_when_read_from_json():
    value = {"kind": "Sequential", "layers": [{"kind": "Dense", "units": 0}]}
    with pytest.raises(InputError, match="Dense units: got 0"):
        from_json(Model, value, "model")


class OwnNet(nnx.Module):
    """Flax as its manual shows it."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs, width: int = 4):
        self.conv = nnx.Conv(input_shape[-1], width, (3, 3), rngs=rngs)
        self.head = nnx.Linear(width, num_outputs, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.conv(images)).mean((1, 2)))


class OneOutputMore(OwnNet):
    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs):
        super().__init__(input_shape=input_shape, num_outputs=num_outputs + 1, rngs=rngs)


class NoModule:
    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs):
        self.num_outputs = num_outputs


class OwnArguments(nnx.Module):
    def __init__(self, features: int, rngs: nnx.Rngs):
        self.head = nnx.Linear(features, 3, rngs=rngs)


class Outer:
    class Inner(OwnNet):
        pass


def test_custom_builds_a_users_class_with_its_arguments():
    module = abstract(through_json(custom(OwnNet, width=6)), (8, 8, 2), 3)
    assert isinstance(module, OwnNet)
    assert module.conv.out_features == 6
    assert output_of(module, (8, 8, 2)) == (3,)
    assert not takes_mask(module)
    assert isinstance(abstract(custom(Outer.Inner), (8, 8, 2), 3), Outer.Inner)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (custom(OneOutputMore), r"model: got 4 outputs an example; expected 3, as the data asks for"),
        (custom(NoModule), r"model: got .*:NoModule; expected a subclass of flax\.nnx\.Module"),
        (
            custom(OwnArguments),
            r"model: got .*:OwnArguments \(.*'input_shape'\); expected a class called with input_shape",
        ),
        (custom(OwnNet, depth=2), r"model: got .*:OwnNet \(.*'depth'\)"),
        (Custom("no_such_module:Net"), r"model: got no_such_module:Net; expected an importable class"),
        (Custom("engine.models:Net"), r"model: got engine\.models:Net; expected an importable class"),
    ],
)
def test_build_refuses_a_users_class_that_does_not_serve(spec: Custom, message: str):
    with pytest.raises(InputError, match=message):
        abstract(spec, (8, 8, 2), 3)


@pytest.mark.parametrize("path", ["engine.models", "a:b:c", ""])
def test_custom_refuses_a_path_without_module_and_class(path: str):
    with pytest.raises(InputError, match=r"Custom path: got .*; expected \"package\.module:name\""):
        Custom(path)


def test_kernels_are_glorot_uniform_and_biases_zero():
    spec = Sequential((Conv(16, (3, 2), activation="relu"), Flatten(), Dense(64), Dense()))
    module = build(spec, (8, 8, 4), 10, nnx.Rngs(0))
    conv, dense = module.layers[0].layer, module.layers[2]
    for layer, fans in ((conv, 3 * 2 * (4 + 16)), (dense, 6 * 7 * 16 + 64)):
        bound, kernel = np.sqrt(6 / fans), np.asarray(layer.kernel[...])
        assert np.abs(kernel).max() <= bound
        assert np.abs(kernel).max() > 0.97 * bound  # a normal draw of the same spread would go beyond or stay below
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)
        np.testing.assert_array_equal(layer.bias[...], 0)


def test_batch_norm_leaves_masked_examples_out():
    spec = Sequential((Conv(3, 2), BatchNorm(momentum=0.5), Flatten(), Dense(4), BatchNorm(momentum=0.5), Dense()))
    real = jax.random.normal(jax.random.key(1), (5, 4, 4, 2))
    padded = jnp.concatenate([real, jnp.full((3, 4, 4, 2), 1e3)])
    mask = jnp.arange(8) < 5
    alone, masked, unmasked = (build(spec, (4, 4, 2), 3, nnx.Rngs(0)) for _ in range(3))
    expected, got = alone(real), masked(padded, mask=mask)
    unmasked(padded)
    np.testing.assert_allclose(got[:5], expected, rtol=1e-4, atol=1e-5)
    statistics = [jax.tree.leaves(nnx.state(module, nnx.BatchStat)) for module in (alone, masked, unmasked)]
    assert len(statistics[0]) == 4
    for own, under_mask, all_eight in zip(*statistics, strict=True):
        np.testing.assert_allclose(under_mask, own, rtol=1e-4, atol=1e-5)
        assert not np.allclose(all_eight, own, rtol=0.1)
    assert takes_mask(masked)


def test_norms_of_one_example_are_given_no_mask():
    spec = Sequential((Conv(4, 2), LayerNorm(), GroupNorm(2), Flatten(), Dense()))
    images = jax.random.normal(jax.random.key(1), (5, 4, 4, 2))
    module: Any = build(spec, (4, 4, 2), 3, nnx.Rngs(0))
    np.testing.assert_array_equal(module(images, mask=jnp.arange(5) < 3), module(images))


def far_from_zero(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 values whose mean is 200 standard deviations, unlike in each channel."""
    draw = np.random.default_rng(seed)
    values = draw.normal(0, 1, shape) * np.linspace(0.5, 2, shape[-1])
    signs = np.where(np.arange(shape[-1]) % 2, 1, -1)
    return (values + 200 * np.linspace(0.5, 2, shape[-1]) * signs).astype(np.float32)


@pytest.mark.parametrize("shape", [(32, 9, 8, 4), (32, 1, 1, 4), (64, 6)])
@pytest.mark.parametrize("num_masked", [0, 5])
def test_batch_norm_keeps_its_digits_when_the_mean_is_far_from_zero(shape: tuple[int, ...], num_masked: int):
    values = far_from_zero((3, *shape))
    values[:, len(values[0]) - num_masked :] = -3e4  # what the mask leaves out
    real = values[:, : shape[0] - num_masked].astype(np.float64)
    axes = tuple(range(1, real.ndim - 1))
    mask = jnp.arange(shape[0]) < shape[0] - num_masked if num_masked else None
    of_one = jax.jit(lambda x: moments(x, mask))
    means, variances = jax.jit(jax.vmap(lambda x: moments(x, mask)))(values)
    np.testing.assert_allclose(means, real.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(variances, real.var(axes), rtol=1e-4)
    for values_of_one, variance in zip(values, real.var(axes), strict=True):
        np.testing.assert_allclose(of_one(values_of_one)[1], variance, rtol=1e-4)


def test_batch_norm_keeps_its_digits_when_the_first_rows_and_examples_are_unlike_the_others():
    values = far_from_zero((16, 12, 8, 3)).astype(np.float64)
    values[0], values[:, 0], values[:, :, -1] = 0, 0, 0  # a black picture; padding
    values = values.astype(np.float32)
    variance = jax.jit(lambda x: moments(x, None)[1])(values)
    np.testing.assert_allclose(variance, values.astype(np.float64).var((0, 1, 2)), rtol=1e-4)


def test_gradient_of_batch_norm_keeps_its_digits_when_the_mean_is_far_from_zero():
    values, weights = far_from_zero((16, 6, 5, 3)), np.random.default_rng(1).normal(size=(16, 6, 5, 3))
    module = build(Sequential((BatchNorm(), Flatten())), (6, 5, 3), 90, nnx.Rngs(0))
    graph, state = nnx.split(module)

    def loss(x: jax.Array) -> jax.Array:
        outputs = nnx.merge(graph, state, copy=True)(x).reshape(values.shape)
        return jnp.sum(outputs * weights.astype(np.float32))

    got = jax.jit(jax.grad(loss))(values)
    axes, exact = (0, 1, 2), values.astype(np.float64)
    spread = np.sqrt(exact.var(axes) + 1e-3)
    normal = (exact - exact.mean(axes)) / spread
    expected = (weights - weights.mean(axes) - normal * (weights * normal).mean(axes)) / spread
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_gradient_of_global_max_pool_goes_to_one_of_equals():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 3, (4, 5, 6, 2)), jnp.float32)
    module = build(Sequential((GlobalMaxPool(),)), (5, 6, 2), 2, nnx.Rngs(0))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(module(x) * jnp.array([[2.0, 3.0]]))))(images)
    np.testing.assert_array_equal(gradient.sum((1, 2)), np.tile([2.0, 3.0], (4, 1)))
    assert np.all(np.asarray(images)[np.asarray(gradient) > 0] == 2)
    assert np.count_nonzero(gradient) == 8


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [((3, 2), (2, 3)), ((2, 5), 2), (1, 3)])
def test_transposed_convolution_is_the_same_by_each_lowering(padding: Any, size: Any, strides: Any):
    layer = ConvTranspose(4, size, strides, padding)
    images, num_outputs = (
        jax.random.normal(jax.random.key(0), (2, 4, 5, 3)),
        int(np.prod(layer.output_shape((4, 5, 3)))),
    )
    modules = (
        build(Sequential((layer, Flatten())), (4, 5, 3), num_outputs, nnx.Rngs(0), lowering)
        for lowering in ("matrix", "xla")
    )
    by_product, by_lax = (jax.jit(module)(images) for module in modules)
    np.testing.assert_allclose(by_product, by_lax, rtol=1e-4, atol=1e-5)


OLD_NAMES = {"gelu": Activation("gelu_tanh"), "leaky_relu": Activation("leaky_relu", 0.01), "relu": "relu", None: None}


@pytest.mark.parametrize("name", OLD_NAMES)
def test_activation_of_a_record_of_before_means_what_it_did_then(name: str | None):
    layers = [{"kind": "Flatten"}, {"kind": "Dense", "units": 4, "activation": name, "use_bias": True}]
    layers += [{"kind": "Activation", "name": name}] if name else []
    spec = from_json(Model, {"kind": "Sequential", "layers": layers}, "model")
    assert spec.layers[1].activation == OLD_NAMES[name]
    if name:
        assert spec.layers[2] == Activation(name) if name == "relu" else spec.layers[2] == OLD_NAMES[name]
    assert through_json(spec) == spec  # and goes on meaning that
    assert Dense(4, "gelu").activation == "gelu"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Activation("relu", 0.1),
            r"activation slope: got 0\.1; expected none with relu: leaky_relu, elu, celu",
        ),
        (lambda: Activation("elu", -1.0), r"activation slope: got -1\.0; expected a number of 0 or more"),
        (lambda: Dense(3, kernel_initializer="he"), r"kernel_initializer: got 'he'; expected one of glorot_uniform"),
        (lambda: Conv(3, kernel_regularizer="l3"), r"kernel_regularizer: got 'l3'; expected one of l1, l2, l1_l2"),
        (lambda: l2(-1.0), r"regularizer l2: got -1\.0; expected a number of 0 or more"),
        (lambda: ZeroPad(-1), r"ZeroPad padding: got -1; expected pixels of 0 or more"),
        (lambda: Crop((1, 2, 3)), r"Crop cropping: got \(1, 2, 3\)"),
        (lambda: UpSample(2, "cubic"), r"UpSample interpolation: got 'cubic'; expected one of nearest, bilinear"),
        (lambda: ConvTranspose(3, padding=1), r'ConvTranspose padding: got 1; expected "valid" or "same"'),
        (lambda: PReLU((0,)), r"PReLU shared_axes: got \(0,\); expected axes from 1 to 3"),
        (lambda: GroupNorm(0), r"GroupNorm groups: got 0"),
        (lambda: Sequential((GroupNorm(3),)).rows((8, 8, 4)), r"layer 1 GroupNorm: got 4 channels; .* its 3 groups"),
        (lambda: Sequential((Crop(4),)).rows((8, 9, 4)), r"layer 1 Crop: got 8×9; expected more than the pixels"),
        (lambda: Sequential((PReLU((1, 2)),)).rows((8,)), r"layer 1 PReLU: got 8; expected as many axes"),
    ],
)
def test_layers_of_keras_refuse_what_does_not_fit(make: Any, message: str):
    with pytest.raises(InputError, match=message):
        make()


def test_matrix_and_xla_lowering_give_the_same_outputs():
    spec = Sequential(
        (
            Conv(4, padding="same", activation="relu"),
            MaxPool(3, 2, "same"),
            AveragePool(2, 1, 1),
            Conv(4, 2, groups=2),
            GlobalAveragePool(),
            Dense(),
        )
    )
    images = jax.random.normal(jax.random.key(0), (2, 9, 8, 2))
    matrix, xla = (build(spec, (9, 8, 2), 3, nnx.Rngs(0), lowering)(images) for lowering in ("matrix", "xla"))
    np.testing.assert_allclose(matrix, xla, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not ffi.is_available(), reason="needs a C++ compiler")
@pytest.mark.parametrize("cut", [None, 1, 3, *further([0, 2])])
@pytest.mark.parametrize(
    ("activation", "padding", "is_one_operation"),
    [(None, "valid", True), ("relu", "valid", True), ("tanh", "valid", True), ("gelu", "valid", False),
     ("relu", "same", False)],
)  # fmt: skip
def test_direct_lowering_pools_with_the_convolution_before_it_and_gives_the_same_outputs_and_gradients(
    activation: str | None, padding: str, is_one_operation: bool, cut: int | None
):
    layers = (Conv(16, activation=activation), MaxPool(padding=padding), Conv(32, 2), MaxPool(2), Flatten(), Dense())
    spec, images = Sequential(layers), jax.random.normal(jax.random.key(0), (2, 12, 13, 3))

    def loss(lowering: str) -> Any:
        module = build(spec, (12, 13, 3), 3, nnx.Rngs(0), lowering)  # type: ignore[arg-type]
        graph, params = nnx.split(module)

        def of(params: Any, images: jax.Array) -> jax.Array:
            for first, end in [(0, len(layers))] if cut is None else [(0, cut), (cut, len(layers))]:
                part = nnx.merge(graph, params)
                part.first, part.end = first, end
                images = part(images)
            return jnp.sum(images**2)

        return of, params

    (directly, params), (by_xla, _) = loss("direct"), loss("xla")
    program = str(jax.make_jaxpr(jax.grad(directly))(params, images))
    assert program.count("uint8[2,") == (is_one_operation and cut != 1) + (cut != 3)
    got, expected = (jax.jit(jax.grad(of, (0, 1)))(params, images) for of in (directly, by_xla))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)


def test_parameterless_layers_compute_what_they_say():
    image = jnp.arange(8.0).reshape(1, 2, 2, 2)
    spec = Sequential((Rescale(0.5, 1.0), Activation("relu"), GlobalAveragePool()))
    np.testing.assert_allclose(build(spec, (2, 2, 2), 2, nnx.Rngs(0))(image), [[2.5, 3.0]])
    flat = build(Sequential((Flatten(),)), (2, 2, 2), 8, nnx.Rngs(0))
    np.testing.assert_array_equal(flat(image), [np.arange(8)])

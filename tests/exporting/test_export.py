"""Exported models: what they answer without the engine, and what is refused."""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export as jax_export

import engine
from engine.commands import export as export_command
from engine.data.decoded.dataset import Splits
from engine.data.load import load_splits
from engine.exporting import export, writers
from engine.exporting.formats import find_format
from engine.host.clock import Clock
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.metrics.combination import METHODS, Combination, take_logarithms
from engine.models import (
    Activation,
    AveragePool,
    BatchNorm,
    ClassToken,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    DepthwiseConv,
    Dropout,
    DropPath,
    FirstToken,
    Flatten,
    GlobalMaxPool,
    GroupNorm,
    LayerNorm,
    LayerScale,
    MaxPool,
    Paths,
    PositionEmbedding,
    PReLU,
    SeparableConv,
    Sequential,
    SpatialDropout,
    Tokens,
    UpSample,
    ZeroPad,
    residual,
    squeeze_excite,
)
from engine.models import (
    Attention as Attend,
)
from engine.models.activations import ACTIVATIONS
from engine.networks.build import build
from engine.report.progress import Silent
from engine.runs.loop import train as train_run
from tests.commands.test_data import command, mistake
from tests.conftest import TINY, make_dataset

FORMATS = ("stablehlo", "onnx", "savedmodel")
BATCHES = (1, 3, 64)
EVERYTHING = Sequential(
    (
        Conv(4, 3, padding="same", activation="gelu"),
        MaxPool(3, strides=2, padding=1),
        BatchNorm(),
        Conv(8, 3, groups=4, strides=2, use_bias=False, activation="relu"),
        AveragePool(2, padding="same"),
        Dropout(0.2),
        Flatten(),
        Dense(16, activation="leaky_relu"),
        Dense(),
    )
)


class Attention(nnx.Module):
    """A user's class: one head of attention over the rows of a picture, with a norm, and no layer of ours."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs):
        width = input_shape[1] * input_shape[2]
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.queries, self.keys = nnx.Linear(width, 8, rngs=rngs), nnx.Linear(width, 8, rngs=rngs)
        self.dense = nnx.Linear(width, num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        rows = self.norm(x.reshape(x.shape[0], x.shape[1], -1))  # [b h w c] → [b h d]
        weights = jax.nn.softmax(jnp.einsum("bid,bjd->bij", self.queries(rows), self.keys(rows)))
        return self.dense(jnp.einsum("bij,bjd->bid", weights, rows).mean(axis=1))


class Sorted(nnx.Module):
    """A user's class with an operation that ONNX is not told of, or with a choice by the number of examples."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs, counts: bool = False):
        self.dense, self.counts = nnx.Linear(int(np.prod(input_shape)), num_outputs, rngs=rngs), counts

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(len(x) if self.counts else x.shape[0], -1)
        return self.dense(jnp.sort(x, axis=-1))


@pytest.fixture(scope="module")
def splits(cache_dir: Path) -> Splits:
    """Some of fashion_mnist_12k."""
    data = engine.DataConfig(split="train[:384]", test_split="test[:64]", validation_fraction=0, cache_dir=cache_dir)
    return load_splits(data, 0)


@pytest.fixture(scope="module")
def classifier_of(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Classifier]:
    """Models by name, each made once."""

    def of(data: Splits, model: object, options: engine.DataConfig | None, **train: object) -> Classifier:
        config = engine.RunConfig("r", model, options or engine.DataConfig(), engine.TrainConfig(0, 64, **train))  # type: ignore[arg-type]
        classifier = train_run(config, data, tmp_path_factory.mktemp("runs"), Clock(), Silent()).classifier
        if not isinstance(classifier, EnsembleClassifier) and not classifier.input_spec.whiten:
            draw = np.random.default_rng(0)  # not the zeros and ones that biases and batch statistics start with
            weights = jax.tree.map(
                lambda leaf: leaf + draw.uniform(0, 0.2, leaf.shape).astype(leaf.dtype),
                (classifier.params, classifier.model_state),
            )
            classifier = classifier.with_weights(classifier.record, *weights)
        return classifier

    def made(model: object = TINY, data: engine.DataConfig | None = None, **train: object) -> Classifier:
        return of(splits, model, data, **train)

    def on(images: np.ndarray, targets: np.ndarray, **train: object) -> Classifier:
        return of(Splits(engine.dataset(images, targets)), TINY, None, **train)

    stripes = make_dataset(96)
    floats = np.asarray(stripes.images[:], np.float32) / 255
    makers: dict[str, Callable[[], Classifier]] = {
        "everything": lambda: made(EVERYTHING),
        "whitened": lambda: made(data=engine.DataConfig(standardize="whiten")),
        "of dataset": lambda: made(data=engine.DataConfig(standardize="dataset")),
        "of example": lambda: made(data=engine.DataConfig(standardize="example")),
        "bfloat16": lambda: made(EVERYTHING, precision="bfloat16"),
        "custom": lambda: made(engine.custom(Attention)),
        "sorted": lambda: made(engine.custom(Sorted)),
        "counting": lambda: made(engine.custom(Sorted, counts=True)),
        "ensemble": lambda: made(members=3),
        "floats": lambda: on(floats, stripes.labels[:]),
        "binary": lambda: on(stripes.images[:], stripes.labels[:] % 2, loss="binary_cross_entropy"),
        "regression": lambda: on(stripes.images[:], floats.mean((1, 2)), loss="mean_squared_error"),
        "regressions": lambda: on(stripes.images[:], floats.mean((1, 2)), loss="mean_squared_error", members=2),
    }
    return functools.cache(lambda name: makers[name]())


def inputs_of(classifier: Classifier, splits: Splits, count: int = 64) -> np.ndarray:
    """Test images that fit a classifier."""
    if classifier.input_spec.shape == (28, 28, 1):
        assert splits.test is not None
        return splits.test.images[:count]
    images = np.asarray(make_dataset(count, 5).images[:])
    return images if classifier.input_spec.dtype == "uint8" else images.astype(np.float32) / 255


def skip_without(format: str) -> None:
    """Skips a test whose format needs packages that are not there."""
    for package in {"onnx": ("onnx", "onnxruntime"), "savedmodel": ("tensorflow",)}.get(format, ()):
        pytest.importorskip(package, reason=f"needs the extra {format}: pip install 'engine-jax[{format}]'")


def answers(lines: list[str], inputs: np.ndarray) -> np.ndarray:
    """What the lines that a user is shown give."""
    names = {"images": inputs, "inputs": inputs}
    exec("\n".join(lines), names)
    return np.asarray(names.get("probabilities", names.get("outputs")))


def exported(classifier: Classifier, path: Path, format: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function of an exported model, called as its lines of use say."""
    engine.export(classifier, path, format)  # type: ignore[arg-type]
    lines = export.usage(export.description(classifier, format, path.name), str(path))  # type: ignore[arg-type]
    return lambda inputs: answers(lines, inputs)


# The same answers


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name",
    ["everything", "whitened", "of dataset", "of example", "custom", "ensemble", "floats", "binary", "regression"],
)
def test_exported_model_gives_the_classifier_s_outputs_for_any_number_of_images(
    name, format, classifier_of, splits, tmp_path
):
    skip_without(format)
    classifier = classifier_of(name)
    call, inputs = exported(classifier, tmp_path / "a model", format), inputs_of(classifier, splits)
    expected = classifier.outputs(inputs)
    for count in BATCHES:
        np.testing.assert_allclose(call(inputs[:count]), expected[:count], rtol=1e-3, atol=1e-6)  # of exponentials


@pytest.mark.parametrize("format", FORMATS)
def test_exported_bfloat16_model_gives_the_classifier_s_outputs(format, classifier_of, splits, tmp_path):
    skip_without(format)
    classifier = classifier_of("bfloat16")
    call, images = exported(classifier, tmp_path / "m", format), inputs_of(classifier, splits)
    expected = classifier.outputs(images)
    for count in BATCHES:
        # XLA may keep what lies between in float32; ONNX is float32 throughout.
        np.testing.assert_allclose(call(images[:count]), expected[:count], atol=0.02)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("method", METHODS)
def test_exported_ensemble_combines_and_scales_as_the_classifier(method, format, classifier_of, splits, tmp_path):
    skip_without(format)
    members = classifier_of("ensemble").members
    weights = (0.7, 0.0, 0.3) if method in ("weighted", "greedy") else (1 / 3, 1 / 3, 1 / 3)
    classifier = EnsembleClassifier(members, Combination(method, weights, 1.7))
    call, images = exported(classifier, tmp_path / "m", format), inputs_of(classifier, splits)
    for count in BATCHES:
        np.testing.assert_allclose(call(images[:count]), classifier.outputs(images)[:count], rtol=1e-4, atol=1e-6)


def test_member_that_does_not_count_is_left_out(classifier_of, tmp_path):
    members = classifier_of("ensemble").members
    sizes = []
    for number, weights in enumerate([(1.0, 0.0, 0.0), (0.5, 0.5, 0.0)]):
        path = engine.export(EnsembleClassifier(members, Combination("mean", weights)), tmp_path / str(number))
        sizes.append((path / writers.MODULE_FILE).stat().st_size)
    assert sizes[1] > 1.5 * sizes[0]


def test_ensembles_of_regressions_and_of_several_architectures_are_exported(classifier_of, splits, tmp_path):
    joined = engine.join([classifier_of("everything"), classifier_of("ensemble").members[0]], "logits")
    for number, classifier in enumerate((classifier_of("regressions"), joined)):
        call, images = exported(classifier, tmp_path / str(number), "stablehlo"), inputs_of(classifier, splits)
        np.testing.assert_allclose(call(images), classifier.outputs(images), rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    method=st.sampled_from(sorted(METHODS)),
    shape=st.sampled_from([(1, 5, 2), (2, 1, 3), (5, 6, 7)]),  # few, which XLA compiles once
    temperature=st.sampled_from([1.0, 0.4, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_combination_in_the_graph_is_that_of_numpy(method, shape, temperature, seed):
    draw = np.random.default_rng(seed)
    scores = np.exp(draw.normal(0, 6, shape))
    outputs = (scores / scores.sum(-1, keepdims=True)).astype(np.float32)
    outputs[draw.random(shape) < 0.1] = 0
    outputs[..., 0] += outputs.sum(-1) == 0
    weights = draw.dirichlet(np.ones(shape[0]))
    combination = Combination(method, tuple(weights.tolist()), temperature)
    expected = combination.combine(np.log(np.maximum(outputs, np.finfo(np.float32).tiny)))
    found = combination.combine([take_logarithms(jnp.asarray(each), jnp) for each in outputs], jnp)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


# Without the engine

ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("engine", "flax", "optax", "orbax", "PIL"):
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
import json
import numpy as np
images = np.load("images.npy")
exec("\\n".join(json.load(open("m.stablehlo/model.json"))["usage"]))
np.save("answer.npy", probabilities)
assert not [name for name in sys.modules if name.split(".")[0] in ("engine", "flax", "optax", "orbax", "PIL")]
"""


def test_stablehlo_runs_with_jax_alone_in_a_process_that_cannot_import_the_engine(classifier_of, splits, tmp_path):
    classifier = classifier_of("everything")
    images = inputs_of(classifier, splits)
    engine.export(classifier, tmp_path / "m.stablehlo")
    np.save(tmp_path / "images.npy", images)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=tmp_path, env=environment, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), classifier.outputs(images), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["everything", "bfloat16", "whitened", "ensemble"])
def test_stablehlo_is_for_all_platforms_any_batch_and_calls_nothing_of_one_of_them(name, classifier_of, tmp_path):
    path = engine.export(classifier_of(name), tmp_path / "m")
    module = jax_export.deserialize(bytearray((path / writers.MODULE_FILE).read_bytes()))
    assert module.platforms == ("cpu", "cuda", "rocm", "tpu")
    assert module.disabled_safety_checks == ()
    assert [str(aval) for aval in module.in_avals] == ["uint8[b,28,28,1]"]
    assert [str(aval) for aval in module.out_avals] == ["float32[b,10]"]
    called = set(re.findall(r"custom_call @([\w.]+)", str(module.mlir_module())))
    assert called <= {"shape_assertion"}  # jax's own, that b is at least 1


def test_description_says_what_goes_in_and_what_comes_out(classifier_of, tmp_path):
    classifier = classifier_of("everything")
    for format, file in (("stablehlo", "model.json"), ("savedmodel", "assets.extra/model.json")):
        if format == "savedmodel":
            continue
        about = json.loads((engine.export(classifier, tmp_path / format, format) / file).read_text())
        assert about["class_names"] == list(classifier.class_names)
        assert about["input"] == {"name": "images", "dtype": "uint8", "shape": ["b", 28, 28, 1]}
        assert about["output"] == {"name": "probabilities", "dtype": "float32", "shape": ["b", 10]}
        assert about["preprocessing_inside"]["scale"] == 1 / 255
        assert about["versions"]["jax"] == jax.__version__


def test_onnx_file_describes_itself(classifier_of, tmp_path):
    skip_without("onnx")
    import onnxruntime

    classifier = classifier_of("everything")
    session = onnxruntime.InferenceSession(engine.export(classifier, tmp_path / "m.onnx", "onnx"))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list(classifier.class_names)
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["b", 28, 28, 1])
    assert (answer.name, answer.type, answer.shape) == ("probabilities", "tensor(float)", ["b", 10])


def test_onnx_pools_and_convolves_by_onnx_s_own_operations(classifier_of, tmp_path):
    skip_without("onnx")
    import onnx

    graph = onnx.load(engine.export(classifier_of("everything"), tmp_path / "m.onnx", "onnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert [kinds.count(kind) for kind in ("Conv", "MaxPool", "AveragePool", "MatMul")] == [2, 1, 1, 2]
    assert "Expand" not in kinds  # broadcasting is left to ONNX
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    assert kernels <= {constant.name for constant in graph.initializer}


# Operations in ONNX, against JAX

OPERATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    **{name: getattr(jax.nn, name) for name in (
        "relu", "relu6", "gelu", "silu", "sigmoid", "softplus", "elu", "selu", "celu", "leaky_relu", "softmax",
        "log_softmax", "log_sigmoid", "hard_swish", "hard_tanh", "soft_sign", "mish",
    )},
    "exact gelu": lambda x: jax.nn.gelu(x, approximate=False),
    **{name: getattr(jnp, name) for name in (
        "abs", "ceil", "floor", "sign", "sin", "cos", "tanh", "exp", "expm1", "square", "negative", "isfinite",
    )},
    "powers": lambda x: x**3 + jnp.abs(x) ** 0.5 + jnp.sqrt(jnp.abs(x)) + jax.lax.rsqrt(jnp.abs(x) + 1),
    "logarithms": lambda x: jnp.log(jnp.abs(x) + 1) + jnp.log1p(jnp.abs(x)),
    "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    "where": lambda x: jnp.where((x > 0) & ~(x > 1) | (x != x), x, 2 * x),
    "comparisons": lambda x: (x < 0) + 2.0 * (x <= 0) + 4.0 * (x >= 0.5) + 8.0 * (x == x),
    "reductions": lambda x: jnp.stack([x.sum(2), x.max(2), x.min(2), x.prod(2), x.mean(2), x.std(2)], axis=-1),
    "argmax": lambda x: jax.nn.one_hot(x.argmax(-1), x.shape[-1]) + x.argmin(1, keepdims=True),
    "shapes": lambda x: jnp.squeeze(jnp.swapaxes(x, 1, 2)[:, None], 1).reshape(x.shape[0], -1),
    "cuts": lambda x: jnp.concatenate([x[:, 1:], x[:, ::-1], x[:, 1:2], x[:, ::2], jnp.flip(x, (1, 2))], axis=1),
    "choices": lambda x: x[:, 0] + x[:, -1] * x[:, :, 2:3].sum(1) + x[:, jnp.array([2, 0])].sum(1),
    "repetitions": lambda x: jnp.tile(x, (1, 2, 1)) + jnp.repeat(x, 2, 1) + jnp.cumsum(jnp.concatenate([x, x], 1), 2),
    "padding": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=1.5),
    "broadcasts": lambda x: jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape).sum(1) + jnp.arange(6.0)[None],
    "per example": lambda x: x + jnp.ones((x.shape[0], 1, 1)) * jnp.zeros((x.shape[0], 4, 6)),
    "products": lambda x: jnp.einsum("bij,bkj->bik", x, x) @ jnp.arange(8.0).reshape(4, 2),
    "product of the first axis": lambda x: jnp.einsum("bij,ik->bkj", x, jnp.arange(12.0).reshape(4, 3)),
    "function of its own": jax.jit(lambda x: jax.checkpoint(lambda y: jnp.sin(y))(x) + 1),
}  # fmt: skip


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_in_onnx_gives_what_it_gives_in_jax(name):
    skip_without("onnx")
    import onnxruntime

    from engine.exporting.onnx import onnx_model

    def function(x: jax.Array) -> jax.Array:
        with jax.numpy_rank_promotion("allow"):
            return OPERATIONS[name](x).astype(jnp.float32)

    model = onnx_model(function, (4, 6), "float32", ("x", "y"), "t")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 3):
        x = np.random.default_rng(count).normal(0, 2, (count, 4, 6)).astype(np.float32)
        expected = np.asarray(function(x))
        within = 2e-6 * max(1, abs(expected).max())  # sums of large terms may be small
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5, atol=within)


# Every kind of layer that runs a forward pass of its own, and every activation, in two models.
ALL_LAYERS = Sequential(
    (
        ZeroPad(((1, 0), (0, 2))), Conv(4, 2), DepthwiseConv(2, multiplier=2), PReLU((1, 2)), LayerNorm(),
        UpSample(2, "bilinear"),
        SeparableConv(4, 3, 2, "same", kernel_regularizer="l2"), GroupNorm(2), UpSample((1, 2)), SpatialDropout(0.5),
        ConvTranspose(3, 3, 2, "same"), ConvTranspose(4, (2, 3), (3, 2)), Crop((2, 1)), AveragePool(2), PReLU(),
        BatchNorm(), GlobalMaxPool(), LayerNorm(), Dense(),
    )
)  # fmt: skip
ALL_ACTIVATIONS = Sequential(
    (Conv(6, 3), *map(Activation, ACTIVATIONS), Activation("leaky_relu", 0.3), Flatten(), Dense(5, "celu"), Dense())
)


ALL_BLOCKS = Sequential(
    (
        Conv(6, 3, 1, ((1, 1), (0, 1))), residual((BatchNorm(use_scale=False), LayerScale(0.5), DropPath(0.1))),
        squeeze_excite(6, 2),
        Paths(((MaxPool(2, 2, ((0, 1), (0, 1))),), (AveragePool(2, 2, ((0, 1), (0, 1))),)), "concat"),
        Paths(((), (GlobalMaxPool(keep_axes=True),)), "multiply"), Tokens(), ClassToken(), PositionEmbedding(),
        residual((LayerNorm(), Attend(3)), activation=None), residual((Dense(5, "gelu"), Dense(12)), activation=None),
        FirstToken(), Dense(),
    )
)  # fmt: skip


@pytest.mark.parametrize("spec", [ALL_LAYERS, ALL_ACTIVATIONS, ALL_BLOCKS], ids=["layers", "activations", "blocks"])
def test_every_layer_is_exported(spec):
    skip_without("onnx")
    import onnxruntime

    from engine.exporting.onnx import onnx_model

    shape = (7, 6, 3)
    module = build(spec, shape, 3, nnx.Rngs(0))
    module.eval()
    graph, state = nnx.split(module)
    function = jax.jit(lambda x: nnx.merge(graph, state)(x))
    images = np.random.default_rng(0).normal(0, 1, (3, *shape)).astype(np.float32)
    expected = function(images)
    model = onnx_model(function, shape, "float32", ("x", "y"), "t")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": images})[0], expected, rtol=1e-4, atol=1e-5)
    inputs = jax.ShapeDtypeStruct((*jax_export.symbolic_shape("b"), *shape), jnp.float32)
    exported = jax_export.deserialize(jax_export.export(function)(inputs).serialize())
    np.testing.assert_allclose(exported.call(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [lambda x: jnp.sort(x, -1), lambda x: jax.lax.scan(lambda c, y: (c + y, y), x[:, 0], x.T)[0]],
    ids=["sort", "scan"],
)
def test_operation_that_is_not_known_is_named(function):
    skip_without("onnx")
    from engine.exporting.onnx import onnx_model

    with pytest.raises(NotImplementedError, match=r"the operation (sort|scan)"):
        onnx_model(function, (4,), "float32", ("x", "y"), "t")


# Refused, and nothing lost


def test_class_that_cannot_be_expressed_is_refused_in_words(classifier_of, tmp_path):
    with pytest.raises(engine.InputError, match=r"model: got r \(.*\); expected a model .* any number.*x.shape\[0\]"):
        engine.export(classifier_of("counting"), tmp_path / "m")
    skip_without("onnx")
    with pytest.raises(engine.InputError, match=r"NotImplementedError: the operation sort\); expected .* in onnx"):
        engine.export(classifier_of("sorted"), tmp_path / "m", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_that_answers_otherwise_is_refused(classifier_of, tmp_path, monkeypatch):
    read = writers.READERS["stablehlo"]

    def reads_wrong(*arguments):
        return lambda inputs: read(*arguments)(inputs)[:, ::-1]

    monkeypatch.setitem(writers.READERS, "stablehlo", reads_wrong)
    with pytest.raises(engine.InputError, match=r"outputs that differ by"):
        engine.export(classifier_of("everything"), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_if_asked_and_only_an_export(classifier_of, tmp_path):
    first, second = classifier_of("everything"), classifier_of("ensemble")
    path = engine.export(first, tmp_path / "m")
    with pytest.raises(engine.InputError, match=r"out: got .*m, which exists; expected a new name. Add --overwrite"):
        engine.export(second, path)
    engine.export(second, path, overwrite=True)
    assert json.loads((path / "model.json").read_text())["members"] == 3
    assert sorted(each.name for each in path.iterdir()) == ["model.jaxexport", "model.json"]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "model.json").write_text('{"by": "another"}')
    (tmp_path / "file").write_text("precious")
    for name in ("precious", "file"):
        with pytest.raises(engine.InputError, match=r"something else; expected an earlier directory of this command"):
            engine.export(first, tmp_path / name, overwrite=True)
    with pytest.raises(engine.InputError, match=r"something else; expected an earlier file"):
        engine.export(first, tmp_path / "precious", "onnx", overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "m", "precious"]


def test_packed_run_is_exported_by_its_path_and_what_is_no_model_refused(classifier_of, tmp_path):
    packed = (Path(__file__).parents[1] / "checkpoints") / "version_3.engine"
    outputs = writers.READERS["stablehlo"](engine.export(packed, tmp_path / "model"), {})
    images = np.random.default_rng(0).integers(0, 256, (3, *engine.restore(packed).input_spec.shape), np.uint8)
    np.testing.assert_allclose(outputs(images), engine.restore(packed).outputs(images), atol=1e-5)
    with pytest.raises(engine.InputError, match="classifier: got int; expected a classifier, or the directory"):
        engine.export(3, tmp_path / "other")  # type: ignore[arg-type]
    with pytest.raises(engine.InputError, match="path: got NoneType; expected where to write it"):
        engine.export(classifier_of("everything"), None)  # type: ignore[arg-type]


def test_failure_leaves_what_was_there(classifier_of, tmp_path, monkeypatch):
    path = engine.export(classifier_of("everything"), tmp_path / "m")
    before = (path / writers.MODULE_FILE).read_bytes()

    def fails(classifier, scratch, about):
        scratch.mkdir()
        (scratch / "half").write_text("x")
        raise OSError(28, "No space left on device", str(scratch))

    monkeypatch.setitem(writers.WRITERS, "stablehlo", fails)
    with pytest.raises(engine.InputError, match=r"out: got .*m \(No space left on device\); expected a place that can"):
        engine.export(classifier_of("everything"), path, overwrite=True)
    assert (path / writers.MODULE_FILE).read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["m"]


def test_missing_extra_is_named(classifier_of, tmp_path, monkeypatch):
    for package, format in (("onnx", "onnx"), ("tensorflow", "savedmodel")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"{package}.helper", raising=False)
        with pytest.raises(engine.InputError, match=rf"format: got {format} without .*'engine-jax\[{format}\]'"):
            engine.export(classifier_of("everything"), tmp_path / "m", format)  # type: ignore[arg-type]
    with pytest.raises(engine.InputError, match=r"format: got 'tflite'; expected one of stablehlo, onnx, savedmodel"):
        engine.export(classifier_of("everything"), tmp_path / "m", "tflite")  # type: ignore[arg-type]


# The command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """An untrained pair of models of fashion_mnist_12k."""
    data = engine.DataConfig(split="train[:256]", test_split="test[:64]", cache_dir=cache_dir)
    config = engine.RunConfig("pair", TINY, data, engine.TrainConfig(epochs=0, members=2))
    directory = tmp_path_factory.mktemp("runs") / "pair"
    engine.run(config, directory, reporter=Silent())
    return directory


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch):
    """Keeps the settings of a command's own process out of the tests'."""
    monkeypatch.setattr(export_command, "set_up_process", lambda *arguments: None)


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("format", FORMATS)
def test_command_exports_all_members_or_one_and_shows_how_to_ask(format, capsys, run, in_tmp, splits):
    skip_without(format)
    images = splits.test.images[:5]  # type: ignore[union-attr]
    shown = command(capsys, "export", run, "--format", format)
    assert re.match(rf"pair\.{format}: \d+\.\d\d MB, step 0", shown)
    found = answers([line.strip() for line in shown.splitlines()[2:]], images)
    np.testing.assert_allclose(found, engine.restore(run).outputs(images), rtol=1e-4, atol=1e-6)
    shown = command(capsys, "export", run, "--format", format, "--out", "one", "--member", "1", "--step", "last")
    found = answers([line.strip() for line in shown.splitlines()[2:]], images)
    np.testing.assert_allclose(found, engine.restore(run, member=1).outputs(images), rtol=1e-4, atol=1e-6)
    assert sorted(path.name for path in in_tmp.iterdir()) == sorted(["one", f"pair.{format}"])


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--out", "there"), r"out: got there, which exists; expected a new name. Add --overwrite"),
        (("--out", "there", "--overwrite"), r"out: got there, something else; expected an earlier directory"),
        (("--out", "no/m"), r"out: got no/m; expected a directory to make in a directory that exists.*mkdir -p no"),
        (("--member", "7"), r"member: got 7; expected a member of the run: 0 to 1"),
        (("--step", "9"), r"step: got 9; expected one of"),
    ],
)
def test_mistake_is_told_in_one_line(arguments, expected, capsys, run, in_tmp):
    Path("there").mkdir()
    assert re.search(expected, mistake(capsys, "export", run, *arguments))
    assert [path.name for path in in_tmp.iterdir()] == ["there"]


@pytest.mark.usefixtures("same_process")
def test_class_of_one_s_own_is_exported_only_if_it_is_trusted(capsys, in_tmp, splits, cache_dir):
    data = engine.DataConfig(split="train[:256]", test_split=None, validation_fraction=0, cache_dir=cache_dir)
    config = engine.RunConfig("own", engine.custom(Attention), data, engine.TrainConfig(epochs=0))
    engine.run(config, Path("own"), reporter=Silent())
    assert "trust" in mistake(capsys, "export", "own")
    shown = command(capsys, "export", "own", "--trust")
    images = splits.test.images[:5]
    found = answers([line.strip() for line in shown.splitlines()[2:]], images)
    np.testing.assert_allclose(found, engine.restore("own", trust=True).outputs(images), rtol=1e-4, atol=1e-6)
    command(capsys, "pack", "own")
    assert "own.stablehlo: " in command(capsys, "export", "own.engine", "--trust", "--overwrite")


def test_the_suffix_of_a_path_decides_the_format():
    assert [find_format(Path(name)) for name in ("m.onnx", "a/m.savedmodel", "m.stablehlo", "m")] == [
        "onnx", "savedmodel", "stablehlo", "stablehlo",
    ]  # fmt: skip
    assert find_format(None) == "stablehlo"

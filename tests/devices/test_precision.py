"""Precision: what a network computes in, with weights that stay float32."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from ml_dtypes import bfloat16

import engine
from engine.config import Lowering, Precision, TrainConfig
from engine.config.contract import InputSpec
from engine.data.decoded.dataset import Splits
from engine.devices.executables import compiler_options
from engine.devices.precision import check_precision
from engine.metrics.sums import make_scoring
from engine.models import Activation, BatchNorm, Conv, Dense, Flatten, GlobalAveragePool, MaxPool, Sequential, custom
from engine.networks.network import network_of
from engine.training.state import TrainState, init_state
from engine.training.step import Batch, Objective, eval_step, train_step
from tests.conftest import make_dataset
from tests.runs.test_loop import start

pytestmark = pytest.mark.gpu

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
LOWERINGS: tuple[Lowering, ...] = ("xla", "matrix")
NET = Sequential((Conv(4, 3), BatchNorm(), MaxPool(2), Flatten(), Dense(8, activation="relu"), Dense()))
CPU = jax.devices("cpu")[0]


class CastingNet(nnx.Module):
    """A user's model that multiplies by arrays of its own and keeps a running mean in whatever type comes."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs):
        self.matrix = nnx.Param(jax.random.normal(rngs.params(), (int(np.prod(input_shape)), num_outputs)))
        self.mean = nnx.BatchStat(jnp.zeros(num_outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = x.reshape(len(x), -1) @ self.matrix[...]
        self.mean[...] = outputs.mean(0)
        return outputs


def task_and_state(precision: Precision, lowering: Lowering = "xla", model=NET) -> tuple[Objective, TrainState]:
    spec = InputSpec((8, 8, 1), "uint8")
    network, init = network_of(model, spec.shape, 3, lowering, precision=precision)
    chain = optax.adam(1e-2)
    scoring = make_scoring(TrainConfig(), 3, task="classes")
    objective = Objective(network, scoring, 0.0, chain, spec)
    return objective, jax.jit(lambda seed: init_state(*init(seed), chain))(jnp.uint32(0))


def a_batch(num: int = 16) -> Batch:
    data = make_dataset(num)
    return Batch(jnp.asarray(data.images), jnp.asarray(data.labels), jnp.arange(num) < num - 3)


def products(jaxpr) -> list:
    """The equations of all matrix products and convolutions, inner ones too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found.append(equation)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            found += products(inner.jaxpr) if hasattr(inner, "jaxpr") else []
    return found


def traced_step(precision: Precision, lowering: Lowering) -> list:
    objective, state = task_and_state(precision, lowering)
    step = jax.make_jaxpr(lambda state, batch, key: train_step(objective, state, Batch(*batch), key))
    batch = a_batch()
    return products(step(state, (batch.inputs, batch.targets, batch.mask), jax.random.key(0)).jaxpr)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize(
    ("precision", "wanted"), [("float32", lax.Precision.HIGHEST), ("tf32", lax.Precision.HIGH)]
)  # fmt: skip
def test_every_product_of_a_step_asks_for_its_precision_in_float32(
    precision: Precision, wanted: lax.Precision, lowering: Lowering
):
    found = traced_step(precision, lowering)
    assert len(found) >= 8  # three layers: forward, kernel gradient and, but for the first, input gradient
    for equation in found:
        assert equation.params["precision"] == (wanted, wanted), equation
        assert {str(operand.aval.dtype) for operand in equation.invars} == {"float32"}


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_every_product_of_a_step_takes_bfloat16_operands_when_that_is_the_precision(lowering: Lowering):
    operands = [{str(operand.aval.dtype) for operand in found.invars} for found in traced_step("bfloat16", lowering)]
    assert operands.count({"bfloat16", "float32"}) == 2  # the gradients of the last layer, whose outputs are float32
    assert operands.count({"bfloat16"}) == len(operands) - 2 >= 6


@pytest.mark.parametrize("model", [NET, custom(CastingNet)], ids=["specs", "custom"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_statistics_and_metrics_stay_float32(precision: Precision, model):
    objective, state = task_and_state(precision, model=model)
    after, metrics = jax.eval_shape(
        lambda state, key: train_step(objective, state, a_batch(), key), state, jax.random.key(0)
    )
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((after.params, after.model_state))} == {"float32"}
    evaluated = jax.eval_shape(
        lambda *model: eval_step(objective, *model, a_batch())[0], after.params, after.model_state
    )
    assert metrics.sums["loss"].dtype == evaluated.sums["loss"].dtype == jnp.float32


@settings(deadline=None, max_examples=20)
@given(
    num=st.integers(1, 9), inputs=st.integers(1, 40), outputs=st.integers(1, 12), seed=st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_a_dense_layer_in_bfloat16_is_the_float64_product_of_rounded_operands(
    num: int, inputs: int, outputs: int, seed: int
):
    draw = np.random.default_rng(seed)
    network, init = network_of(Sequential((Dense(),)), (inputs,), outputs, "xla", precision="bfloat16")
    params, model_state = jax.eval_shape(init, jnp.uint32(seed))
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32), params)
    x = draw.normal(size=(num, inputs)).astype(np.float32)
    found, _ = network.apply(params, model_state, jnp.asarray(x), None, None)
    bias, kernel = (np.asarray(leaf) for leaf in jax.tree.leaves(params))
    x, kernel, bias = (array.astype(bfloat16).astype(np.float64) for array in (x, kernel, bias))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, x @ kernel + bias, rtol=1e-5, atol=1e-5 * max(1, np.abs(x @ kernel).max()))


def test_outputs_are_not_rounded_to_bfloat16():
    objective, state = task_and_state("bfloat16")
    inputs = jax.random.uniform(jax.random.key(1), (64, 8, 8, 1))
    outputs, _ = objective.network.apply(state.params, state.model_state, inputs, None, None)
    assert np.mean(np.asarray(outputs) == np.asarray(outputs.astype(jnp.bfloat16), np.float32)) < 0.1


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_bfloat16_is_near_float32_and_not_the_same(lowering: Lowering):
    steps = {}
    for precision in ("float32", "bfloat16"):
        objective, state = task_and_state(precision, lowering)
        steps[precision] = jax.jit(
            lambda state, key, objective=objective: train_step(objective, state, a_batch(), key)[1].sums["loss"]
        )(state, jax.random.key(0))
    assert steps["float32"] != steps["bfloat16"]
    np.testing.assert_allclose(steps["bfloat16"], steps["float32"], rtol=2e-2)


def test_whitening_is_computed_before_rounding():
    """Whitening blows up small differences of large numbers, which bfloat16 would lose."""
    network, init = network_of(Sequential((Dense(),)), (4,), 2, "xla", whiten=True, precision="bfloat16")
    params, (_, inner) = init(jnp.uint32(0))
    fitted = ((jnp.full(4, 1000.0), jnp.eye(4) * 100), inner)
    x = 1000 + jnp.asarray([[0.01, 0.02, 0.03, 0.04]])
    plain, _ = network_of(Sequential((Dense(),)), (4,), 2, "xla", precision="bfloat16")
    expected, _ = plain.apply(params, inner, (x - 1000) * 100, None, None)
    found, _ = network.apply(params, fitted, x, None, None)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_model_trained_in_tf32_answers_on_a_cpu_as_in_float32():
    inputs, answers = jax.random.uniform(jax.random.key(1), (5, 8, 8, 1)), []
    for precision in ("float32", "tf32"):
        with jax.default_device(CPU):
            (objective, state), given = task_and_state(precision), jax.device_put(inputs, CPU)
            outputs, _ = objective.network.apply(state.params, state.model_state, given, None, None)
        answers.append(np.asarray(outputs))
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    ("device", "allowed"),
    [
        (CPU, ("float32", "bfloat16")),
        (SimpleNamespace(platform="tpu", device_kind="TPU v4"), ("float32", "bfloat16")),
        (SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", compute_capability="9.0"), PRECISIONS),
        (SimpleNamespace(platform="gpu", device_kind="NVIDIA GB200", compute_capability="10.0"), PRECISIONS),
        (SimpleNamespace(platform="gpu", device_kind="Tesla T4", compute_capability="7.5"), ("float32",)),
        (SimpleNamespace(platform="gpu", device_kind="MI300X", compute_capability="gfx942"), ("float32", "bfloat16")),
    ],
    ids=lambda value: getattr(value, "device_kind", ""),
)
def test_a_precision_the_device_lacks_is_refused_with_those_it_has(device, allowed: tuple[Precision, ...]):
    for precision in allowed:
        check_precision(precision, device)
    for precision in set(PRECISIONS) - set(allowed):
        rule = f"train.precision: got {precision}; expected one of {', '.join(allowed)}, which {device.device_kind} has"
        with pytest.raises(engine.InputError, match=rule):
            check_precision(precision, device)


def test_an_unknown_precision_is_refused():
    with pytest.raises(engine.InputError, match=r"train\.precision: got 'float16'"):
        engine.TrainConfig(precision="float16")  # type: ignore[arg-type]


def test_a_run_in_bfloat16_learns_is_recorded_and_opens_as_it_was(
    splits: Splits, tmp_path: Path, tiny_config: engine.RunConfig
):
    train = replace(tiny_config.train, epochs=8, precision="bfloat16")
    rounded = start(replace(tiny_config, train=train), splits, tmp_path / "bfloat16")
    exact = start(replace(tiny_config, train=replace(train, precision="float32")), splits, tmp_path / "float32")
    assert splits.test is not None
    assert rounded.history[-1]["loss"] != exact.history[-1]["loss"]
    np.testing.assert_allclose(rounded.history[-1]["loss"], exact.history[-1]["loss"], rtol=0.1)
    classifier = engine.restore(tmp_path / "bfloat16")
    assert classifier.record.config.train.precision == "bfloat16"
    np.testing.assert_array_equal(
        classifier.outputs(splits.test.images), rounded.classifier.outputs(splits.test.images)
    )


def test_a_run_in_a_precision_the_device_lacks_is_refused_before_it_writes(
    splits: Splits, tmp_path: Path, tiny_config: engine.RunConfig, monkeypatch: pytest.MonkeyPatch
):
    of_a_cpu = lambda device: ("float32", "bfloat16")  # noqa: E731
    monkeypatch.setattr("engine.devices.precision._precisions", of_a_cpu)  # a GPU has more
    config = replace(tiny_config, train=replace(tiny_config.train, precision="tf32"))
    with pytest.raises(engine.InputError, match=r"train\.precision: got tf32"):
        start(config, splits, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*"))


def test_bfloat16_is_finite_after_convolutions_of_many_channels():
    """YNNPACK of jax 0.11 and 0.12 gave NaN for such a net."""
    conv, relu = Conv(256, 3, padding="same", use_bias=False), Activation("relu")
    spec = Sequential((conv, MaxPool(2), relu, conv, relu, GlobalAveragePool(), Dense()))
    network, init = network_of(spec, (6, 6, 256), 10, "xla", None, "bfloat16")
    images = jnp.asarray(np.random.default_rng(0).normal(size=(16, 6, 6, 256)), jnp.float32)
    options = compiler_options()
    outputs = jax.jit(lambda *of: network.apply(*of, None, None)[0], compiler_options=options)(
        *init(np.uint32(0)), images
    )
    assert jnp.isfinite(outputs).all()

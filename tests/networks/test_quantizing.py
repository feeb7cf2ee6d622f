"""Networks in int8: which layers have that form, and numbers near those of float32."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.config.contract import InputSpec
from engine.models import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Sequential,
)
from engine.models.blocks import residual
from engine.networks.build import SequentialModule, build
from engine.networks.network import normalize
from engine.networks.quantizing import Code, Part, find_extremes, quantize_parts, split_parts
from tests.further import further

SPEC = InputSpec((12, 13, 3), scale=1 / 255, mean=(0.4, 0.5, 0.3), std=(0.2, 0.25, 0.3))
NETS: dict[str, tuple[tuple[Layer, ...], tuple[str, ...]]] = {
    "convnet": (
        (Conv(20, 3, padding="same", activation="relu"), MaxPool(2), Conv(24, 3, padding="same", activation="relu6"),
         MaxPool(2, 1), Dropout(0.3), Flatten(), Dense(40, activation="relu"), Dense()),
        ("conv_1", "conv_2", "dense_1"),
    ),
    "batch norms": (
        (Conv(8, 3, use_bias=False), BatchNorm(), Activation("relu"), MaxPool(2), Conv(16, 2, activation="silu"),
         BatchNorm(), Conv(16, 1), MaxPool(2), GlobalAveragePool(), Dense()),
        ("conv_1", "conv_2", "conv_3"),
    ),
    "mixed": (
        (BatchNorm(), Conv(8, 3), DepthwiseConv(3, activation="relu"), Conv(8, 3, padding="same", activation="relu"),
         residual((Conv(8, 3, 1, "same"),), activation="relu"), Conv(4, 3, dilation=2), Flatten(), Dense()),
        ("conv_1", "conv_2"),
    ),
    "dense": ((Flatten(), Dense(64, activation="elu"), Dense(32), Dense()), ("dense_1", "dense_2")),
}  # fmt: skip


def make_parts(layers: tuple[Layer, ...], shape: tuple[int, ...] = SPEC.shape) -> tuple[SequentialModule, list[Part]]:
    spec, rng = Sequential(layers).with_outputs(5), np.random.default_rng(3)
    module: Any = build(spec, shape, 5, nnx.Rngs(0), "direct")
    draws = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + rng.uniform(0, 0.2, leaf.shape), jnp.float32), nnx.state(module, nnx.Param)
    )
    nnx.update(module, draws)
    module.eval()
    names = {each.position[0]: each.name for each in spec.named if len(each.position) == 1}
    return module, split_parts(module, [names[n] for n in range(len(spec.layers))])


def draw_pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SPEC.shape)).astype(np.uint8)


@pytest.mark.parametrize("name", ["convnet", "mixed", *further(["batch norms", "dense"])])
def test_outputs_are_near_those_of_float32(name: str):
    layers, has_int8 = NETS[name]
    module, parts = make_parts(layers)
    assert tuple(part.names[0] for part in parts if part.product) == has_int8
    images = draw_pictures(32)
    inputs = normalize(jnp.asarray(images), SPEC)
    found = np.asarray(jax.jit(lambda inputs: find_extremes(parts, inputs))(inputs))
    extremes = np.stack([found[..., 0].min(0), found[..., 1].max(0)], 1)
    weights, run = quantize_parts(parts, Code.of_pictures(SPEC), extremes)
    expected, got = jax.jit(module)(inputs), jax.jit(run)(weights, jnp.asarray(images))
    error = np.abs(np.asarray(got) - expected)
    assert error.max() < 0.05 * np.ptp(expected), error.max()
    assert error.max() > 0


def test_extremes_are_the_least_and_largest_inputs_of_each_int8_layer():
    _, parts = make_parts((Flatten(), Dense(3), Activation("relu"), Dense(2), Dense()), (2, 2, 1))
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 1)).astype(np.float32))
    found, first = find_extremes(parts, inputs), inputs.reshape(4, -1)
    second = jax.nn.relu(parts[1].product.layer(first))  # type: ignore[union-attr]
    expected = [[each.min(1), each.max(1)] for each in (first, second)]
    np.testing.assert_allclose(found, np.moveaxis(np.array(expected), 2, 0), rtol=1e-6)


@pytest.mark.parametrize(("least", "largest"), [(-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_a_code_has_zero_and_is_within_half_a_step_of_each_value(least: float, largest: float):
    code = Code.of_range(least, largest)
    values = jnp.linspace(least, largest, 77)
    assert code.decode(code.encode(jnp.zeros(1))) == 0
    half = code.steps[0] * 0.5001
    assert np.all(np.abs(np.asarray(code.decode(code.encode(values)) - values))[1:-1] <= half)


def test_a_bias_far_beyond_the_weights_keeps_its_value():
    _, parts = make_parts((Conv(2, 3), Flatten(), Dense()))
    product = parts[0].product
    assert product is not None
    product.kernel = np.stack([product.kernel[..., 0] * 1e-12, np.zeros(product.kernel.shape[:3])], -1)
    product.bias = np.array([3.0, 0.0])
    arrays = {name: jnp.asarray(array) for name, array in product.make_arrays(Code.of_range(0, 255), None).items()}
    got = np.asarray(product.run(jnp.asarray(draw_pictures(1)), arrays, None))
    np.testing.assert_allclose(got[..., 0], 3, rtol=1e-6)
    assert not got[..., 1].any()


def test_inputs_that_are_no_pictures_have_no_code():
    assert Code.of_pictures(InputSpec((3,), "float32")) is None
    assert Code.of_pictures(InputSpec((8, 8, 1), per_example=True)) is None

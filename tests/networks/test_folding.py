"""Folding of batch norms: the same numbers, within rounding, for any statistics; nothing of the state changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.kernels.libraries import SEPARABLE
from engine.models import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Sequential,
)
from engine.models.blocks import Paths, inverted_residual, residual, squeeze_excite
from engine.networks.build import build
from engine.networks.folding import FoldedConv, fold
from engine.networks.network import NetworkPart, layers_in, network_of

pytestmark = pytest.mark.skipif(not SEPARABLE.is_available(), reason="needs a C++ compiler")


def normed(*layers: Layer, activation: str = "relu6") -> tuple[Layer, ...]:
    return (*layers, BatchNorm(), Activation(activation))


TAIL = (GlobalAveragePool(), Dense(5))
SUM = (Conv(48, 1), BatchNorm())
NETS: dict[str, tuple[Layer, ...]] = {
    "mobilenet": (
        *normed(Conv(16, 3, 2, "same", use_bias=False)), *normed(DepthwiseConv(3, 2, "same")), *normed(Conv(24, 1)),
    ),
    "residual": (
        *normed(Conv(32, 3)),
        residual((*normed(Conv(16, 1)), *normed(Conv(16, 3, 1, "same")), *SUM), SUM),
        residual((Conv(48, 3, 1, "same"), BatchNorm()), activation="silu"),
    ),
    "inverted": (*normed(Conv(16, 3)), inverted_residual(16, 16)),
    "odd": (
        *normed(Conv(20, 5, 2), activation="silu"), BatchNorm(), MaxPool(), *normed(DepthwiseConv(3, multiplier=2)),
        squeeze_excite(40, 8), *normed(Conv(32, 1, 2), activation="elu"),
        Conv(32, 3, 1, "same", activation="relu"), BatchNorm(),
        Paths(((Conv(8, 1), BatchNorm()), ()), "concat", "relu"),
    ),
}  # fmt: skip


def randomised(module: nnx.Module, seed: int = 0) -> nnx.Module:
    rng = np.random.default_rng(seed)
    draws = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 1.2, leaf.shape), jnp.float32), nnx.state(module))
    signs = jax.tree.map(lambda leaf: jnp.asarray(rng.choice([-1.0, 1.0], leaf.shape), jnp.float32), draws)
    kept = jax.tree.map_with_path(lambda path, draw, sign: draw if "var" in str(path) else draw * sign, draws, signs)
    nnx.update(module, kept)
    module.eval()
    return module


@pytest.mark.parametrize("name", NETS)
def test_folded_net_gives_the_same_with_random_statistics(name: str):
    module = randomised(build(Sequential((*NETS[name], *TAIL)), (27, 25, 3), 5, nnx.Rngs(0), "direct"))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 27, 25, 3)), jnp.float32)
    before = jax.tree.map(np.array, nnx.state(module))
    expected = jax.jit(lambda x: module(x))(x)  # type: ignore[operator]
    made = fold(module)  # type: ignore[arg-type]
    assert any(isinstance(layer, FoldedConv) for _, layer in nnx.iter_modules(made))
    assert np.abs(jax.jit(made)(x) - expected).max() <= 1e-5 * np.abs(expected).max()
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, nnx.state(module)))


@pytest.mark.parametrize("side", [13, 14])
def test_block_of_1x1_with_strides_reads_images_where_they_lie(side: int):
    """No copy of the part that counts is made, where the last row and column do not; the numbers are the same."""
    block = residual((*normed(Conv(16, 1, 2)), *SUM), (Conv(48, 1, 2), BatchNorm()))
    layers = (*normed(Conv(32, 3, 1, "same")), block, *TAIL)
    module = randomised(build(Sequential(layers), (side, side, 16), 5, nnx.Rngs(0), "direct"))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, side, side, 16)), jnp.float32)
    expected, made = jax.jit(lambda x: module(x))(x), fold(module)  # type: ignore[arg-type, operator]
    assert np.abs(jax.jit(made)(x) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert " slice" not in str(jax.make_jaxpr(made)(x))


def test_only_what_is_frozen_is_folded_in_training():
    spec = Sequential((*NETS["mobilenet"], *normed(Conv(16, 1)), *TAIL))
    names = spec.layer_names
    frozen = frozenset(names[:9])
    _, init = network_of(spec, (27, 25, 3), 5, "direct")
    params, state = init(jnp.uint32(0))
    layers = layers_in(spec, (27, 25, 3), 5)
    still, params = layers.kept(params, frozen.__contains__), layers.kept(params, lambda name: name not in frozen)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 27, 25, 3)), jnp.float32)
    results = []
    for lowering in ("direct", "xla"):
        network, _ = network_of(spec, (27, 25, 3), 5, lowering, part=NetworkPart(frozen))

        def loss(params: dict, network=network) -> tuple[jax.Array, dict]:
            outputs, after = network.apply(params, (still, state), x, None, jax.random.key(0))
            return jnp.sum(jnp.square(outputs)), after

        results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *results)
    (_, (_, after)), _ = results[0]
    assert np.array_equal(after["layers"][1]["mean"], state["layers"][1]["mean"])
    assert not np.array_equal(after["layers"][10]["mean"], state["layers"][10]["mean"])


def test_prediction_of_many_images_takes_a_few_at_once_and_gives_the_same():
    spec, shape = Sequential((*NETS["mobilenet"], *TAIL)), (200, 200, 3)
    network, init = network_of(spec, shape, 5, "direct")
    weights, predict = network.make_prediction()
    params, state = jax.jit(init)(jnp.uint32(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, *shape)), jnp.float32)
    got = jax.jit(predict)(weights(params, state), x)
    expected, _ = jax.jit(lambda *arrays: network.apply(*arrays, None, None))(params, state, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert "while" in jax.jit(predict).lower(weights(params, state), x).as_text()


def test_activation_is_computed_with_the_convolution():
    spec = Sequential((Conv(16, 1), BatchNorm(), Activation("relu6", name="last"), *TAIL))
    module = randomised(build(spec, (9, 9, 16), 5, nnx.Rngs(0), "direct"))
    x = jnp.ones((2, 9, 9, 16))
    program = str(jax.make_jaxpr(fold(module))(x))  # type: ignore[arg-type]
    assert "ffi_call" in program
    assert "clamp" not in program
    assert "max" not in program

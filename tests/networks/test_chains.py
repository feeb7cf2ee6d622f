"""Convolutions joined for prediction: the bits of one after the other, joined only where that is so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.kernels import ffi
from engine.models import BatchNorm, Conv, Dense, Flatten, Layer, MaxPool, Sequential
from engine.networks.build import build
from engine.networks.chains import ChainModule
from engine.networks.folding import fold

pytestmark = pytest.mark.skipif(not ffi.is_available(), reason="no library of convolutions, and no compiler")
HEAD = (Flatten(), Dense(3))
INNER = Conv(16, 3, padding="same", activation="relu")


def chains_of(module: nnx.Module) -> list[int]:
    """The number of convolutions of each chain in a module."""
    return [len(layer.links) for _, layer in nnx.iter_modules(module) if isinstance(layer, ChainModule)]


@pytest.mark.parametrize(
    ("shape", "layers", "chains"),
    [
        ((17, 23, 3), (Conv(16, 3, activation="relu"), MaxPool(2, strides=1), INNER, INNER, MaxPool(3)), [3]),
        ((28, 28, 1), (Conv(32, 3, activation="relu"), MaxPool(), Conv(64, 3), MaxPool(), Conv(48, 3)), [3]),
        ((90, 70, 3), (Conv(16, 5, 2), Conv(32, 3, padding="same", use_bias=False), MaxPool()), [2]),
        ((30, 30, 3), (INNER, Conv(32, 3, activation="silu"), INNER, MaxPool(), INNER), [2]),
        ((12, 12, 3), (INNER, BatchNorm(), INNER), []),  # one alone gains nothing
        ((12, 12, 16), (Conv(256, 3), Conv(256, 3)), []),  # too many weights to read again for each few images
    ],
)
def test_joined_convolutions_give_the_same_bits(shape: tuple[int, ...], layers: tuple[Layer, ...], chains: list[int]):
    module = build(Sequential((*layers, *HEAD)), shape, 3, nnx.Rngs(0), "direct")
    for _, node in nnx.iter_modules(module):
        if isinstance(node, nnx.Conv) and node.bias is not None:
            node.bias[...] = jnp.linspace(-0.2, 0.2, node.out_features)
    module.eval()
    made = fold(module)  # type: ignore[arg-type]
    assert chains_of(made) == chains
    images = np.random.default_rng(0).normal(size=(33, *shape)).astype(np.float32)
    for count in (1, 33):
        got, expected = (jax.jit(lambda x, run=run: run(x))(images[:count]) for run in (made, module))
        if BatchNorm in map(type, layers):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(got, expected)


def test_weights_for_images_of_another_size_are_refused():
    module = build(Sequential((INNER, INNER, *HEAD)), (9, 9, 3), 3, nnx.Rngs(0), "direct")
    (chain,) = [layer for _, layer in nnx.iter_modules(fold(module)) if isinstance(layer, ChainModule)]  # type: ignore[arg-type]
    jax.block_until_ready(chain(jnp.ones((2, 9, 9, 3))))
    with pytest.raises(jax.errors.JaxRuntimeError, match="not made ready for these images"):
        jax.block_until_ready(chain(jnp.ones((2, 9, 9, 16))))

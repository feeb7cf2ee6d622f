"""Products of dense layers by the C++ library against float64, over odd shapes, and where they are not used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.kernels import dense, ffi, lowerings

pytestmark = pytest.mark.skipif(not ffi.is_available(), reason="no library of convolutions, and no compiler")
BOUND = 2e-6  # of the sum of magnitudes


@pytest.mark.parametrize(
    ("batch", "features", "units"),
    [(1, 4096, 16), (5, 4375, 16), (64, 1166, 64), (7, 1500, 112), (100, 997, 80), (97, 4097, 32), (13, 300, 256)],
)
def test_product_and_its_gradients_are_those_of_a_plain_sum(batch: int, features: int, units: int):
    rng = np.random.default_rng(features)
    arrays = [
        rng.normal(size=size).astype(np.float32) for size in ((batch, features), (features, units), (batch, units))
    ]
    assert dense.supports(*arrays[:2])
    inputs, kernel, gradient = (jnp.asarray(array) for array in arrays)
    outputs, pull_back = jax.vjp(dense.multiply, inputs, kernel)
    x, w, g = (array.astype(np.float64) for array in arrays)
    pairs = zip((outputs, *pull_back(gradient)), ((x, w), (g, w.T), (x.T, g)), strict=True)
    for got, (left, right) in pairs:
        assert np.all(np.abs(got - left @ right) <= BOUND * (np.abs(left) @ np.abs(right)))
    alone = jax.grad(lambda kernel: (dense.multiply(inputs, kernel) * gradient).sum())(kernel)
    np.testing.assert_array_equal(alone, pull_back(gradient)[1])


@pytest.mark.parametrize(
    ("shape", "units", "dtype"),
    [((3, 4096), 10, "float32"), ((3, 100), 16, "float32"), ((2, 3, 4096), 16, "float32"), ((3, 4096), 16, "bfloat16")],
)
def test_other_products_are_left_to_lax(
    shape: tuple[int, ...], units: int, dtype: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: object) -> None:
        raise AssertionError("not for our code")

    monkeypatch.setattr(dense, "multiply", fail)
    dense_layer = nnx.Linear(shape[-1], units, rngs=nnx.Rngs(0), dtype=jnp.dtype(dtype))
    module = nnx.Sequential(nnx.Conv(1, 16, (3, 3), rngs=nnx.Rngs(0)), dense_layer)
    inputs = jnp.ones(shape, dtype)
    expected = dense_layer(inputs)
    lowerings.plug(module, "direct")
    assert dense_layer.dot_general is dense.direct_dot_general
    np.testing.assert_array_equal(dense_layer(inputs), expected)
    lowerings.plug(module, "eigen")
    assert dense_layer.dot_general is jax.lax.dot_general


def test_nets_without_convolutions_need_no_library():
    module = nnx.Linear(4096, 16, rngs=nnx.Rngs(0))
    lowerings.plug(module, "direct")
    assert module.dot_general is jax.lax.dot_general

"""The GPU's batch norm against JAX's own gradients in float64, and as a part of networks; XLA runs it anywhere."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.kernels import batch_norm_gpu
from engine.kernels.separable import TAILS
from engine.models import Activation, BatchNorm, Conv, Dense, GlobalAveragePool, Sequential
from engine.networks.network import network_of
from tests.further import further

pytestmark = pytest.mark.gpu
EPSILON = 1e-3


def reference(tail: str, images: Any, scale: Any, offset: Any, mask: np.ndarray) -> tuple:
    """(values, (mean, variance)) by the definition, in the precision of what is given."""
    counted = images[np.flatnonzero(mask)]
    mean, variance = counted.mean((0, 1, 2)), counted.var((0, 1, 2))
    wide = [each.reshape(1, 1, 1, -1) for each in (mean, variance, scale, offset)]
    values = (images - wide[0]) / jnp.sqrt(wide[1] + EPSILON) * wide[2] + wide[3]
    return {"linear": values, "relu": jax.nn.relu(values), "relu6": jax.nn.relu6(values)}[tail], (mean, variance)


@pytest.mark.parametrize("seed", [0, 1, *further(range(2, 6))])
def test_values_statistics_and_gradients_are_those_of_the_definition(seed: int):
    rng = np.random.default_rng(seed)
    b, h, w, c = (int(n) for n in rng.integers(2, 12, 4))
    images = rng.normal(rng.normal(0, 2, c), rng.uniform(0.5, 4, c), (b, h, w, c))
    scale, offset, back = rng.normal(1, 0.5, c), rng.normal(0, 1, c), rng.normal(size=images.shape)
    mask, tail = (rng.random(b) < 0.7) | (np.arange(b) == 0), TAILS[seed % 3]
    with jax.enable_x64(True):
        arrays = [jnp.asarray(each, jnp.float64) for each in (images, scale, offset)]
        expected, pull_back, moments = jax.vjp(jax.jit(lambda *of: reference(tail, *of, mask)), *arrays, has_aux=True)
        of_expected = [np.asarray(each) for each in pull_back(jnp.asarray(back, jnp.float64))]

    def ours(*of: jax.Array) -> tuple:
        values, *found = batch_norm_gpu.normalize((EPSILON, tail), *of, jnp.asarray(mask))
        return values, tuple(found)

    arrays = [jnp.asarray(each, jnp.float32) for each in (images, scale, offset)]
    values, pull_back, found = jax.vjp(jax.jit(ours), *arrays, has_aux=True)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(found, moments, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(pull_back(jnp.asarray(back, jnp.float32)), of_expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_a_bias_before_a_batch_norm_moves_its_average_alone(monkeypatch: pytest.MonkeyPatch):
    """In training; the network is one of a GPU, whose convolutions are lax's here."""
    monkeypatch.setattr(batch_norm_gpu, "supports", lambda images: images.ndim == 4)
    spec = Sequential((Conv(16, 3), BatchNorm(), Activation("relu"), GlobalAveragePool(), Dense()))
    outcomes, bias = [], jnp.linspace(-1, 1, 16)
    for lowering in ("xla", "direct"):
        network, init = network_of(spec, (8, 8, 3), 3, lowering)
        params, model_state = init(jnp.uint32(0))
        params = jax.tree.map_with_path(lambda path, leaf: bias if _is_bias(path) else leaf, params)
        images = jax.random.normal(jax.random.key(1), (6, 8, 8, 3))

        def loss(params: Any, network: Any = network, state: Any = model_state, images: Any = images) -> tuple:
            outputs, after = network.apply(params, state, images, jnp.arange(6) < 5, jax.random.key(0))
            return (outputs[:5] ** 2).sum(), after

        outcomes.append(jax.value_and_grad(loss, has_aux=True)(params))
    for ours, theirs in zip(*map(jax.tree.leaves, reversed(outcomes)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    (_, gradients) = outcomes[1]
    of_bias = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradients) if _is_bias(path)]
    assert len(of_bias) == 1
    assert not of_bias[0].any()


def _is_bias(path: Any) -> bool:
    """Whether a path is that of the convolution's bias."""
    return [str(getattr(key, "key", key)) for key in path][-2:] == ["0", "bias"]

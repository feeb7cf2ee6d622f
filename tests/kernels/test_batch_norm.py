"""Batch norm of the C++ library, with its activation, against JAX in float64, over random shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.kernels import batch_norm
from engine.kernels.libraries import BATCH_NORM
from engine.kernels.separable import TAILS, Tail
from engine.models.norms import BatchNorm
from engine.networks.modules import BatchNormModule
from tests.further import further

pytestmark = pytest.mark.skipif(not BATCH_NORM.is_available(), reason="needs a C++ compiler")
ACTIVATIONS = {"linear": lambda x: x, "relu": jax.nn.relu, "relu6": jax.nn.relu6}
EPSILON = 1e-3


@pytest.fixture(autouse=True, scope="module")
def loaded():
    assert BATCH_NORM.load() is not None


def reference(tail: Tail, images: Any, scale: Any, offset: Any, mask: np.ndarray) -> tuple:
    """(values, mean, variance) in the precision of what is given."""
    counted = images[np.flatnonzero(mask)]
    mean, variance = counted.mean((0, 1, 2)), counted.var((0, 1, 2))
    by_channel = [each.reshape(1, 1, 1, -1) for each in (mean, variance, scale, offset)]
    values = (images - by_channel[0]) * jax.lax.rsqrt(by_channel[1] + EPSILON) * by_channel[2] + by_channel[3]
    return ACTIVATIONS[tail](values), mean, variance


def _apart(found: tuple) -> tuple:
    """(values, what has no gradient)."""
    return found[0], found[1:]


@pytest.mark.parametrize("seed", [*range(3), *further(range(3, 12))])
def test_values_statistics_and_gradients_are_those_of_jax(seed: int):
    rng = np.random.default_rng(seed)
    b, h, w = (int(n) for n in rng.integers(1, 40, 3) // (6, 1, 1) + 1)
    c, tail = int(rng.choice([1, 3, 8, 16, 24, 32, 100, 130])), TAILS[seed % 3]
    images = rng.normal(rng.normal(0, 3, c), rng.uniform(0.5, 4, c), (b, h, w, c)).astype(np.float32)
    scale, offset = (rng.normal(1, 0.5, c).astype(np.float32) for _ in range(2))
    mask = rng.random(b) < 0.7
    mask[0] = True
    gradient = rng.normal(size=images.shape).astype(np.float32)
    with jax.enable_x64(True):
        wide = [jnp.asarray(each, jnp.float64) for each in (images, scale, offset)]
        expected, pull_back, moments = jax.vjp(
            jax.jit(lambda x, s, o: _apart(reference(tail, x, s, o, mask))), *wide, has_aux=True
        )
        to_each = [np.asarray(each) for each in pull_back(jnp.asarray(gradient, jnp.float64))]
    given = None if mask.all() and seed % 2 else jnp.asarray(mask)

    def run(images: jax.Array, scale: jax.Array, offset: jax.Array) -> tuple:
        return _apart(batch_norm.normalize(images, scale, offset, given, EPSILON, tail))

    arrays = jnp.asarray(images), jnp.asarray(scale), jnp.asarray(offset)
    got, pull_back, found = jax.vjp(jax.jit(run), *arrays, has_aux=True)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, moments, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)
    for ours, theirs in zip(pull_back(jnp.asarray(gradient)), to_each, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6 * np.abs(theirs).max() + 1e-6)


def test_the_variance_is_exact_far_from_zero():
    images = (1e4 + np.random.default_rng(0).normal(0, 1, (4, 60, 60, 24))).astype(np.float32)
    _, mean, variance = batch_norm.normalize(jnp.asarray(images), None, None, None, EPSILON)
    np.testing.assert_allclose(variance, images.astype(np.float64).var((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(mean, images.astype(np.float64).mean((0, 1, 2)), rtol=1e-7)


@pytest.mark.parametrize("tail", TAILS)
def test_gradients_where_activations_bend_are_those_of_jax(tail: Tail):
    # Constant channels are 0 after the batch norm, where relu bends, or 6 with that offset.
    images, scale = jnp.ones((2, 3, 3, 16)), jnp.ones(16)
    offset = jnp.asarray([0.0, 6.0] * 8, jnp.float32)

    def run(offset: jax.Array) -> jax.Array:
        return batch_norm.normalize(images, scale, offset, None, EPSILON, tail)[0].sum()

    def expected(offset: jax.Array) -> jax.Array:
        return ACTIVATIONS[tail](jnp.zeros_like(images) + offset.reshape(1, 1, 1, -1)).sum()

    assert np.array_equal(jax.grad(run)(offset), jax.grad(expected)(offset))


def test_what_is_no_number_stays_none():
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 16)).astype(np.float32)
    images[0, 0, 0, 3] = np.nan
    values, mean, _ = batch_norm.normalize(jnp.asarray(images), None, None, None, EPSILON, "relu6")
    assert np.isnan(values[..., 3]).all()
    assert np.isnan(mean[3])
    assert np.isfinite(np.delete(np.asarray(values), 3, -1)).all()


def test_a_module_computes_the_same_either_way_and_keeps_the_same_averages():
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (6, 9, 9, 24)).astype(np.float32))
    mask = jnp.asarray([True, True, False, True, True, False])
    found = []
    for lowering in ("xla", "direct"):
        module = BatchNormModule(BatchNorm(), (9, 9, 24), nnx.Rngs(0))
        module.lowering = lowering
        found.append((module(x, mask=mask), module.mean[...], module.var[...]))
        module.eval()
        found[-1] += (module(x),)
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_the_same_bits_on_any_number_of_members():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 7, 7, 24)).astype(np.float32))
    mapped = jax.vmap(lambda x: batch_norm.normalize(x, None, None, None, EPSILON)[0])(images)
    for n in range(3):
        assert np.array_equal(mapped[n], batch_norm.normalize(images[n], None, None, None, EPSILON)[0])

"""Depthwise and 1×1 convolutions of the C++ library against lax in float64, over random shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from engine.kernels import separable
from engine.kernels.libraries import SEPARABLE
from engine.kernels.windows import Window, window_pads
from engine.kernels.xla import NHWC
from tests.further import further

pytestmark = pytest.mark.skipif(not SEPARABLE.is_available(), reason="needs a C++ compiler")
BOUND = 2e-6  # of the sum of magnitudes


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(
    images: np.ndarray, kernel: np.ndarray, window: Window, groups: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(maps, a drawn gradient, the gradients of images and kernel), in float64."""
    with jax.enable_x64(True):
        arrays = jnp.asarray(images.astype(np.float64)), jnp.asarray(kernel.astype(np.float64))

        def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
            return lax.conv_general_dilated(
                images, kernel, window.strides, window.pads, dimension_numbers=NHWC, feature_group_count=groups
            )

        maps, pull_back = jax.vjp(jax.jit(convolve), *arrays)
        gradient = draw(*maps.shape, seed=2)
        return np.asarray(maps), gradient, [np.asarray(each) for each in pull_back(jnp.asarray(gradient, maps.dtype))]


def assert_close(got: jax.Array, expected: np.ndarray, magnitude: np.ndarray) -> None:
    assert np.all(np.abs(np.asarray(got) - expected) <= BOUND * magnitude + 1e-6)


def compare(convolve: Any, images: np.ndarray, kernel: np.ndarray, window: Window, groups: int) -> None:
    maps, gradient, expected = reference(images, kernel, window, groups)
    sizes, _, _ = reference(np.abs(images), np.abs(kernel), window, groups)
    got, pull_back = jax.vjp(
        jax.jit(lambda *arrays: convolve(*arrays, window)), jnp.asarray(images), jnp.asarray(kernel)
    )
    assert_close(got, maps, sizes)
    for ours, theirs in zip(pull_back(jnp.asarray(gradient)), expected, strict=True):
        assert_close(ours, theirs, np.full(theirs.shape, np.abs(theirs).max() + 1))


def windows(seed: int) -> tuple[tuple[int, ...], Window]:
    """((b, h, w), a window that fits), drawn."""
    rng, is_odd = np.random.default_rng(seed), seed % 3 == 0
    size = rng.choice([1, 2, 3, 3, 5, 7], 2) if is_odd else np.repeat(rng.choice([3, 5]), 2)
    strides = rng.integers(1, 4, 2) if is_odd else np.repeat(rng.integers(1, 3), 2)
    size, strides = tuple(map(int, size)), tuple(map(int, strides))
    b, h, w = (int(n) for n in (rng.integers(1, 6), rng.integers(size[0], 19), rng.integers(size[1], 19)))
    pads = [window_pads((h, w), size, strides, "same"), ((0, 0), (0, 0)), ((0, 1), (0, 1)), ((2, 0), (0, 2))][seed % 4]
    return (b, h, w), Window(size, strides, (1, 1), tuple((int(low), int(high)) for low, high in pads))


@pytest.mark.parametrize("seed", [*range(6), *further(range(6, 16))])
def test_depthwise_and_its_gradients_are_those_of_lax(seed: int):
    (b, h, w), window = windows(seed)
    c = 16 * (1 + seed % 3)
    images, kernel = draw(b, h, w, c), draw(*window.size, 1, c, seed=1)
    assert separable.supports_depthwise(images, kernel, window)
    compare(separable.convolve_depthwise, images, kernel, window, c)


@pytest.mark.parametrize("seed", [*range(6), *further(range(6, 16))])
def test_pointwise_and_its_gradients_are_those_of_lax(seed: int):
    rng = np.random.default_rng(seed)
    b, h, w = (int(n) for n in rng.integers(1, 12, 3))
    c, o = (int(rng.choice([1, 3, 16, 24, 40, 64, 100, 130])) for _ in range(2))
    window = Window((1, 1), (int(rng.integers(1, 3)), int(rng.integers(1, 3))))
    images, kernel = draw(b, h, w, c), draw(1, 1, c, o, seed=1)
    assert separable.supports_pointwise(images, kernel, window)
    compare(separable.convolve_pointwise, images, kernel, window, 1)


@pytest.mark.parametrize(("shape", "filters"), [((5, 51, 50, 19), 37), ((2, 11, 10, 530), 150)])
def test_gradients_of_a_kernel_are_those_of_lax_where_threads_share_pixels_or_channels(shape: tuple, filters: int):
    images, kernel, window = draw(*shape), draw(1, 1, shape[3], filters, seed=1), Window((1, 1), (1, 1))
    compare(separable.convolve_pointwise, images, kernel, window, 1)


@pytest.mark.parametrize("tail", separable.TAILS)
def test_bias_addition_and_activation_follow_before_values_are_stored(tail: separable.Tail):
    activation = {"linear": lambda x: x, "relu": jax.nn.relu, "relu6": jax.nn.relu6}[tail]
    images, kernel, by_channel = 3 * draw(2, 9, 9, 32), draw(1, 1, 32, 40, seed=1), draw(3, 3, 1, 32, seed=2)
    bias, added, window = draw(40, seed=3), draw(2, 5, 5, 40, seed=4), Window((1, 1), (2, 2))
    images[0, 0, 0, 0] = np.nan
    plain = separable.convolve_pointwise(images, kernel, window)
    got = separable.pointwise(images, separable.pack(kernel), 40, bias, added, window, tail)
    np.testing.assert_allclose(got, activation(plain + bias.reshape(1, 1, 1, -1) + added), rtol=1e-5, atol=1e-5)
    same = Window((3, 3), (1, 1), pads=((1, 1), (1, 1)))
    plain = separable.convolve_depthwise(images, by_channel, same)
    got = separable.depthwise(images, by_channel, bias[:32], same, tail)
    np.testing.assert_allclose(got, activation(plain + bias[:32].reshape(1, 1, 1, -1)), rtol=1e-5, atol=1e-5)
    assert np.isnan(got).any()


def test_the_same_bits_on_any_number_of_members():
    images, kernel = draw(3, 2, 7, 7, 32), draw(3, 3, 3, 1, 32, seed=1)
    window = Window((3, 3), (1, 1), pads=((1, 1), (1, 1)))
    mapped = jax.vmap(lambda x, k: separable.convolve_depthwise(x, k, window))(images, kernel)
    for n in range(3):
        assert np.array_equal(mapped[n], separable.convolve_depthwise(images[n], kernel[n], window))

"""int8 convolutions of the C++ library, and in XLA's operations, against lax in float64, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from engine.kernels import quantized
from engine.kernels.quantized import Tail
from engine.kernels.windows import Window, padded_size
from engine.kernels.xla import NHWC
from tests.further import further

Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, Window, Tail]


@pytest.fixture(params=["library", "xla"])
def convolve(request: pytest.FixtureRequest):
    """Both forms of `quantized.convolve`."""
    if request.param == "xla":
        return quantized.by_xla
    if not quantized.is_fast():
        pytest.skip("needs AVX512-VNNI and a C++ compiler")
    return quantized.convolve


def draw_case(seed: int) -> Case:
    """Images, kernel, bias, factors, edge, window and tail, of random shapes."""
    rng = np.random.default_rng(seed)
    kh, kw = map(int, rng.choice([1, 2, 3, 3, 5], 2))
    b, h, w = (int(n) for n in (rng.integers(1, 4), rng.integers(kh + 1, 15), rng.integers(kw + 1, 29)))
    c, o = int(rng.choice([1, 2, 3, 4, 5, 8, 16])), int(rng.choice([1, 7, 16, 24, 32, 40, 64, 80]))
    pads = tuple((int(low), int(high)) for low, high in rng.integers(0, 4, (2, 2))) if seed % 2 else ((0, 0), (0, 0))
    window = Window((kh, kw), tuple(map(int, rng.integers(1, 3, 2))), (int(rng.integers(1, 3)), 1), pads)
    if min(window.positions(*padded_size((b, h, w, c), window))) < 2:
        window = window._replace(strides=(1, 1), dilation=(1, 1))
    zero = [None, 0, 0, int(rng.integers(1, 200))][seed % 4]
    tail = Tail(bool(seed % 3), zero, 0 if seed % 8 > 3 else zero or 0, 255 if seed % 5 else 254)
    images = rng.integers(0, 256, (b, h, w, c)).astype(np.uint8)
    kernel = rng.integers(-127, 128, (kh, kw, c, o)).astype(np.int8)
    bias = rng.integers(-50_000, 50_000, o).astype(np.int32)
    factors = (rng.uniform(0.2, 2, o) / 200 / np.sqrt(kh * kw * c)).astype(np.float32)
    return images, kernel, bias, factors, rng.integers(0, 256, c).astype(np.uint8), window, tail


def convolve_exactly(case: Case) -> np.ndarray:
    """What `quantized.convolve` should give, from sums in float64."""
    images, kernel, bias, factors, edge, window, tail = case
    whole = np.broadcast_to(edge, (len(images), *padded_size(images.shape, window), len(edge))).copy()
    (top, _), (left, _) = window.pads
    whole[:, top : top + images.shape[1], left : left + images.shape[2]] = images
    with jax.enable_x64(True):
        arrays = jnp.asarray(whole.astype(np.float64)), jnp.asarray(kernel.astype(np.float64))
        sizes = window.strides, "VALID", None, window.dilation, NHWC
        sums = np.asarray(lax.conv_general_dilated(*arrays, *sizes)) + bias
    if tail.is_pooled:
        y, x = sums.shape[1] // 2, sums.shape[2] // 2
        sums = sums[:, : 2 * y, : 2 * x].reshape(len(sums), y, 2, x, 2, -1).max((2, 4))
    values = sums.astype(np.float32) * factors
    if tail.zero is None:
        return values
    return (np.rint(np.clip(values, tail.least - tail.zero, tail.largest - tail.zero)) + tail.zero).astype(np.uint8)


@pytest.mark.parametrize("seed", [*range(4), *further(range(4, 60))])
def test_convolutions_of_random_shapes_are_exact(seed: int, convolve):
    *arrays, window, tail = case = draw_case(seed)
    images, kernel, *rest = map(jnp.asarray, arrays)
    got = convolve(images, quantized.pack(kernel), *rest, window, tail)
    expected = convolve_exactly(case)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_sums_of_the_largest_products_do_not_overflow(convolve):
    depth = quantized.MOST_TAPS
    images, kernel = jnp.full((1, 1, 2, depth), 255, jnp.uint8), jnp.full((1, 1, depth, 2), -127, jnp.int8)
    bias, edge = jnp.array([0, -(2**29)], jnp.int32), jnp.zeros(depth, jnp.uint8)
    got = convolve(images, quantized.pack(kernel), bias, jnp.ones(2), edge, Window((1, 1), (1, 1)), Tail())
    np.testing.assert_array_equal(got[0, 0], np.float32([np.add(-255 * 127 * depth, [0, -(2**29)])] * 2))


@pytest.mark.parametrize("rows", [1, 5, 96])
def test_a_product_of_matrices_is_exact(rows: int):
    rng = np.random.default_rng(rows)
    images, kernel = (
        rng.integers(0, 256, (rows, 50)).astype(np.uint8),
        rng.integers(-127, 128, (50, 20)).astype(np.int8),
    )
    bias = rng.integers(-999, 999, 20).astype(np.int32)
    packed = quantized.pack(jnp.asarray(kernel[None, None]))
    got = quantized.multiply(jnp.asarray(images), packed, jnp.asarray(bias), jnp.ones(20), Tail())
    np.testing.assert_array_equal(got, images.astype(np.int64) @ kernel + bias)


def test_a_packed_kernel_is_unpacked():
    kernel = np.random.default_rng(0).integers(-127, 128, (3, 2, 5, 20)).astype(np.int8)
    np.testing.assert_array_equal(quantized.unpack(quantized.pack(jnp.asarray(kernel)), kernel.shape), kernel)


def test_a_call_of_a_row_between_tiles_of_padding_alone_stays_within_its_memory(convolve):
    window = Window((1, 2), (1, 10), pads=((0, 0), (5, 0)))
    arrays = jnp.full((1, 3, 1, 3), 9, jnp.uint8), jnp.ones((1, 2, 3, 1), jnp.int8)
    got = convolve(
        arrays[0], quantized.pack(arrays[1]), jnp.zeros(1, jnp.int32), jnp.ones(1), jnp.full(3, 2, jnp.uint8),
        window, Tail(zero=0),
    )  # fmt: skip
    np.testing.assert_array_equal(got, np.full((1, 3, 1, 1), 12))

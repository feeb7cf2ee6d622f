"""The GPU's convolutions against lax's: on a GPU as they run there, elsewhere interpreted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from engine.config import PlanConfig
from engine.kernels import direct, triton
from engine.kernels.lowerings import choose_lowering
from engine.kernels.windows import Pads, Window
from tests.further import further

pytestmark = pytest.mark.gpu
NO_PADS: Pads = ((0, 0), (0, 0))
HIGHEST = "highest"

# image, kernel, pads, stride, dilation, pool
CASES = {
    "one channel": ((3, 12, 13, 1), (3, 3, 1, 32), NO_PADS, 1, 1, (2, 2)),
    "three channels": ((2, 8, 8, 3), (3, 3, 3, 16), ((1, 1), (1, 1)), 1, 1, (2, 2)),
    "whole blocks of channels": ((2, 9, 9, 16), (3, 3, 16, 48), NO_PADS, 1, 1, (2, 2)),
    "no pool": ((2, 5, 6, 64), (3, 3, 64, 32), ((0, 1), (2, 0)), 1, 1, None),
    "stride": ((2, 9, 9, 16), (3, 3, 16, 16), ((1, 1), (1, 1)), 2, 1, None),
    "dilation": ((2, 9, 10, 20), (3, 2, 20, 16), ((2, 2), (0, 0)), 1, 2, (1, 2)),
    "one by one": ((2, 7, 7, 24), (1, 1, 24, 32), NO_PADS, 1, 1, (4, 2)),
}


def reference(
    window: Window, pool: Window | None, is_relu: bool, images: jax.Array, kernel: jax.Array, bias: jax.Array
):
    """What lax gives for the convolution, the pool, the bias and the positive part, one after another."""
    sizes = window.strides, window.pads, None, window.dilation
    maps = lax.conv_general_dilated(images, kernel, *sizes, ("NHWC", "HWIO", "NHWC"), precision=HIGHEST)
    if pool:
        maps = lax.reduce_window(maps, -jnp.inf, lax.max, (1, *pool.size, 1), (1, *pool.strides, 1), "VALID")
    maps = maps + bias[None, None, None]
    return jnp.maximum(maps, 0) if is_relu else maps


def drawn(case: str, dtype: str = "float32") -> tuple[Window, Window | None, list[jax.Array]]:
    """(window, pool, [images, kernel, bias]) of a case."""
    image, kernel, pads, stride, dilation, pool = CASES[case]
    draw = np.random.default_rng(0)
    arrays = [draw.normal(size=shape) for shape in (image, kernel, kernel[3:])]
    arrays[1] /= np.sqrt(np.prod(kernel[:3]))
    window = Window(kernel[:2], (stride, stride), (dilation, dilation), pads)
    return window, pool and Window(pool, pool), [jnp.asarray(array, dtype) for array in arrays]


@pytest.mark.parametrize(
    ("case", "is_relu"),
    [
        *((case, True) for case in CASES),
        ("no pool", False),
        *further((case, False) for case in CASES if case != "no pool"),
    ],
)
def test_values_and_gradients_are_those_of_lax(case, is_relu):
    window, pool, arrays = drawn(case)
    ours, of_ours = jax.vjp(jax.jit(lambda *a: triton.convolve(pool, is_relu, window, HIGHEST, *a)), *arrays)
    theirs, of_theirs = jax.vjp(jax.jit(lambda *a: reference(window, pool, is_relu, *a)), *arrays)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    back = jnp.asarray(np.random.default_rng(1).normal(size=theirs.shape), jnp.float32)
    for name, mine, other in zip(("images", "kernel", "bias"), of_ours(back), of_theirs(back), strict=True):
        error = jnp.linalg.norm(mine - other) / jnp.linalg.norm(other)
        assert error < 1e-5, name


def test_bfloat16_is_rounded_once():
    window, pool, arrays = drawn("whole blocks of channels", "bfloat16")
    ours = triton.convolve(pool, True, window, "default", *arrays)
    exact = reference(window, pool, True, *(array.astype(jnp.float32) for array in arrays))
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=2**-8, atol=1e-4)


def test_of_equals_the_first_gets_the_gradient():
    images, kernel = jnp.ones((1, 4, 4, 16)), jnp.ones((1, 1, 16, 16))
    pool = Window((2, 2), (2, 2))
    window = Window((1, 1), (1, 1))

    def total(images: jax.Array) -> jax.Array:
        return triton.convolve(pool, True, window, HIGHEST, images, kernel, jnp.zeros(16)).sum()

    back = jax.grad(total)(images)[0, :, :, 0]
    np.testing.assert_array_equal(back, np.kron(np.ones((2, 2)), [[16.0, 0.0], [0.0, 0.0]]))


def test_members_side_by_side_are_each_of_them_alone():
    window, pool, arrays = drawn("whole blocks of channels")
    stacked = [jnp.stack([array, 2 * array + 1]) for array in arrays]

    def total(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return (triton.convolve(pool, True, window, HIGHEST, images, kernel, bias) ** 2).sum()

    together = jax.vmap(jax.grad(total, (0, 1, 2)))(*stacked)
    for member in (0, 1):
        alone = jax.grad(total, (0, 1, 2))(*(array[member] for array in stacked))
        for mine, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(mine[member], other, rtol=1e-4, atol=1e-3)


def test_pools_that_overlap_or_have_three_places_stay_outside():
    assert triton.pools(Window((2, 2), (2, 2)))
    assert not triton.pools(Window((3, 3), (3, 3)))
    assert not triton.pools(Window((2, 2), (1, 1)))


def test_the_rule_on_a_gpu_is_by_precision_and_size(monkeypatch):
    monkeypatch.setattr(direct, "is_available", lambda: True)
    rule = [
        choose_lowering(PlanConfig(), "gpu", *of)
        for of in (("bfloat16", (224, 224, 3)), ("float32", (28, 28, 1)), ("float32", (180, 180, 3)))
    ]
    assert rule == ["direct", "matrix", "xla"]
    assert choose_lowering(PlanConfig(mesh="data=2"), "gpu", "bfloat16", (28, 28, 1)) == "xla"
    assert choose_lowering(PlanConfig(mode="safe"), "gpu", "bfloat16", (28, 28, 1)) == "xla"

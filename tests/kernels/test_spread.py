"""A kernel that is made ready for minimal filtering once gives what lax gives, and is refused where it does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from engine.kernels import ffi
from engine.kernels.windows import Window

pytestmark = pytest.mark.skipif(not ffi.is_available(), reason="no library of convolutions, and no compiler")


@pytest.mark.parametrize(
    ("shape", "filters", "pad"),
    [((1, 7, 7, 512), 512, 1), ((3, 5, 9, 48), 400, 1), ((2, 6, 3, 208), 80, 0), ((1, 28, 14, 64), 64, 1)],
)
def test_spread_kernel_convolves_as_lax(shape: tuple[int, ...], filters: int, pad: int):
    draw = np.random.default_rng(filters)
    images, kernel, bias = (
        draw.normal(size=size).astype(np.float32) for size in (shape, (3, 3, shape[3], filters), (filters,))
    )
    window = Window((3, 3), (1, 1), (1, 1), ((pad, pad), (pad, pad)))
    assert ffi.can_spread(kernel, window)
    sums = (shape[1] + 2 * pad - 2, shape[2] + 2 * pad - 2)
    ready = ffi.spread(kernel, sums)
    assert len(ready) == (ffi.choose_tile(kernel.shape, sums) + 2) ** 2
    found = ffi.convolve_spread(images, ready, bias, window, True)
    numbers = ("NHWC", "HWIO", "NHWC")
    plain = lax.conv_general_dilated(images, kernel, (1, 1), window.pads, None, None, numbers)
    wanted = jnp.maximum(0, plain + bias.reshape(1, 1, 1, -1))
    np.testing.assert_allclose(found, wanted, atol=6e-6 * float(jnp.abs(wanted).max()), rtol=0)


def test_a_kernel_spread_for_other_channels_is_refused():
    images, bias, window = jnp.ones((1, 5, 5, 32)), jnp.zeros(32), Window((3, 3), (1, 1))
    with pytest.raises(jax.errors.JaxRuntimeError, match="not made ready for these images"):
        jax.block_until_ready(ffi.convolve_spread(images, jnp.ones((16, 1, 16, 32)), bias, window, False))

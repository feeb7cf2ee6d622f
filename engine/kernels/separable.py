"""Depthwise and 1×1 convolutions by our own code for the CPU, `cpu/separable.cc`, called by XLA's FFI.

Bias, an addition and the activation are computed before a value is stored. A product reads its kernel in an order of
its own, so that a kernel that is used many times is packed once.

Axes: b batch, h w input, y x output, i j kernel, c input channels, o output channels. Images are NHWC, kernels HWIO.
"""

from functools import partial
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from engine.kernels.libraries import SEPARABLE
from engine.kernels.windows import Window, padded_size

LANES = 16  # of a vector; divides the supported numbers of channels of a depthwise convolution
MOST_TAPS = 64  # of a depthwise kernel

Tail = Literal["linear", "relu", "relu6"]
TAILS: tuple[Tail, ...] = ("linear", "relu", "relu6")
"""Activations that are computed with a convolution, in the order of their numbers in `cpu/tails.h`."""


def supports_depthwise(images: Any, kernel: Any, window: Window) -> bool:
    """Whether `convolve_depthwise` runs for images [b h w c] and a kernel [i j 1 c], or their shapes and dtypes.

    The library is then loaded.
    """
    fits = images.shape[3] % LANES == 0 and prod(window.size) <= MOST_TAPS and min(images.shape) > 0
    is_plain = window.dilation == (1, 1) and min(map(min, window.pads)) >= 0
    return fits and is_plain and images.dtype == kernel.dtype == jnp.float32 and is_loaded()


def supports_pointwise(images: Any, kernel: Any, window: Window) -> bool:
    """Whether `convolve_pointwise` runs for images [b h w c] and a kernel [1 1 c o], or their shapes and dtypes.

    The library is then loaded.
    """
    fits = window.size == (1, 1) and not any(map(any, window.pads)) and min(*images.shape, *kernel.shape) > 0
    return fits and images.dtype == kernel.dtype == jnp.float32 and is_loaded()


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_depthwise(images: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """[b h w c] * [i j 1 c] → [b y x c]."""
    return depthwise(images, kernel, None, window, "linear")


def _depthwise_forward(images: jax.Array, kernel: jax.Array, window: Window) -> tuple:
    return convolve_depthwise(images, kernel, window), (images, kernel)


def _depthwise_backward(window: Window, saved: tuple, gradient: jax.Array) -> tuple:
    results = tuple(_floats(array.shape) for array in saved)
    return tuple(_call("engine_depthwise_gradients", results, *saved, gradient, sizes=_sizes(window)))


convolve_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_pointwise(images: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """[b h w c] * [1 1 c o] → [b y x o]."""
    return pointwise(images, pack(kernel), kernel.shape[3], None, None, window, "linear")


def _pointwise_forward(images: jax.Array, kernel: jax.Array, window: Window) -> tuple:
    return convolve_pointwise(images, kernel, window), (images, kernel)


def _pointwise_backward(window: Window, saved: tuple, gradient: jax.Array) -> tuple:
    images, kernel = saved
    (_, h, w, c), (y, x) = images.shape, gradient.shape[1:3]
    dense = Window((1, 1), (1, 1))
    sent = pointwise(gradient, pack(kernel.swapaxes(2, 3)), c, None, None, dense, "linear")  # [b y x c]
    (sh, sw), zero = window.strides, jnp.zeros((), sent.dtype)
    if window.strides != (1, 1):
        edges = [(0, size - (n - 1) * step - 1, step - 1) for size, n, step in ((h, y, sh), (w, x, sw))]
        sent = jax.lax.pad(sent, zero, [(0, 0, 0), *edges, (0, 0, 0)])
    strides = np.asarray(window.strides, np.int64)
    to_kernel = _call("engine_pointwise_gradient", _floats(kernel.shape[2:]), images, gradient, strides=strides)
    return sent, to_kernel.reshape(kernel.shape)


convolve_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def depthwise(images: jax.Array, kernel: jax.Array, bias: jax.Array | None, window: Window, tail: Tail) -> jax.Array:
    """activation([b h w c] * [i j 1 c] + [c]) → [b y x c]; without a gradient."""
    positions = window.positions(*padded_size(images.shape, window))
    assert min(positions) > 0, (images.shape, window)
    outputs = _floats((len(images), *positions, images.shape[3]))
    settings = {"sizes": _sizes(window), "tail": np.int64(TAILS.index(tail))}
    return _call("engine_depthwise", outputs, images, kernel, _or_none(bias, 1), **settings)


def pack(kernel: jax.Array) -> jax.Array:
    """A kernel [1 1 c o] in the order in which `pointwise` reads it: float32[d]."""
    c, o = kernel.shape[2:]
    return _call("engine_pointwise_pack", _floats((c * -(-o // LANES) * LANES,)), kernel.reshape(c, o))


def pointwise(
    images: jax.Array,
    packed: jax.Array,
    filters: int,
    bias: jax.Array | None,
    added: jax.Array | None,
    window: Window,
    tail: Tail,
) -> jax.Array:
    """activation([b h w c] * packed [c o] + [o] + [b y x o]) → [b y x o]; without a gradient."""
    outputs = _floats((len(images), *window.positions(*images.shape[1:3]), filters))
    settings = {"strides": np.asarray(window.strides, np.int64), "tail": np.int64(TAILS.index(tail))}
    return _call("engine_pointwise", outputs, images, packed, _or_none(bias, 1), _or_none(added, 4), **settings)


def _call(target: str, results: Any, *arrays: jax.Array, **settings: Any) -> Any:
    return jax.ffi.ffi_call(target, results, vmap_method="sequential")(*arrays, **settings)


def _or_none(values: jax.Array | None, rank: int) -> jax.Array:
    return jnp.zeros((0,) * rank, jnp.float32) if values is None else values


def _floats(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _sizes(window: Window) -> np.ndarray:
    return np.asarray([*window.strides, window.pads[0][0], window.pads[1][0]], np.int64)


def is_loaded() -> bool:
    """Whether these run here; loads the library, compiled first if there is none."""
    return jax.default_backend() == "cpu" and SEPARABLE.load() is not None

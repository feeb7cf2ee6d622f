"""Batch norm in training by our own code for the CPU, `cpu/batch_norm.cc`: statistics, values and activation.

XLA's sums over all but the last axis take no vector units. Here the images are read once for the statistics and once for
the values, and the gradients read them and theirs twice; the activation costs no pass of its own.
"""

import functools
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.host import compiler
from engine.kernels.separable import TAILS, Tail

SOURCE = Path(__file__).parent / "cpu" / "batch_norm.cc"
TARGETS = ("engine_batch_norm", "engine_batch_norm_gradients")


def is_available() -> bool:
    """Whether it runs here: on a CPU, with a C++ compiler. The first call on a machine compiles."""
    return jax.default_backend() == "cpu" and _is_registered()


def supports(images: Any) -> bool:
    """Whether it runs for images [b … c], or their shape and dtype."""
    return images.dtype == jnp.float32 and images.ndim > 2 and min(images.shape) > 0 and is_available()


def normalize(
    images: jax.Array,
    scale: jax.Array | None,
    offset: jax.Array | None,
    mask: jax.Array | None,
    epsilon: float,
    tail: Tail = "linear",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(activation((x − mean) · scale / √(variance + epsilon) + offset) [b … c], mean [c], variance [c]).

    mask: bool[b], the examples whose values mean and variance are of; None: all. Scale 1 and offset 0 are None. Mean and
    variance have no gradient of their own.
    """
    b, c = images.shape[0], images.shape[-1]
    counted = jnp.zeros((0,), bool) if mask is None else mask
    scale = jnp.ones(c, jnp.float32) if scale is None else scale
    offset = jnp.zeros(c, jnp.float32) if offset is None else offset
    rows = images.reshape(b, prod(images.shape[1:-1]), c)
    outputs, mean, variance = _normalize((epsilon, tail), rows, scale, offset, counted)
    return outputs.reshape(images.shape), mean, variance


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize(settings: tuple[float, Tail], images: jax.Array, scale: Any, offset: Any, counted: Any) -> tuple:
    by_channel = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    results = (jax.ShapeDtypeStruct(images.shape, jnp.float32), by_channel, by_channel)
    return _call(TARGETS[0], results, settings, images, scale, offset, counted)


def _forward(settings: tuple[float, Tail], images: jax.Array, scale: Any, offset: Any, counted: Any) -> tuple:
    outputs, mean, variance = _normalize(settings, images, scale, offset, counted)
    return (outputs, mean, variance), (images, mean, variance, scale, offset, counted)


def _backward(settings: tuple[float, Tail], saved: tuple, gradients: tuple) -> tuple:
    images, *rest = saved
    results = tuple(jax.ShapeDtypeStruct(array.shape, jnp.float32) for array in (images, rest[2], rest[3]))
    found = _call(TARGETS[1], results, settings, images, gradients[0], *rest)
    return (*found, np.zeros(rest[4].shape, jax.dtypes.float0))


_normalize.defvjp(_forward, _backward)


def _call(target: str, results: tuple, settings: tuple[float, Tail], *arrays: jax.Array) -> tuple:
    epsilon, tail = np.float32(settings[0]), np.int64(TAILS.index(settings[1]))
    call = jax.ffi.ffi_call(target, results, vmap_method="sequential")
    return tuple(call(*arrays, epsilon=epsilon, tail=tail))


@functools.cache
def _is_registered() -> bool:
    """Registers the library's functions with XLA once; False without a library. It stays loaded until process exit."""
    library = compiler.library(SOURCE, jax.ffi.include_dir())
    for target in TARGETS if library else ():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
    return library is not None

"""Batch norm in training by our own code for the CPU, `cpu/batch_norm.cc`: statistics, values and activation.

On a GPU it is that of `batch_norm_gpu.py`.

XLA's sums over all but the last axis take no vector units. Here the images are read once for the statistics and once
for the values, and the gradients read them and theirs twice; the activation costs no pass of its own.
"""

from functools import partial
from math import prod
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from engine.kernels import batch_norm_gpu
from engine.kernels.libraries import BATCH_NORM
from engine.kernels.separable import TAILS, Tail


def supports(images: Any) -> bool:
    """Whether it runs for images [b … c], or their shape and dtype."""
    is_one = images.dtype == jnp.float32 and images.ndim > 2 and min(images.shape) > 0
    is_ours = is_one and jax.default_backend() == "cpu" and BATCH_NORM.load() is not None
    return is_ours or batch_norm_gpu.supports(images)


def normalize(
    images: jax.Array,
    scale: jax.Array | None,
    offset: jax.Array | None,
    mask: jax.Array | None,
    epsilon: float,
    tail: Tail = "linear",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(activation((x − mean) · scale / √(variance + epsilon) + offset) [b … c], mean [c], variance [c]).

    mask: bool[b], the examples whose values mean and variance are of; None: all. scale, offset: [c]; None: 1 and 0.
    Mean and variance have no gradient of their own.
    """
    b, c = images.shape[0], images.shape[-1]
    counted = jnp.zeros((0,), bool) if mask is None else mask
    scale = jnp.ones(c, jnp.float32) if scale is None else scale
    offset = jnp.zeros(c, jnp.float32) if offset is None else offset
    if batch_norm_gpu.supports(images):
        counted = jnp.ones(b, bool) if mask is None else mask
        return batch_norm_gpu.normalize((epsilon, tail), images, scale, offset, counted)
    rows = images.reshape(b, prod(images.shape[1:-1]), c)
    outputs, mean, variance = cast(tuple, _normalize((epsilon, tail), rows, scale, offset, counted))
    return outputs.reshape(images.shape), mean, variance


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize(settings: tuple[float, Tail], images: jax.Array, scale: Any, offset: Any, counted: Any) -> tuple:
    by_channel = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    results = (jax.ShapeDtypeStruct(images.shape, jnp.float32), by_channel, by_channel)
    return _call("engine_batch_norm", results, settings, images, scale, offset, counted)


def _forward(settings: tuple[float, Tail], images: jax.Array, scale: Any, offset: Any, counted: Any) -> tuple:
    outputs, mean, variance = cast(tuple, _normalize(settings, images, scale, offset, counted))
    return (outputs, mean, variance), (images, mean, variance, scale, offset, counted)


def _backward(settings: tuple[float, Tail], saved: tuple, gradients: tuple) -> tuple:
    images, *rest = saved
    results = tuple(jax.ShapeDtypeStruct(array.shape, jnp.float32) for array in (images, rest[2], rest[3]))
    found = _call("engine_batch_norm_gradients", results, settings, images, gradients[0], *rest)
    return (*found, np.zeros(rest[4].shape, jax.dtypes.float0))


_normalize.defvjp(_forward, _backward)


def _call(target: str, results: tuple, settings: tuple[float, Tail], *arrays: jax.Array) -> tuple:
    epsilon, tail = np.float32(settings[0]), np.int64(TAILS.index(settings[1]))
    call = jax.ffi.ffi_call(target, results, vmap_method="sequential")
    return tuple(call(*arrays, epsilon=epsilon, tail=tail))

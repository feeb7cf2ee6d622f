"""Batch norm in training for a GPU, in XLA's operations: one pass for the statistics, and gradients written by hand.

Differentiated automatically, it reads the images twice as often: the gradients of mean and variance are then separate
sums, and what the activation passes on is stored. XLA compiles each pass here to one kernel.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from engine.kernels.separable import Tail

MOST_IN_A_BLOCK = 4096  # XLA's ReductionDimensionRaceFreeBound of a sum over columns, 32 × 128
ACTIVATIONS = {"linear": lambda x: x, "relu": jax.nn.relu, "relu6": jax.nn.relu6}


def supports(images: Any) -> bool:
    """Whether it runs for images [b … c], or their shape and dtype."""
    return images.dtype == jnp.bfloat16 and images.ndim == 4 and jax.default_backend() == "gpu"


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalize(
    settings: tuple[float, Tail], images: jax.Array, scale: jax.Array, offset: jax.Array, counted: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `batch_norm.normalize`, of images [b h w c] that may be narrow; settings: epsilon and activation."""
    return _forward(settings, images, scale, offset, counted)[0]


def _forward(settings: tuple[float, Tail], images: jax.Array, scale: Any, offset: Any, counted: Any) -> tuple:
    mean, variance = _moments(images, counted)
    saved = images, mean, variance, scale, offset, counted
    factor = _wide(scale) * lax.rsqrt(variance + settings[0])
    outputs = ACTIVATIONS[settings[1]](images.astype(jnp.float32) * factor + (_wide(offset) - mean * factor))
    return (outputs.astype(images.dtype), mean.reshape(-1), variance.reshape(-1)), saved


def _backward(settings: tuple[float, Tail], saved: tuple, gradients: tuple) -> tuple:
    images, mean, variance, scale, offset, counted = saved
    epsilon, tail = settings
    root, distance = lax.rsqrt(variance + epsilon), images.astype(jnp.float32) - mean
    _, pull_back = jax.vjp(ACTIVATIONS[tail], distance * (_wide(scale) * root) + _wide(offset))
    (sent,) = pull_back(gradients[0].astype(jnp.float32))
    total, weighted = _sums(sent, sent * distance)
    through_moments = (total + distance * (jnp.square(root) * weighted)) / _num_pixels(images, counted)
    to_images = _wide(scale) * root * (sent - jnp.where(counted[:, None, None, None], through_moments, 0))
    to_scale, to_offset = (weighted * root).reshape(-1), total.reshape(-1)
    return to_images.astype(images.dtype), to_scale.astype(scale.dtype), to_offset.astype(offset.dtype), None


normalize.defvjp(_forward, _backward)


def _moments(images: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 (mean [1 1 1 c], variance [1 1 1 c]) of the counted examples.

    The difference of two means is off by 2⁻²⁴ of the squared mean, which is less than what rounding to bfloat16 adds.
    """
    values, num = jnp.where(counted[:, None, None, None], images.astype(jnp.float32), 0), _num_pixels(images, counted)
    total, squares = _sums(values, jnp.square(values))
    mean = total / num
    return mean, jnp.maximum(0, squares / num - jnp.square(mean))


def _sums(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Each [b h w c] summed to [1 1 1 c], all in one pass.

    XLA adds up to 4,096 pixels of a channel in a single block, so that most of a GPU waits: there each image first.
    """
    b, h, w, _ = arrays[0].shape
    if b * h * w <= MOST_IN_A_BLOCK:
        arrays = lax.optimization_barrier(tuple(jnp.sum(array, (1, 2), keepdims=True) for array in arrays))
    return tuple(jnp.sum(array, (0, 1, 2), keepdims=True) for array in arrays)


def _num_pixels(images: jax.Array, counted: jax.Array) -> jax.Array:
    return images.shape[1] * images.shape[2] * jnp.sum(counted, dtype=jnp.float32)


def _wide(by_channel: jax.Array) -> jax.Array:
    return by_channel.reshape(1, 1, 1, -1)  # [c] → [1 1 1 c]

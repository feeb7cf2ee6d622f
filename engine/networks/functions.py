"""What the names in specs compute: activations, initializers, regularizers and layers without parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine.models import layers
from engine.models.activations import SLOPES, Activation
from engine.models.shapes import Shape, Size, edges, pair

Initializer = Callable[..., jax.Array]

ACTIVATIONS: dict[str, Callable[..., jax.Array]] = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "hard_swish": jax.nn.hard_silu,
    "hard_tanh": jax.nn.hard_tanh,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "log_sigmoid": jax.nn.log_sigmoid,
    "exponential": jnp.exp,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
}


def _uniform(key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
    """From -0.05 to 0.05, as Keras."""
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": nnx.initializers.glorot_uniform(),
    "glorot_normal": nnx.initializers.glorot_normal(),
    "he_uniform": nnx.initializers.he_uniform(),
    "he_normal": nnx.initializers.he_normal(),
    "lecun_uniform": nnx.initializers.lecun_uniform(),
    "lecun_normal": nnx.initializers.lecun_normal(),
    "orthogonal": nnx.initializers.orthogonal(),
    "random_normal": nnx.initializers.normal(0.05),
    "random_uniform": _uniform,
    "truncated_normal": nnx.initializers.truncated_normal(0.05),
    "zeros": nnx.initializers.zeros_init(),
    "ones": nnx.initializers.ones_init(),
}


def activate(activation: Activation, x: jax.Array) -> jax.Array:
    """[b …] → [b …]."""
    if activation.name not in SLOPES:
        return ACTIVATIONS[activation.name](x)
    slope = SLOPES[activation.name] if activation.slope is None else activation.slope
    return ACTIVATIONS[activation.name](x, slope)


@jax.custom_vjp
def global_max(images: jax.Array) -> jax.Array:
    """[b h w c] → [b c]; the gradient goes to the first of equals."""
    return images.max(axis=(1, 2))


def _global_max_forward(images: jax.Array) -> tuple:
    return global_max(images), (images.shape, images.reshape(len(images), -1, images.shape[3]).argmax(axis=1))


def _global_max_backward(saved: tuple, gradient: jax.Array) -> tuple:
    """By number: that of jnp.max looks for the largest among images that XLA may have computed again, a bit off."""
    (b, h, w, c), winner = saved
    position = jnp.arange(h * w).reshape(1, -1, 1)
    return (jnp.where(position == winner[:, None], gradient[:, None], 0).reshape(b, h, w, c),)


global_max.defvjp(_global_max_forward, _global_max_backward)


def _zero_pad(layer: layers.ZeroPad, x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), *edges(layer.padding), (0, 0)))


def _crop(layer: layers.Crop, x: jax.Array) -> jax.Array:
    (top, bottom), (left, right) = edges(layer.cropping)
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def _up_sample(layer: layers.UpSample, x: jax.Array) -> jax.Array:
    if layer.interpolation == "nearest":
        return repeated(repeated(x, 1, pair(layer.size)[0]), 2, pair(layer.size)[1])
    return _between_pixels(x, layer.size)


def _between_pixels(x: jax.Array, size: Size) -> jax.Array:
    """Bilinear, by pixel centres; beyond the outer ones their values."""
    b, h, w, c = x.shape
    times = pair(size)
    return jax.image.resize(x, (b, h * times[0], w * times[1], c), "bilinear")


def repeated(x: jax.Array, axis: int, times: int) -> jax.Array:
    """Each slice along an axis so many times, one after another."""
    wide = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), (*x.shape[: axis + 1], times, *x.shape[axis + 1 :]))
    return wide.reshape(*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1 :])


FUNCTIONS: dict[type, Callable[[Any, jax.Array], jax.Array]] = {
    layers.GlobalAveragePool: lambda layer, x: x.mean(axis=(1, 2)),
    layers.GlobalMaxPool: lambda layer, x: global_max(x),
    layers.Flatten: lambda layer, x: x.reshape(x.shape[0], -1),  # [b h w c] → [b d]
    layers.Activation: activate,
    layers.Rescale: lambda layer, x: x * layer.scale + layer.offset,
    layers.UpSample: _up_sample,
    layers.ZeroPad: _zero_pad,
    layers.Crop: _crop,
}
"""(layer, [b …]) → [b …] of the layers without parameters."""

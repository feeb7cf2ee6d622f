"""Elastic distortion: every pixel is moved by smoothed noise (Simard et al. 2003), in the form of Keras's layer."""

import jax
import jax.numpy as jnp

from engine.augment.config import AugmentConfig


def draw_displacement(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    """float32[2 h w]: pixels (down, right) that every place is moved by; 0 where the draw is for no change."""
    is_moved_key, scale_key, noise_key = jax.random.split(key, 3)
    low, high = config.elastic_scale
    scale = jax.random.uniform(scale_key, minval=low, maxval=high)
    noise = jax.random.normal(noise_key, (2, height, width))
    moves = displaced(noise, scale, high)
    return jnp.where(jax.random.bernoulli(is_moved_key, config.elastic), moves, 0)


def displaced(noise: jax.Array, scale: jax.Array | float, most: float) -> jax.Array:
    """float32[2 h w]: standard noise [2 h w], smoothed and scaled as Keras's RandomElasticTransform(scale) does it.

    σ = scale · min(h, w) / 20 and α = scale · max(h, w) / 10: the moves are α · σ · (noise smoothed by σ pixels, over
    6·⌊σ⌋ + 1 of them, with 0 beyond the border). `most` is the largest scale, which decides the size of the program.
    """
    _, height, width = noise.shape
    sigma, alpha = scale * min(height, width) * 0.05, scale * max(height, width) * 0.1
    radius = 3 * int(most * min(height, width) * 0.05)
    distances = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (distances / jnp.maximum(sigma, 1e-6)) ** 2)
    weights = jnp.where(jnp.abs(distances) <= 3 * jnp.floor(sigma), weights, 0)
    weights = weights / jnp.sum(weights)
    return alpha * sigma * _smoothed(_smoothed(noise, weights, radius, 1), weights, radius, 2)


def _smoothed(noise: jax.Array, weights: jax.Array, radius: int, axis: int) -> jax.Array:
    size = noise.shape[axis]
    padding = [(radius, radius) if i == axis else (0, 0) for i in range(noise.ndim)]
    padded = jnp.pad(noise, padding)

    def slid(n: int) -> jax.Array:
        return jax.lax.slice_in_dim(padded, n, n + size, axis=axis)

    return sum((weights[n] * slid(n) for n in range(2 * radius + 1)), jnp.zeros_like(noise))

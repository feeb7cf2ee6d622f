"""Keras's own RandAugment and AugMix: their operations, strengths and mixtures, drawn for each example."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap

from engine.augment import as_keras
from engine.augment.config import AugmentConfig, Interpolation
from engine.augment.geometry import rotated, sheared_about_first, shifted, warp

_GEOMETRY = ("shear", "translation", "rotation")
_COLOR = (
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterization",
    "solarization",
    "autocontrast",
    "equalization",
)
OPERATIONS = (*_GEOMETRY, *_COLOR)
IDENTITY = len(OPERATIONS)
_LEFT_OUT = ("brightness", "color", "contrast", "sharpness")  # of AugMix with all_ops=False


def rand_augment(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c] after policy_ops operations, drawn with replacement, of strengths from policy_factor."""
    return _chain(key, image, jnp.arange(len(OPERATIONS)), config.policy_ops, config)


def aug_mix(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c]: the image blended with a blend of chains of operations (Hendrycks et al. 2020).

    The chains' shares are drawn from Dirichlet(policy_alpha), that of the image from Beta(policy_alpha, policy_alpha).
    """
    names = [name for name in OPERATIONS if config.policy_all_ops or name not in _LEFT_OUT]
    choices = jnp.asarray([*map(OPERATIONS.index, names), IDENTITY])
    chain_key, shares_key, own_key = jax.random.split(key, 3)
    alpha, num = config.policy_alpha, config.policy_chains
    shares, own = jax.random.dirichlet(shares_key, jnp.full(num, alpha)), jax.random.beta(own_key, alpha, alpha)

    def add(total: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        key, share = drawn
        return total + share * _chain(key, image, choices, config.policy_depth, config), None

    mixed = lax.scan(add, jnp.zeros_like(image), (jax.random.split(chain_key, num), shares))[0]
    return jnp.clip(own * image + (1 - own) * mixed, 0, 255)


def _chain(key: jax.Array, image: jax.Array, choices: jax.Array, length: int, config: AugmentConfig) -> jax.Array:
    """The image after `length` operations drawn from `choices`."""

    def step(image: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        operation_key, draws_key, sign_key = jax.random.split(key, 3)
        operation = jax.random.choice(operation_key, choices)
        draws, sign = jax.random.uniform(draws_key, (2,)), jax.random.rademacher(sign_key, (), jnp.float32)
        return apply_operation(image, operation, draws, sign, config.policy_factor, config.interpolation), None

    return lax.scan(step, image, jax.random.split(key, length))[0]


def apply_operation(
    image: jax.Array,
    operation: int | jax.Array,
    draws: jax.Array,
    sign: float | jax.Array,
    factor: tuple[float, float],
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """float32[h w c] after the operation at that place of OPERATIONS; IDENTITY does nothing.

    draws: float32[2], from 0 to below 1: where in the range of `factor` its strengths lie. sign: that of a shear.
    """
    switch = partial(_switch, factor=factor, interpolation=interpolation)
    # Image by image on a CPU, which computes only what was drawn then: see engine.augment.policies.
    return lax.platform_dependent(
        image,
        jnp.asarray(operation, jnp.int32),
        jnp.asarray(draws, jnp.float32),
        jnp.asarray(sign, jnp.float32),
        cpu=sequential_vmap(switch),
        default=switch,
    )


def _switch(
    image: jax.Array,
    operation: jax.Array,
    draws: jax.Array,
    sign: jax.Array,
    *,
    factor: tuple[float, float],
    interpolation: Interpolation,
) -> jax.Array:
    def bend(image: jax.Array, draws: jax.Array) -> jax.Array:
        matrix = _matrix(operation, draws, sign, factor, image.shape)
        return warp(image, matrix, "reflect", 0.0, interpolation)

    branches = [bend, *(partial(_recolor, name, factor) for name in _COLOR), lambda image, draws: image]
    return lax.switch(jnp.maximum(operation - len(_GEOMETRY) + 1, 0), branches, image, draws)


def _recolor(name: str, factor: tuple[float, float], image: jax.Array, draws: jax.Array) -> jax.Array:
    low, high = factor
    strength = low + draws[0] * (high - low)
    match name:
        case "brightness":
            return as_keras.shift_brightness(image, strength)
        case "color":
            return as_keras.degenerate(image, strength)
        case "contrast":
            return as_keras.adjust_channel_contrast(image, 1 - low + draws[0] * (low + high))
        case "sharpness":
            return as_keras.sharpen(image, strength)
        case "posterization":
            most = max(1, int(8 * high))  # bits from 1 to below that, or 1
            return as_keras.posterize(image, 1 + jnp.floor(draws[0] * max(most - 1, 0)))
        case "solarization":  # whose lower ends Keras does not bring to levels
            addition, threshold = low + draws * (255 * high - low)
            return as_keras.solarize(image, addition, threshold)
        case "autocontrast":
            return as_keras.autocontrast(image)
    return as_keras.equalize(image)


def _matrix(
    operation: jax.Array, draws: jax.Array, sign: jax.Array, factor: tuple[float, float], shape: tuple[int, ...]
) -> jax.Array:
    """float32[3 3]: that of a geometric operation."""
    low, high = factor
    first, second = low + draws * (high - low)
    height, width, _ = shape
    shear = sheared_about_first(height, width, sign * first, sign * second)
    turn = rotated(360 * first)
    return jnp.stack([shear, shifted(first * height, second * width), turn])[jnp.minimum(operation, 2)]

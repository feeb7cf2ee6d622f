"""All of an AugmentConfig on one image or one batch: pure functions of keys and images."""

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from engine.augment import keras_policies
from engine.augment.auto_augment import auto_augment
from engine.augment.color import augment_color
from engine.augment.config import AugmentConfig, PolicyName
from engine.augment.geometry import augment_geometry, random_crop
from engine.augment.mixing import erase, mix_pairs
from engine.augment.policies import rand_augment, trivial_augment
from engine.errors import InputError, problem, shape_text
from engine.keys import step_key


def augment_image(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c], levels 0–255: an image [h w c] of such levels, or uint8, after all that needs no second image."""
    image = augment_geometry(_part(key, "geometry"), image.astype(jnp.float32), config)
    image = random_crop(_part(key, "random_crop"), image, config.random_crop) if config.random_crop else image
    image = augment_color(_part(key, "color"), image, config)
    image = augment_policy(_part(key, "policy"), image, config)
    image = augment_custom(_part(key, "custom"), image, config)
    return erase(_part(key, "erasing"), image, config) if config.erasing else image


def augment_policy(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c] after the policy of `config`; without one, the image as it is."""
    return image if config.policy is None else _POLICIES[config.policy](key, image, config)


def augment_custom(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c], levels 0–255, after the user's own functions, each with a key of its own.

    Raises InputError for a function that returns anything but an image of the same shape.
    """
    for number, function in enumerate(config.custom):
        changed = function.make("augment.custom", jax.random.fold_in(key, number), image)
        if getattr(changed, "shape", None) != image.shape:
            got = f"{function.path}, which returned {getattr(changed, 'shape', type(changed).__name__)}"
            rule = f"an image of the shape it was given, {shape_text(image.shape)}"
            raise InputError(problem("augment.custom", got, rule, "Correct the function."))
        image = jnp.clip(changed, 0, 255).astype(jnp.float32)
    return image


def augment_batch(keys: jax.Array, images: jax.Array, config: AugmentConfig) -> tuple[jax.Array, jax.Array | None]:
    """(float32[b h w c], share): a batch [b h w c] after everything, with one key for each example.

    share: float32[b] of each example's own target where examples are mixed, else None.
    """
    changed = jax.vmap(lambda key, image: augment_image(key, image, config))(keys, images)
    if not config.pairs_examples:
        return changed, None
    return mix_pairs(jax.vmap(lambda key: _part(key, "mixing"))(keys), changed, config)


def example_keys(
    seed: jax.Array | int, epoch: jax.Array | int, examples: jax.Array, stream: str = "augment"
) -> jax.Array:
    """One key for each example's number, int[b]: a function of (seed, epoch, example) and nothing else."""
    return jax.vmap(lambda example: jax.random.fold_in(step_key(seed, stream, epoch), example))(examples)


def _part(key: jax.Array, name: str) -> jax.Array:
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _rand_augment(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    how = (config.fill, config.fill_value, config.interpolation)
    return rand_augment(key, image, config.policy_ops, config.policy_magnitude, *how)


def _trivial_augment(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    return trivial_augment(key, image, config.fill, config.fill_value, config.interpolation)


_POLICIES: dict[PolicyName, Callable[[jax.Array, jax.Array, AugmentConfig], jax.Array]] = {
    "rand_augment": _rand_augment,
    "trivial_augment": _trivial_augment,
    "auto_augment_imagenet": auto_augment,
    "auto_augment_cifar10": auto_augment,
    "auto_augment_svhn": auto_augment,
    "keras_rand_augment": keras_policies.rand_augment,
    "aug_mix": keras_policies.aug_mix,
}

"""Boxes and blends: erasing within one image; mixup and cutmix between two.

Images are float32[h w c], levels 0–255. Examples are mixed in pairs, places 2i and 2i+1 of a batch and so of the
epoch's order: who meets whom is a function of (seed, epoch) and the same for every (even) batch size.
"""

from math import log

import jax
import jax.numpy as jnp

from engine.augment.config import AugmentConfig


def erase(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """[h w c]: the image, with probability `erasing` covered by a box that lies inside it (Zhong et al. 2017)."""
    is_erased_key, area_key, ratio_key, place_key = jax.random.split(key, 4)
    height, width, _ = image.shape
    area = jax.random.uniform(area_key, minval=config.erasing_area[0], maxval=config.erasing_area[1])
    low, high = (log(ratio) for ratio in config.erasing_ratio)
    ratio = jnp.exp(jax.random.uniform(ratio_key, minval=low, maxval=high))
    # Beyond these ratios a box of that area is longer than the image.
    ratio = jnp.clip(ratio, area * height / width, height / (area * width))
    box_height = jnp.clip(jnp.round(jnp.sqrt(area * height * width * ratio)), 1, height)
    box_width = jnp.clip(jnp.round(jnp.sqrt(area * height * width / ratio)), 1, width)
    place = jax.random.uniform(place_key, (2,))
    top, left = jnp.floor(place[0] * (height - box_height + 1)), jnp.floor(place[1] * (width - box_width + 1))
    inside = _box(height, width, top, left, top + box_height, left + box_width)
    is_erased = jax.random.bernoulli(is_erased_key, config.erasing)
    return jnp.where(inside & is_erased, config.erasing_value, image)


def mixup(key: jax.Array, image: jax.Array, other: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """([h w c], share of the first): both images blended, the share drawn from Beta(alpha, alpha).

    Zhang et al. 2017, arXiv 1710.09412.
    """
    share = jax.random.beta(key, alpha, alpha)
    return share * image + (1 - share) * other, share


def cutmix(key: jax.Array, image: jax.Array, other: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """([h w c], share of the first): a box of the other image, of a share of the area drawn from Beta(alpha, alpha),
    pasted over the first; what lies beyond the border is cut off and does not count.

    Yun et al. 2019, arXiv 1905.04899.
    """
    share_key, place_key = jax.random.split(key)
    height, width, _ = image.shape
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
    place = jax.random.uniform(place_key, (2,)) * jnp.array([height, width])
    half = side * jnp.array([height, width]) / 2
    (top, left), (bottom, right) = jnp.round(place - half), jnp.round(place + half)
    inside = _box(height, width, top, left, bottom, right)
    return jnp.where(inside, other, image), 1 - jnp.mean(inside.astype(jnp.float32))


def mix_pairs(keys: jax.Array, images: jax.Array, config: AugmentConfig) -> tuple[jax.Array, jax.Array]:
    """(images [b h w c], float32[b] share of the example's own target): each mixed with its partner.

    Where both mixup and cutmix are asked for, every example draws which of them it undergoes.
    """

    def mixed(key: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        choice_key, mixup_key, cutmix_key = jax.random.split(key, 3)
        if not config.cutmix:
            return mixup(mixup_key, image, other, config.mixup)
        if not config.mixup:
            return cutmix(cutmix_key, image, other, config.cutmix)
        blend, pasted = mixup(mixup_key, image, other, config.mixup), cutmix(cutmix_key, image, other, config.cutmix)
        is_blend = jax.random.bernoulli(choice_key)
        return jax.tree.map(lambda a, b: jnp.where(is_blend, a, b), blend, pasted)

    return jax.vmap(mixed)(keys, images, partners(images))


def partners(values: jax.Array) -> jax.Array:
    """[b …] with the two of every pair exchanged; b is even."""
    pairs = values.reshape(len(values) // 2, 2, *values.shape[1:])  # [b …] → [b/2 2 …]
    return pairs[:, ::-1].reshape(values.shape)  # [b/2 2 …] → [b …]


def _box(height: int, width: int, top: jax.Array, left: jax.Array, bottom: jax.Array, right: jax.Array) -> jax.Array:
    """bool[h w 1]: the pixels of a box."""
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)

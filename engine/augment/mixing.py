"""Boxes and blends: erasing within one image; mixup and cutmix between two.

Images are float32[h w c], levels 0–255. Examples are mixed in pairs, places 2i and 2i+1 of a batch and so of the
epoch's order: who meets whom is a function of (seed, epoch) and the same for every (even) batch size.
"""

from math import log

import jax
import jax.numpy as jnp

from engine.augment.config import AugmentConfig

Scalar = float | jax.Array


def erase(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """[h w c]: the image, with probability `erasing` covered by a box that lies inside it (Zhong et al. 2017)."""
    is_erased_key, *box_keys = jax.random.split(key, 4)
    draw = _draw_box if config.erasing_ratio is not None else _draw_box_by_sides
    is_erased = jax.random.bernoulli(is_erased_key, config.erasing)
    covered = draw(box_keys, image.shape[0], image.shape[1], config) & is_erased
    return jnp.where(covered, _erasing_levels(key, image, config), image)


def _draw_box(keys: list[jax.Array], height: int, width: int, config: AugmentConfig) -> jax.Array:
    """bool[h w 1]: a box of whole pixels, of a random share of the area and proportion."""
    assert config.erasing_ratio is not None
    area_key, ratio_key, place_key = keys
    area = jax.random.uniform(area_key, minval=config.erasing_area[0], maxval=config.erasing_area[1])
    low, high = (log(ratio) for ratio in config.erasing_ratio)
    ratio = jnp.exp(jax.random.uniform(ratio_key, minval=low, maxval=high))
    # Beyond these ratios a box of that area is longer than the image.
    ratio = jnp.clip(ratio, area * height / width, height / (area * width))
    box_height = jnp.clip(jnp.round(jnp.sqrt(area * height * width * ratio)), 1, height)
    box_width = jnp.clip(jnp.round(jnp.sqrt(area * height * width / ratio)), 1, width)
    place = jax.random.uniform(place_key, (2,))
    top, left = jnp.floor(place[0] * (height - box_height + 1)), jnp.floor(place[1] * (width - box_width + 1))
    return _box(height, width, top, left, top + box_height, left + box_width)


def _draw_box_by_sides(keys: list[jax.Array], height: int, width: int, config: AugmentConfig) -> jax.Array:
    """bool[h w 1]: a box as of Keras's `RandomErasing`, each side the square root of a share drawn for it alone."""
    low, high = config.erasing_area
    *side_keys, place_key = keys
    sides = [jnp.sqrt(jax.random.uniform(key, minval=low, maxval=high)) for key in side_keys]
    return _box_inside(jax.random.uniform(place_key, (2,)), sides[0] * height, sides[1] * width, height, width)


def _erasing_levels(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """The level that is written, one for each channel, or noise [h w c] of a normal distribution cut to 0–255."""
    if config.erasing_value is None:
        return jnp.clip(255 * jax.random.normal(jax.random.fold_in(key, 1), image.shape), 0, 255)
    levels = jnp.asarray(config.erasing_value, jnp.float32)
    if levels.ndim and image.shape[-1] != len(levels):
        return levels @ jnp.array([0.299, 0.587, 0.114])  # red, green and blue of an image of one channel
    return levels[None, None, :] if levels.ndim else levels


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


def cutmix_inside(
    key: jax.Array, image: jax.Array, other: jax.Array, alphas: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """([h w c], share of the first): Keras's `CutMix`. α is drawn from `alphas`, the box from Beta(α, α); it lies
    inside the image, and its share is that of its sides, which are no whole pixels."""
    alpha_key, share_key, place_key = jax.random.split(key, 3)
    height, width, _ = image.shape
    alpha = jax.random.uniform(alpha_key, minval=alphas[0], maxval=alphas[1]) + 1e-6  # of 0 there is no Beta
    share = jax.random.beta(share_key, alpha, alpha)
    side = jnp.sqrt(1 - share)
    inside = _box_inside(jax.random.uniform(place_key, (2,)), side * height, side * width, height, width)
    return jnp.where(inside, other, image), share


def mix_pairs(keys: jax.Array, images: jax.Array, config: AugmentConfig) -> tuple[jax.Array, jax.Array]:
    """(images [b h w c], float32[b] share of the example's own target): each mixed with its partner.

    If both mixup and cutmix are on, every example draws which of them it undergoes.
    """

    def pasted(key: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        if config.cutmix_inside is not None:
            return cutmix_inside(key, image, other, config.cutmix_inside)
        return cutmix(key, image, other, config.cutmix)

    def mixed(key: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        choice_key, mixup_key, cutmix_key = jax.random.split(key, 3)
        if not config.changes("cutmix") and not config.changes("cutmix_inside"):
            return mixup(mixup_key, image, other, config.mixup)
        if not config.mixup:
            return pasted(cutmix_key, image, other)
        both = mixup(mixup_key, image, other, config.mixup), pasted(cutmix_key, image, other)
        is_blend = jax.random.bernoulli(choice_key)
        return jax.tree.map(lambda a, b: jnp.where(is_blend, a, b), *both)

    return jax.vmap(mixed)(keys, images, partners(images))


def partners(values: jax.Array) -> jax.Array:
    """[b …] with the two of every pair exchanged; b is even."""
    pairs = values.reshape(len(values) // 2, 2, *values.shape[1:])  # [b …] → [b/2 2 …]
    return pairs[:, ::-1].reshape(values.shape)  # [b/2 2 …] → [b …]


def _box_inside(place: jax.Array, box_height: Scalar, box_width: Scalar, height: int, width: int) -> jax.Array:
    """bool[h w 1]: the pixels that begin in a box of these sides, at a place from (0, 0), upper left, to (1, 1)."""
    top, left = place[0] * (height - box_height), place[1] * (width - box_width)
    return _box(height, width, top, left, top + box_height, left + box_width)


def _box(height: int, width: int, top: jax.Array, left: jax.Array, bottom: jax.Array, right: jax.Array) -> jax.Array:
    """bool[h w 1]: the pixels of a box."""
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)

"""Policies: a few operations of a fixed list, drawn at random for each image, instead of chosen strengths.

RandAugment: Cubuk, Zoph, Shlens, Le 2019, arXiv 1909.13719. TrivialAugment: Müller and Hutter 2021, arXiv 2103.10158.
Images are float32[h w c] of levels from 0 to 255, c = 1 or 3; on grey images saturation changes nothing.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap

from engine.augment import color
from engine.augment.config import FillMode, Interpolation
from engine.augment.geometry import rotated, shifted, warp

STRENGTHS = 30  # both papers count strengths from 0 to 30


class Ranges(NamedTuple):
    """How much each operation does at full strength; at strength 0 all do nothing, but for the two without strength."""

    rotate: float
    """Degrees, either way."""
    shear: float
    """Pixels along x for each pixel of y, or the reverse, either way."""
    translate: float
    """Share of the image's side, either way."""
    translate_pixels: float
    """What that share comes to at most, in pixels."""
    enhance: float
    """Distance of the factors of saturation, contrast, brightness and sharpness from 1, either way."""
    posterize: int
    """Bits lost of 8."""
    solarize: float
    """Levels that the threshold is below 256."""


# Those of AutoAugment (Cubuk et al. 2018, arXiv 1805.09501), where images of 331 pixels move by up to 150.
RAND_AUGMENT = Ranges(
    rotate=30, shear=0.3, translate=150 / 331, translate_pixels=float("inf"), enhance=0.9, posterize=4, solarize=256
)
# The paper's wide ones. It moves by up to 32 pixels and has no images below 32; smaller ones move by up to their side.
TRIVIAL_AUGMENT = Ranges(
    rotate=135, shear=0.99, translate=1, translate_pixels=32, enhance=0.99, posterize=6, solarize=256
)

_COLOR = (
    "identity", "autocontrast", "equalize", "solarize", "saturation", "posterize", "contrast", "brightness",
    "sharpness",
)  # fmt: skip
_GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = (*_COLOR, *_GEOMETRY)  # which RandAugment and TrivialAugment draw from
INVERT = len(OPERATIONS)


def rand_augment(
    key: jax.Array,
    image: jax.Array,
    num_ops: int,
    magnitude: int | jax.Array,
    fill: FillMode = "reflect",
    fill_value: float = 0.0,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """float32[h w c] after `num_ops` operations, drawn with replacement, of strength `magnitude` (0 to 30)."""

    def step(image: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        operation, sign, _ = _draw(key)
        strength = sign * magnitude / STRENGTHS
        return apply_operation(image, operation, strength, RAND_AUGMENT, fill, fill_value, interpolation), None

    return lax.scan(step, image, jax.random.split(key, num_ops))[0]


def trivial_augment(
    key: jax.Array,
    image: jax.Array,
    fill: FillMode = "reflect",
    fill_value: float = 0.0,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """float32[h w c] after one operation of a strength drawn from 0, 1, … 30 thirtieths of a wide range."""
    operation, sign, strength = _draw(key)
    return apply_operation(
        image, operation, sign * strength / STRENGTHS, TRIVIAL_AUGMENT, fill, fill_value, interpolation
    )


def apply_operation(
    image: jax.Array,
    operation: int | jax.Array,
    strength: float | jax.Array,
    ranges: Ranges,
    fill: FillMode = "reflect",
    fill_value: float = 0.0,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """float32[h w c] after the operation at that place of OPERATIONS (or INVERT); strength: -1 to 1 of `ranges`.

    Operations without a direction take the strength without its sign.
    """
    switch = partial(_switch, ranges=ranges, fill=fill, fill_value=fill_value, interpolation=interpolation)
    # Under vmap a switch computes every branch for every image. A CPU does better image by image, where it computes
    # only the one drawn (5 to 8 times as fast, for 64 images of 28×28×1 and of
    # 180×180×3); other devices need the whole batch to be busy.
    return lax.platform_dependent(
        image,
        jnp.asarray(operation, jnp.int32),
        jnp.asarray(strength, jnp.float32),
        cpu=sequential_vmap(switch),
        default=switch,
    )


def _switch(
    image: jax.Array,
    operation: jax.Array,
    strength: jax.Array,
    *,
    ranges: Ranges,
    fill: FillMode,
    fill_value: float,
    interpolation: Interpolation,
) -> jax.Array:
    def bend(image: jax.Array, strength: jax.Array) -> jax.Array:
        matrix = _matrix(operation, strength, ranges, image.shape)
        return warp(image, matrix, fill, fill_value, interpolation)

    colors = [partial(_recolor, name, ranges) for name in _COLOR]
    branches = [*colors, bend, lambda image, strength: color.invert(image)]  # all geometry is one warp
    branch = jnp.where(operation == INVERT, len(_COLOR) + 1, jnp.minimum(operation, len(_COLOR)))
    return lax.switch(branch, branches, image, strength)


def _recolor(name: str, ranges: Ranges, image: jax.Array, strength: jax.Array) -> jax.Array:
    factor, unsigned = 1 + strength * ranges.enhance, jnp.abs(strength)
    match name:
        case "brightness":
            return color.adjust_brightness(image, factor)
        case "contrast":
            return color.adjust_contrast(image, factor)
        case "saturation":
            return color.adjust_saturation(image, factor)
        case "sharpness":
            return color.adjust_sharpness(image, factor)
        case "posterize":
            return color.posterize(image, 8 - jnp.round(unsigned * ranges.posterize))
        case "solarize":
            return color.solarize(image, 256 - unsigned * ranges.solarize)
        case "autocontrast":
            return color.autocontrast(image)
        case "equalize":
            return color.equalize(image)
    return image


def _matrix(operation: jax.Array, strength: jax.Array, ranges: Ranges, shape: tuple[int, ...]) -> jax.Array:
    """float32[3 3]: that of a geometric operation; the identity for any other."""

    def amount(name: str, most: float) -> jax.Array:
        return jnp.where(operation == OPERATIONS.index(name), strength * most, 0.0)

    down, right = (min(ranges.translate * side, ranges.translate_pixels) for side in shape[:2])
    turn_and_shift = jnp.matmul(
        rotated(amount("rotate", ranges.rotate)),
        shifted(amount("translate_y", down), amount("translate_x", right)),
        precision="highest",
    )
    shear_y, shear_x = amount("shear_y", ranges.shear), amount("shear_x", ranges.shear)
    return turn_and_shift.at[0, 1].add(shear_y).at[1, 0].add(shear_x)


def _draw(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(place in OPERATIONS, -1 or 1, strength from 0 to STRENGTHS), uniform and whole."""
    operation_key, sign_key, strength_key = jax.random.split(key, 3)
    return (
        jax.random.randint(operation_key, (), 0, len(OPERATIONS)),
        jax.random.rademacher(sign_key, ()),
        jax.random.randint(strength_key, (), 0, STRENGTHS + 1),
    )

"""The operations of the policies against Pillow, and what the policies draw."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from engine.augment import policies
from engine.augment.apply import augment_policy
from engine.augment.config import AugmentConfig
from engine.augment.policies import (
    OPERATIONS,
    RAND_AUGMENT,
    TRIVIAL_AUGMENT,
    rand_augment,
    trivial_augment,
)

HEIGHT, WIDTH = 40, 44
# Too few pixels for equalize to act, and no room for autocontrast.
FULL_RANGE = jnp.linspace(0, 255, 12 * 9 * 3).reshape(12, 9, 3).at[0, 0].set(0).at[-1, -1].set(255)


def smooth_image() -> np.ndarray:
    """float32[h w 3] of whole levels that bilinear reading finds nearly straight between pixels."""
    noise = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0))
    return np.round(20 + 200 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def affine(
    y_of_x: float = 0, x_of_y: float = 0, down: float = 0, right: float = 0
) -> Callable[[Image.Image], Image.Image]:
    """Reads at x + x_of_y y - right, y + y_of_x x - down, counted from the centre."""
    middle_y, middle_x = (HEIGHT / 2), (WIDTH / 2)
    rows = (1, x_of_y, -x_of_y * middle_y - right, y_of_x, 1, -y_of_x * middle_x - down)
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)


def enhance(kind: type, factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: kind(image).enhance(factor)


# (policy, operation, strength) and the numbers that the papers give for it, in Pillow's words.
PILLOW: dict[tuple[str, str, float], Callable[[Image.Image], Image.Image]] = {
    ("rand", "identity", 1.0): lambda image: image,
    ("rand", "autocontrast", 1.0): ImageOps.autocontrast,
    ("rand", "equalize", 1.0): ImageOps.equalize,
    ("rand", "solarize", 0.5): lambda image: ImageOps.solarize(image, 128),
    ("rand", "solarize", -0.25): lambda image: ImageOps.solarize(image, 192),
    ("rand", "saturation", 1.0): enhance(ImageEnhance.Color, 1.9),
    ("rand", "posterize", 1.0): lambda image: ImageOps.posterize(image, 4),
    ("rand", "posterize", 0.3): lambda image: ImageOps.posterize(image, 7),
    ("rand", "contrast", -1.0): enhance(ImageEnhance.Contrast, 0.1),
    ("rand", "brightness", 0.5): enhance(ImageEnhance.Brightness, 1.45),
    ("rand", "sharpness", 1.0): enhance(ImageEnhance.Sharpness, 1.9),
    ("rand", "rotate", 1.0): lambda image: image.rotate(30, Image.Resampling.BILINEAR),
    ("rand", "rotate", -0.5): lambda image: image.rotate(-15, Image.Resampling.BILINEAR),
    ("rand", "shear_x", 1.0): affine(x_of_y=0.3),
    ("rand", "shear_y", -1.0): affine(y_of_x=-0.3),
    ("rand", "translate_x", 0.5): affine(right=75 / 331 * WIDTH),
    ("rand", "translate_y", -0.5): affine(down=-75 / 331 * HEIGHT),
    ("trivial", "solarize", 1.0): lambda image: ImageOps.solarize(image, 0),
    ("trivial", "saturation", -1.0): enhance(ImageEnhance.Color, 0.01),
    ("trivial", "posterize", 1.0): lambda image: ImageOps.posterize(image, 2),
    ("trivial", "contrast", 1.0): enhance(ImageEnhance.Contrast, 1.99),
    ("trivial", "brightness", -1.0): enhance(ImageEnhance.Brightness, 0.01),
    ("trivial", "sharpness", -1.0): enhance(ImageEnhance.Sharpness, 0.01),
    ("trivial", "rotate", 1.0): lambda image: image.rotate(135, Image.Resampling.BILINEAR),
    ("trivial", "shear_x", -0.5): affine(x_of_y=-0.495),
    ("trivial", "shear_y", 0.5): affine(y_of_x=0.495),
    ("trivial", "translate_x", -1.0): affine(right=-32),
    ("trivial", "translate_y", 0.75): affine(down=24),
}
RANGES = {"rand": RAND_AUGMENT, "trivial": TRIVIAL_AUGMENT}
GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@partial(jax.jit, static_argnames=("ranges", "fill"))
def apply(
    image: jax.Array, name: jax.Array, strength: jax.Array, ranges: policies.Ranges, fill: str = "constant"
) -> jax.Array:
    return policies.apply_operation(image, name, strength, ranges, fill)  # type: ignore[arg-type]


def test_every_operation_has_a_case():
    assert {name for _, name, _ in PILLOW} == set(OPERATIONS)
    assert len(set(OPERATIONS)) == 14


@pytest.mark.parametrize(("policy", "name", "strength"), PILLOW)
def test_operation_is_that_of_pillow(policy: str, name: str, strength: float):
    image = smooth_image()
    expected = np.asarray(PILLOW[policy, name, strength](Image.fromarray(image.astype(np.uint8))), np.float32)
    got = np.asarray(apply(image, OPERATIONS.index(name), strength, RANGES[policy]))
    # Pillow's whole levels: cut or rounded, and so is the grey or the mean that factors refer to.
    agrees = np.abs(got - expected) <= 2.01
    if name in GEOMETRY:  # at the border Pillow fills from half a pixel outside on, we blend with the fill
        inside = np.all(ndimage.binary_erosion(np.all(expected > 0, axis=2), iterations=2)[..., None] <= agrees, axis=2)
        outside = ndimage.binary_erosion(np.all(expected == 0, axis=2), iterations=2, border_value=1)
        assert np.all(inside)
        assert np.all(got[outside] == 0)
    else:
        assert np.all(agrees)


def test_translation_of_an_image_below_32_pixels_ends_at_its_side():
    image = jnp.full((8, 8, 1), 200.0)
    moved = apply(image, OPERATIONS.index("translate_x"), 0.5, TRIVIAL_AUGMENT)
    np.testing.assert_array_equal(moved[:, :4], 0)
    np.testing.assert_array_equal(moved[:, 4:], 200)


@pytest.mark.parametrize("ranges", [RAND_AUGMENT, TRIVIAL_AUGMENT], ids=["rand", "trivial"])
def test_strength_0_gives_the_image_back_to_the_bit(ranges: policies.Ranges):
    for name in OPERATIONS:
        np.testing.assert_array_equal(apply(FULL_RANGE, OPERATIONS.index(name), 0.0, ranges), FULL_RANGE)


def test_rand_augment_of_magnitude_0_changes_nothing_where_strength_counts():
    changed = jax.jit(jax.vmap(lambda key: rand_augment(key, FULL_RANGE, 3, 0)))(
        jax.random.split(jax.random.key(0), 100)
    )
    np.testing.assert_array_equal(changed, np.broadcast_to(FULL_RANGE, changed.shape))


def outcomes(image: jax.Array, strengths: np.ndarray, ranges: policies.Ranges) -> np.ndarray:
    """[operation strength hwc]: what each makes of an image, by vmap of vmap as for members that train together."""
    table = jax.vmap(jax.vmap(lambda o, s: policies.apply_operation(image, o, s, ranges), (None, 0)), (0, None))
    return np.asarray(jax.jit(table)(jnp.arange(14), jnp.asarray(strengths, jnp.float32))).reshape(
        14, len(strengths), -1
    )


def operations_seen(images: jax.Array, table: np.ndarray) -> np.ndarray:
    """int[n]: which operation made each image [n h w c]; the identity, the first, where others too change nothing."""
    flat = np.asarray(images).reshape(len(images), -1)
    fits = np.stack([np.abs(table - image).max(2).min(1) < 1e-2 for image in flat])  # [n operation]
    assert np.all((fits.sum(1) == 1) | fits[:, 0]), "an image that no operation of the table makes, or several do"
    return fits.argmax(1)


# 330 pixels, so that equalize acts; no level at the ends, so that autocontrast does.
BUSY = jnp.asarray(np.random.default_rng(1).integers(20, 230, (22, 15, 3)), jnp.float32)


def test_rand_augment_draws_every_operation_equally_often():
    keys = jax.random.split(jax.random.key(0), 700)
    changed = jax.jit(jax.vmap(lambda key: rand_augment(key, BUSY, 1, 15)))(keys)
    seen = operations_seen(changed, outcomes(BUSY, np.array([-0.5, 0.5]), RAND_AUGMENT))
    assert stats.chisquare(np.bincount(seen, minlength=14)).pvalue > 1e-3


def test_trivial_augment_draws_every_operation_and_strengths_that_differ():
    keys = jax.random.split(jax.random.key(0), 400)
    changed = jax.jit(jax.vmap(lambda key: trivial_augment(key, BUSY)))(keys)
    seen = operations_seen(changed, outcomes(BUSY, np.arange(-30, 31) / 30, TRIVIAL_AUGMENT))
    assert set(seen.tolist()) == set(range(14))
    brightness = np.asarray(changed)[seen == OPERATIONS.index("brightness")]
    factors = np.median(brightness / np.asarray(BUSY), axis=(1, 2, 3))
    assert factors.min() < 0.6 < 1.4 < factors.max()
    assert len(np.unique(np.round(factors, 3))) > 8


POLICIES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "rand": lambda key, image: rand_augment(key, image, 2, 15),
    "trivial": lambda key, image: trivial_augment(key, image, "constant", 50.0, "nearest"),
}


@pytest.mark.parametrize(("policy", "channels"), [("rand", 3), ("trivial", 1)])
def test_policy_gives_the_same_under_every_transformation(policy: str, channels: int):
    single, batch = jax.jit(POLICIES[policy]), jax.jit(jax.vmap(POLICIES[policy]))
    keys = jax.random.split(jax.random.key(5), 24)
    images = jnp.asarray(np.random.default_rng(2).integers(0, 256, (24, 22, 15, channels)), jnp.float32)
    expected = np.stack([single(key, image) for key, image in zip(keys, images, strict=True)])
    got = batch(keys, images)
    assert got.dtype == jnp.float32
    assert 0 <= got.min() <= got.max() <= 255
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)


def test_rand_augment_of_two_is_one_operation_after_another_and_a_function_of_the_key_alone():
    keys = jax.random.split(jax.random.key(0), 40)
    change = jax.jit(jax.vmap(lambda key: POLICIES["rand"](key, BUSY)))
    twice = np.asarray(change(keys))
    np.testing.assert_array_equal(change(keys), twice)
    once = outcomes(BUSY, np.array([-0.5, 0.5]), RAND_AUGMENT).reshape(-1, BUSY.size)
    is_single = [np.any(np.abs(once - image.reshape(-1)).max(1) < 1e-2) for image in twice]
    # One operation where the other is the identity, or changes what is changed already: about 2 of 14 and some more.
    assert 0 < np.mean(is_single) < 0.5


def test_whole_batch_at_once_as_on_a_gpu_gives_the_same_as_image_by_image():
    operations, strengths = jnp.arange(28) % 14, jnp.linspace(-1, 1, 28)
    manner = {"ranges": RAND_AUGMENT, "fill": "reflect", "fill_value": 0.0, "interpolation": "bilinear"}

    def changed_by(function: Callable[..., jax.Array]) -> jax.Array:
        return jax.jit(jax.vmap(lambda operation, strength: function(BUSY, operation, strength, **manner)))(
            operations, strengths
        )

    at_once, one_by_one = changed_by(policies._switch), changed_by(policies.apply_operation)
    np.testing.assert_allclose(at_once, one_by_one, rtol=0, atol=1e-3)


def test_batch_is_a_loop_on_a_cpu_and_none_on_a_gpu():
    function = jax.jit(jax.vmap(lambda o, s: policies.apply_operation(FULL_RANGE, o, s, RAND_AUGMENT)))
    arguments = jnp.arange(14), jnp.ones(14)
    programs = {name: jax.export.export(function, platforms=[name])(*arguments) for name in ("cpu", "cuda")}
    has_loop = {name: "stablehlo.while" in program.mlir_module() for name, program in programs.items()}
    assert has_loop == {"cpu": True, "cuda": False}


def test_augment_policy_does_what_the_config_says():
    config = AugmentConfig(fill="constant", fill_value=7.0, interpolation="nearest", policy_ops=3, policy_magnitude=20)
    how = ("constant", 7.0, "nearest")

    def program(function: Callable[[jax.Array], jax.Array]) -> str:
        return jax.jit(lambda image: function(image)).lower(BUSY).as_text()

    def configured(**fields: Any) -> str:
        return program(lambda image: augment_policy(jax.random.key(3), image, replace(config, **fields)))

    rand = program(lambda image: rand_augment(jax.random.key(3), image, 3, 20, *how))
    assert configured(policy="rand_augment") == rand != configured(policy="rand_augment", policy_magnitude=21)
    assert configured(policy="trivial_augment") == program(
        lambda image: trivial_augment(jax.random.key(3), image, *how)
    )
    assert augment_policy(jax.random.key(3), BUSY, config) is BUSY

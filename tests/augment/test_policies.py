"""The operations of the policies against Pillow, and what the policies draw."""

import hashlib
import json
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

from engine.augment import as_keras, auto_augment, color, keras_policies, policies
from engine.augment.apply import augment_policy
from engine.augment.auto_augment import pairs
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


# ---- AutoAugment ----

# SHA-256 of the tables of torchvision 0.29.2's AutoAugment as JSON, under our names of operations.
TABLES = {
    "imagenet": "e719bf4855940f957b4bca0dc82c4b253f384665a69c01e4c07cf0f3ea5da9c0",
    "cifar10": "a95f8dc532b11a59ef2dfb6eab902bb2f8cbc39d9aef6b4470e5e476deba76e4",
    "svhn": "641fbebcdbc979fcbbb41b26dccdc433f2ba4699243c875117ba61fa8163d290",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_auto_augment_are_those_of_torchvision(name: str):
    table = [[list(step) for step in pair] for pair in pairs(name)]
    assert hashlib.sha256(json.dumps(table).encode()).hexdigest() == TABLES[name]


def test_auto_augment_makes_what_its_pairs_make(monkeypatch: pytest.MonkeyPatch):
    image, config = jnp.asarray(smooth_image()), AugmentConfig(policy="auto_augment_svhn")
    monkeypatch.setitem(auto_augment.TABLES, "svhn", "invert 5 -, rotate 10 9; solarize 0 3, equalize 10 -")
    keys = jax.random.split(jax.random.key(1), 48)
    results = jax.jit(jax.vmap(lambda key: augment_policy(key, image, config)))(keys)
    turned = [policies.apply_operation(image, OPERATIONS.index("rotate"), sign, RAND_AUGMENT) for sign in (-1.0, 1.0)]
    inverted = [
        policies.apply_operation(255 - image, OPERATIONS.index("rotate"), sign, RAND_AUGMENT) for sign in (-1.0, 1.0)
    ]
    expected = jnp.stack([*turned, *inverted, color.equalize(image)])
    distances = np.abs(np.asarray(results)[:, None] - np.asarray(expected)[None]).max((2, 3, 4))
    assert distances.min(1).max() < 0.1
    assert set(distances.argmin(1)) == set(range(5))


# ---- RandAugment and AugMix of Keras ----

FACTOR = (0.1, 0.45)


def test_operations_are_those_of_keras(keras):
    """Each operation at draws in the middle of its ranges, against the layer that Keras's RandAugment has for it."""
    image, layer = smooth_image(), keras.layers.RandAugment(factor=FACTOR)
    shown, middle = image[None], sum(FACTOR) / 2
    drawn = {
        "random_shear": {"shear_factor": jnp.array([[-middle, -middle]]), "input_shape": shown.shape},
        "random_translation": {"translations": jnp.array([[middle * WIDTH, middle * HEIGHT]])},
        "random_rotation": None,
        "random_brightness": {"rgb_delta": jnp.full((1, 1, 1, 1), 255 * middle)},
        "random_color_degeneration": {"factor": jnp.full((1, 1, 1, 1), middle)},
        "random_contrast": {"contrast_factor": jnp.full((1, 1, 1, 1), 1 + (FACTOR[1] - FACTOR[0]) / 2)},
        "random_sharpness": {"factor": jnp.array([middle])},
        "random_posterization": {"shift_factor": jnp.array([8 - 2], jnp.uint8)},
        "solarization": dict.fromkeys(("additions", "thresholds"), (FACTOR[0] + 255 * FACTOR[1]) / 2),
        "auto_contrast": None,
        "equalization": None,
    }
    assert list(drawn) == layer._AUGMENT_LAYERS
    assert len(keras_policies.OPERATIONS) == len(drawn)
    layer.random_rotation.factor = (middle, middle)
    drawn["random_rotation"] = layer.random_rotation.get_random_transformation(shown)
    names = ["shear", "translation", "rotation", "brightness", "color", "contrast", "sharpness", "posterization",
             "solarization", "autocontrast", "equalization"]  # fmt: skip
    for name, part in zip(names, drawn, strict=True):
        expected = getattr(layer, part).transform_images(jnp.asarray(shown), drawn[part])[0]
        number = keras_policies.OPERATIONS.index(name)
        draws = jnp.array([0.5, 0.5])
        result = keras_policies.apply_operation(jnp.asarray(image), number, draws, -1.0, FACTOR)
        np.testing.assert_allclose(result, expected, rtol=0, atol=0.5, err_msg=name)
        assert np.abs(np.asarray(result) - image).max() > 1, name
    result = keras_policies.apply_operation(jnp.asarray(image), keras_policies.IDENTITY, draws, 1.0, FACTOR)
    np.testing.assert_array_equal(result, image)


@pytest.mark.long
def test_posterization_draws_the_bits_of_keras(keras):
    image = jnp.asarray(smooth_image())
    for factor, bits in (((0.0, 0.3), {1}), ((0.0, 0.5), {1, 2, 3}), ((0.0, 0.05), {1})):
        drawn = keras.layers.RandomPosterization(max(1, int(8 * factor[1]))).get_random_transformation(
            np.zeros((200, 2, 2, 3), np.float32)
        )
        assert {8 - int(shift) for shift in np.asarray(drawn["shift_factor"])} == bits
        number, found = keras_policies.OPERATIONS.index("posterization"), set()
        for draw in np.linspace(0, 0.999, 8):
            ours = keras_policies.apply_operation(image, number, jnp.array([draw, 0]), 1.0, factor)
            found |= {b for b in range(1, 9) if np.array_equal(ours, as_keras.posterize(image, b))}
        assert found == bits


def test_aug_mix_blends_the_image_with_a_blend_of_chains():
    image = jnp.asarray(smooth_image())
    config = AugmentConfig(policy="aug_mix", policy_factor=(0.3, 0.3), policy_depth=1, policy_chains=2)
    keys = jax.random.split(jax.random.key(0), 24)
    program = jax.jit(jax.vmap(lambda key: augment_policy(key, image, config)))
    results = np.asarray(program(keys))
    assert results.min() >= 0
    assert results.max() <= 255
    moved = np.abs(results - np.asarray(image)).mean((1, 2, 3))
    assert len(set(np.round(moved, 4))) > 20  # shares are drawn for each
    np.testing.assert_array_equal(results, program(keys))


def test_aug_mix_without_all_operations_leaves_them_out(monkeypatch: pytest.MonkeyPatch):
    drawn: list[Any] = []
    monkeypatch.setattr(keras_policies, "_chain", lambda key, image, choices, *rest: drawn.append(choices) or image)
    image = jnp.asarray(smooth_image())
    for all_ops, number in ((True, 12), (False, 8)):
        config = AugmentConfig(policy="aug_mix", policy_all_ops=all_ops)
        result = augment_policy(jax.random.key(0), image, config)
        np.testing.assert_allclose(result, image, atol=1e-3)  # shares of chains add up to 1
        assert len(drawn[-1]) == number
    left_out = {keras_policies.OPERATIONS[int(n)] for n in drawn[0] if n not in drawn[1]}
    assert left_out == {"brightness", "color", "contrast", "sharpness"}

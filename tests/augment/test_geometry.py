"""The warp against scipy, Pillow and numpy; what its matrices do, how they are drawn and how they go together."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache, partial, reduce
from itertools import product
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats

from engine.augment import geometry
from engine.augment.apply import augment_image
from engine.augment.config import AugmentConfig, FillMode, Interpolation
from engine.augment.geometry import augment_geometry, draw_matrix, flipped, rotated, sheared, shifted, warp, zoomed
from engine.augment.rules import MANNERS, find_marks
from tests.further import choose_examples
from tests.harnesses import HARNESSES, looped

AMOUNTS, FACTORS, PROBABILITIES = (
    [name for name, mark in find_marks(AugmentConfig).items() if mark.kind == kind]
    for kind in ("amount", "factor", "probability")
)

SETTINGS = settings(max_examples=choose_examples(3, 5), derandomize=True, deadline=None, database=None)
# Those of other libraries are compared with Keras: see test_augment_keras.py.
SCIPY_MODES: dict[FillMode, str] = {
    "constant": "grid-constant",
    "edge": "nearest",
    "reflect": "reflect",
    "wrap": "grid-wrap",
}
OWN_FILLS: tuple[FillMode, ...] = ("constant", "edge", "reflect", "wrap")
PAD_MODES: dict[FillMode, Any] = {"constant": "constant", "edge": "edge", "reflect": "symmetric", "wrap": "wrap"}
ORDERS: dict[Interpolation, int] = {"bilinear": 1, "nearest": 0}
FILL_VALUE = 37.0
SHAPES = [(8, 8, 1), (9, 6, 3), (1, 5, 1), (4, 1, 3), (1, 1, 1)]  # few, for each is compiled
LEVELS = 0.05  # what the rounding of places in float32 can make, far outside; a wrong pixel is off by many levels


def random_image(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


def random_matrices(num: int, height: int, width: int, seed: int) -> np.ndarray:
    """[num 3 3]: any linear part, and shifts within the image, or up to ten images beyond it."""
    draw = np.random.default_rng(seed)
    matrices = np.tile(np.eye(3), (num, 1, 1))
    matrices[:, :2, :2] = draw.normal(0, 1.5, (num, 2, 2))
    reach = draw.choice([0.5, 10], (num, 1)) * [height, width]
    matrices[:, :2, 2] = draw.uniform(-reach, reach)
    return matrices.astype(np.float32)


def about_first_pixel(matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """The matrix between places counted from the first pixel, as scipy counts them, in float64."""
    to_centre = np.eye(3)
    to_centre[:2, 2] = (height - 1) / 2, (width - 1) / 2
    return to_centre @ np.asarray(matrix, np.float64) @ np.linalg.inv(to_centre)


def scipy_warp(image: np.ndarray, matrix: np.ndarray, fill: FillMode, interpolation: Interpolation) -> np.ndarray:
    full = about_first_pixel(matrix, *image.shape[:2])
    how = {"order": ORDERS[interpolation], "mode": SCIPY_MODES[fill], "cval": FILL_VALUE}
    channels = np.moveaxis(image.astype(np.float64), -1, 0)
    return np.stack([ndimage.affine_transform(channel, full, **how) for channel in channels], -1)


def places(matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64[2 h w]: where every output pixel is read, from the first pixel."""
    y, x = np.mgrid[:height, :width]
    return np.einsum("ij,jhw->ihw", about_first_pixel(matrix, height, width), np.stack([y, x, np.ones_like(y)]))[:2]


def is_near_tie(matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool[h w]: places so near the middle between two pixels that rounding in float32 may take either."""
    at = places(matrix, height, width)
    return np.any(np.abs(at - np.floor(at) - 0.5) < 1e-3, axis=0)


def looks_uniform(values: np.ndarray, low: float, high: float) -> bool:
    """Whether values lie within [low, high] and look drawn from it uniformly; fails a sound draw 1 time in 1000."""
    slack = 1e-4 * (high - low)
    within = low - slack <= values.min() and values.max() <= high + slack
    return within and stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def looks_even(counts: np.ndarray) -> bool:
    """Whether counts look like those of equally frequent outcomes; fails a sound draw 1 time in 1000."""
    return stats.chisquare(counts).pvalue > 1e-3


@cache
def warps(fill: FillMode, interpolation: Interpolation) -> Callable[..., jax.Array]:
    """(image, matrices [n 3 3]) → [n h w c]."""
    one = partial(warp, fill=fill, fill_value=FILL_VALUE, interpolation=interpolation)
    return jax.jit(jax.vmap(one, in_axes=(None, 0)))


@pytest.mark.parametrize("fill", OWN_FILLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@SETTINGS
@given(seed=st.integers(0, 10_000))
def test_bilinear_warp_equals_scipy(fill: FillMode, shape: tuple[int, int, int], seed: int):
    image, matrices = random_image(shape, seed), random_matrices(24, *shape[:2], seed)
    results = np.asarray(warps(fill, "bilinear")(image, matrices))
    expected = np.stack([scipy_warp(image, matrix, fill, "bilinear") for matrix in matrices])
    np.testing.assert_allclose(results, expected, rtol=0, atol=LEVELS)


@pytest.mark.parametrize("fill", OWN_FILLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@SETTINGS
@given(seed=st.integers(0, 10_000))
def test_nearest_warp_equals_scipy_but_for_ties(fill: FillMode, shape: tuple[int, int, int], seed: int):
    image, matrices = random_image(shape, seed), random_matrices(24, *shape[:2], seed)
    results = np.asarray(warps(fill, "nearest")(image, matrices))
    expected = np.stack([scipy_warp(image, matrix, fill, "nearest") for matrix in matrices])
    tied = np.stack([is_near_tie(matrix, *shape[:2]) for matrix in matrices])
    assert tied.mean() < 0.1
    np.testing.assert_array_equal(results[~tied], expected[~tied])


@pytest.mark.parametrize("fill", ["edge", "reflect", "wrap"])
def test_warp_invents_no_levels_beyond_those_of_the_image(fill: FillMode):
    image = random_image((9, 6, 3)) * 0.5 + 60
    results = warps(fill, "bilinear")(image, random_matrices(24, 9, 6, 0))
    assert image.min() - 1e-3 <= results.min() <= results.max() <= image.max() + 1e-3
    assert results.dtype == jnp.float32


# Each builder of a matrix, as a function of a traced 0 that makes it change nothing.
NOTHING: dict[str, Callable[[jax.Array], jax.Array]] = {
    "flipped": lambda zero: flipped(zero > 0, zero > 0),
    "rotated": rotated,
    "shifted": lambda zero: shifted(zero, zero),
    "sheared": sheared,
    "zoomed": lambda zero: zoomed(1 + zero, 1 + zero),
}


def test_builder_asked_for_no_change_gives_the_identity_to_the_bit():
    for name, build in NOTHING.items():
        np.testing.assert_array_equal(jax.jit(build)(jnp.float32(0)), np.eye(3), err_msg=name)


@pytest.mark.parametrize("fill", get_args(FillMode))
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_identity_gives_the_image_back_to_the_bit(fill: FillMode, interpolation: Interpolation):
    for shape in ((9, 6, 3), (8, 8, 1), (1, 5, 1)):
        image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        np.testing.assert_array_equal(warps(fill, interpolation)(image, jnp.eye(3)[None])[0], image)


@pytest.mark.parametrize(("vertical", "horizontal"), list(product([False, True], repeat=2)))
@pytest.mark.parametrize("shape", [(9, 6, 3), (8, 8, 1)], ids=str)
def test_flip_is_numpys_to_the_bit(vertical: bool, horizontal: bool, shape: tuple[int, int, int]):
    image = random_image(shape)
    axes = [axis for axis, is_flipped in enumerate((vertical, horizontal)) if is_flipped]
    for fill, interpolation in product(OWN_FILLS, get_args(Interpolation)):
        result = warps(fill, interpolation)(image, flipped(vertical, horizontal)[None])[0]
        np.testing.assert_array_equal(result, np.flip(image, axes))


SHIFTS = [(0, 0), (1, 0), (0, 1), (-2, 3), (3, -2), (5, 5), (-9, 6), (10, -14)]  # down and right, beyond one image too


@pytest.mark.parametrize("fill", OWN_FILLS)
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_shift_by_whole_pixels_is_numpys_pad_and_slice_to_the_bit(fill: FillMode, interpolation: Interpolation):
    height, width, margin = 9, 6, 14
    image = random_image((height, width, 3))
    how = {"constant_values": FILL_VALUE} if fill == "constant" else {}
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), PAD_MODES[fill], **how)
    results = warps(fill, interpolation)(image, jnp.stack([shifted(down, right) for down, right in SHIFTS]))
    for (down, right), result in zip(SHIFTS, results, strict=True):
        top, left = margin - down, margin - right
        np.testing.assert_array_equal(result, padded[top : top + height, left : left + width])
        if fill == "wrap":
            np.testing.assert_array_equal(result, np.roll(image, (down, right), (0, 1)))


ANGLES = [-170.0, -90.0, -33.0, 4.5, 30.0, 90.0, 135.0, 180.0]


@pytest.mark.parametrize("fill", OWN_FILLS)
def test_turn_is_scipys_counter_clockwise_one(fill: FillMode):
    image = random_image((9, 6, 3))
    results = warps(fill, "bilinear")(image, jnp.stack([rotated(angle) for angle in ANGLES]))
    for angle, result in zip(ANGLES, results, strict=True):
        expected = ndimage.rotate(image, angle, reshape=False, order=1, mode=SCIPY_MODES[fill], cval=FILL_VALUE)
        np.testing.assert_allclose(result, expected, rtol=0, atol=LEVELS)


@pytest.mark.parametrize("interpolation", ORDERS)
def test_turn_is_pillows_within_the_image(interpolation: Interpolation):
    height, width = 25, 19  # odd, so that a quarter turn lands on pixels
    image = random_image((height, width, 1))
    resampling = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}[interpolation]
    results = warps("constant", interpolation)(image, jnp.stack([rotated(angle) for angle in ANGLES]))
    for angle, result in zip(ANGLES, results, strict=True):
        expected = np.asarray(Image.fromarray(image[..., 0]).rotate(angle, resampling))
        y, x = places(np.asarray(rotated(angle)), height, width)
        is_inside = (y > 0.01) & (y < height - 1.01) & (x > 0.01) & (x < width - 1.01)  # Pillow ends harder than scipy
        if interpolation == "nearest":  # Pillow counts places in 1/65536
            is_inside &= ~np.any(np.abs(np.stack([y % 1, x % 1]) - 0.5) < 0.01, axis=0)
        assert is_inside.mean() > 0.4
        np.testing.assert_allclose(np.asarray(result)[is_inside, 0], expected[is_inside], rtol=0, atol=LEVELS)


def test_quarter_turn_is_numpys_rot90():
    image = random_image((7, 7, 3))
    for quarters in (-1, 1, 2):
        result = warps("constant", "nearest")(image, rotated(90.0 * quarters)[None])[0]
        np.testing.assert_array_equal(result, np.rot90(image, quarters))


def test_builders_move_what_is_seen_the_way_they_say():
    def seen_at(matrix: jax.Array, down: float, right: float) -> np.ndarray:
        """Where what lies there in the input, from the centre, is seen in the output: (down, right)."""
        return (np.linalg.inv(np.asarray(matrix, np.float64)) @ [down, right, 1])[:2]

    half = np.sqrt(0.5)
    for matrix, came_from, goes_to in (
        (rotated(90), (0, 1), (-1, 0)),  # what was right is up
        (rotated(45), (1, 0), (half, half)),  # what was below goes to the right
        (shifted(2, -3), (0, 0), (2, -3)),
        (zoomed(2, 4), (6, 8), (3, 2)),  # a wider view: everything nearer to the centre
        (sheared(45), (0, 5), (0, 5)),  # the x axis stays
        (sheared(45), (1, 0), (np.sqrt(2), 1)),  # the y axis turns to the right below, to the left above
        (flipped(True, False), (3, 4), (-3, 4)),
        (flipped(False, True), (3, 4), (3, -4)),
    ):
        np.testing.assert_allclose(seen_at(matrix, *came_from), goes_to, atol=1e-5)


def test_shear_turns_the_y_axis_by_its_degrees():
    for degrees in (-60.0, -10.0, 25.0, 80.0):
        down, right = np.linalg.inv(np.asarray(sheared(degrees), np.float64))[:2, 0]
        assert np.tan(np.deg2rad(degrees)) == pytest.approx(right, rel=1e-5)
        assert 1 / np.cos(np.deg2rad(degrees)) == pytest.approx(down, rel=1e-5)


# The geometry fields in their order, each switched on by itself.
FIELDS: dict[str, dict[str, Any]] = {
    "horizontal_flip": {"horizontal_flip": True},
    "vertical_flip": {"vertical_flip": True},
    "rotation": {"rotation": (-20.0, 70.0)},
    "height_shift": {"height_shift": (-0.1, 0.3)},
    "width_shift": {"width_shift": 0.25},
    "shear": {"shear": (-10.0, 25.0)},
    "zoom": {"zoom": (0.7, 1.2), "width_zoom": (1.0, 1.0)},
    "width_zoom": {"width_zoom": (0.8, 1.5)},
    "crop_padding": {"crop_padding": 2},
    "crop_area": {"crop_area": (0.3, 0.6)},
}
# Those whose draws are no product of independent matrices with the others'.
APART: dict[str, dict[str, Any]] = {
    "height_shift_steps": {"height_shift_steps": (1.0, 4.0)},
    "width_shift_steps": {"width_shift_steps": (0.1, 0.3)},
    "shear_x": {"shear_x": 0.4},
    "shear_y": {"shear_y": (0.1, 0.2)},
    "perspective": {"perspective": 0.7, "perspective_scale": 0.5},
    "elastic": {"elastic": 0.5},
}
ALL_ON = AugmentConfig(**{name: value for on in [*FIELDS.values(), FIELDS["zoom"]] for name, value in on.items()})
ALL_ON = replace(ALL_ON, width_zoom=FIELDS["width_zoom"]["width_zoom"])
HEIGHT, WIDTH = 12, 17


NUM = 2000


@cache
def draw_keys() -> jax.Array:
    return jax.random.split(jax.random.key(5), NUM)


@cache
def drawn(config: AugmentConfig) -> np.ndarray:
    """float32[NUM 3 3]: the matrices of as many keys; not jitted, for each config would be compiled."""
    return np.asarray(jax.vmap(lambda key: draw_matrix(key, HEIGHT, WIDTH, config))(draw_keys()))


def test_cases_name_all_geometry_fields_in_their_order():
    names = [field.name for field in fields(AugmentConfig)]
    before = names[: names.index("brightness")]
    assert {*(name for name in before if name not in MANNERS)} - {"random_crop"} == {*FIELDS, *APART}
    assert {*FIELDS, *APART} == {*geometry.FIELDS}
    assert list(FIELDS) == [name for name in before if name in FIELDS]


@pytest.mark.parametrize("name", APART)
def test_field_apart_leaves_the_draws_of_a_turn_and_a_crop(name: str):
    turn, crop = AugmentConfig(rotation=30.0), AugmentConfig(crop_area=(0.3, 0.6))
    together = replace(turn, crop_area=crop.crop_area, **APART[name])
    expected = drawn(turn).astype(np.float64) @ drawn(AugmentConfig(**APART[name])) @ drawn(crop)
    np.testing.assert_allclose(drawn(together), expected, rtol=0, atol=1e-4)


def test_fields_together_are_the_product_of_the_fields_one_by_one_with_the_same_draws():
    single = [drawn(AugmentConfig(**on)).astype(np.float64) for on in FIELDS.values()]
    together = drawn(ALL_ON)
    np.testing.assert_allclose(together, reduce(np.matmul, single), rtol=0, atol=1e-4)
    swapped = reduce(np.matmul, [single[5], single[2], *single[6:]])
    assert np.abs(swapped - reduce(np.matmul, [single[2], single[5], *single[6:]])).max() > 0.1, "order is not tested"


@pytest.mark.parametrize("name", FIELDS)
def test_field_switched_off_leaves_the_draws_of_the_others(name: str):
    off = replace(ALL_ON, **{field: getattr(AugmentConfig(), field) for field in FIELDS[name]})
    if name == "zoom":
        off = replace(off, width_zoom=ALL_ON.width_zoom)
    elif name == "width_zoom":
        off = replace(off, width_zoom=(1.0, 1.0))
    others = [drawn(AugmentConfig(**on)).astype(np.float64) for other, on in FIELDS.items() if other != name]
    np.testing.assert_allclose(drawn(off), reduce(np.matmul, others), rtol=0, atol=1e-4)
    assert np.abs(drawn(off) - drawn(ALL_ON)).max() > 0.01


def test_all_geometry_is_interpolated_once():
    image, num = random_image((HEIGHT, WIDTH, 3)), 3
    results = jax.jit(jax.vmap(lambda key: augment_geometry(key, jnp.asarray(image), ALL_ON)))(draw_keys()[:num])
    for i, result in enumerate(results):
        once = scipy_warp(image, drawn(ALL_ON)[i], "reflect", "bilinear")
        np.testing.assert_allclose(result, once, rtol=0, atol=LEVELS)
        again_and_again = image
        for on in FIELDS.values():
            again_and_again = scipy_warp(again_and_again, drawn(AugmentConfig(**on))[i], "reflect", "bilinear")
        assert np.abs(result - again_and_again).mean() > 5, "several interpolations would be the same"


def test_config_without_geometry_does_nothing_at_all():
    image = jnp.ones((4, 4, 3))
    assert augment_geometry(jax.random.key(0), image, AugmentConfig(brightness=0.5, fill="wrap")) is image


@pytest.mark.parametrize("fill", OWN_FILLS)
def test_crop_with_padding_is_numpys_pad_and_slice_and_every_offset_is_equally_likely(fill: FillMode):
    pad, num = 2, 1000
    image = random_image((5, 8, 3))
    config = AugmentConfig(crop_padding=pad, fill=fill, fill_value=FILL_VALUE)
    how = {"constant_values": FILL_VALUE} if fill == "constant" else {}
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), PAD_MODES[fill], **how)
    offsets = list(product(range(2 * pad + 1), repeat=2))
    crops = np.stack([padded[top : top + 5, left : left + 8] for top, left in offsets])
    keys = jax.random.split(jax.random.key(0), num)
    results = np.asarray(jax.jit(jax.vmap(lambda key: augment_geometry(key, image, config)))(keys))
    is_crop = np.all(results[:, None] == crops[None], axis=(2, 3, 4))  # [num offsets]
    assert np.all(is_crop.sum(1) == 1)
    assert looks_even(is_crop.sum(0))


@pytest.mark.parametrize("area", [(0.08, 0.5), (0.9, 1.0)])
def test_random_resized_crop_lies_within_the_image_and_keeps_area_and_ratio(area: tuple[float, float]):
    matrices = drawn(AugmentConfig(crop_area=area))
    (height, width), (down, right) = (matrices[:, 0, 0], matrices[:, 1, 1]), (matrices[:, 0, 2], matrices[:, 1, 2])
    assert np.all(matrices[:, [0, 1], [1, 0]] == 0)
    for share, move, size in ((height, down, HEIGHT), (width, right, WIDTH)):
        assert np.all(share > 0)
        assert np.all(np.abs(move) + share * size / 2 <= size / 2 + 1e-4)
    assert looks_uniform(height * width, *area)
    assert np.all((width / height > 3 / 4 - 1e-4) & (width / height < 4 / 3 + 1e-4))


def test_random_resized_crop_is_drawn_uniformly_in_place_and_logarithm_of_the_ratio():
    matrices = drawn(AugmentConfig(crop_area=(0.1, 0.4), crop_ratio=(0.5, 2.0)))  # that every box fits
    height, width = matrices[:, 0, 0], matrices[:, 1, 1]
    assert looks_uniform(np.log(width / height), -np.log(2), np.log(2))
    assert looks_uniform(matrices[:, 0, 2] / (HEIGHT * (1 - height)), -0.5, 0.5)
    assert looks_uniform(matrices[:, 1, 2] / (WIDTH * (1 - width)), -0.5, 0.5)


def test_random_resized_crop_is_pillows_resize_of_the_box():
    image, config = random_image((HEIGHT, WIDTH, 1)), AugmentConfig(crop_area=(0.2, 0.9), crop_ratio=(0.5, 2.0))
    matrices = drawn(config)[:20]
    results = warps("reflect", "bilinear")(image, matrices)
    for matrix, result in zip(matrices.astype(np.float64), results, strict=True):
        middle, half = matrix[:2, 2] + np.array([HEIGHT, WIDTH]) / 2, np.diag(matrix)[:2] * [HEIGHT, WIDTH] / 2
        (top, left), (bottom, right) = np.maximum(middle - half, 0), np.minimum(middle + half, [HEIGHT, WIDTH])
        box = (left, top, right, bottom)
        expected = Image.fromarray(image[..., 0]).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box)
        np.testing.assert_allclose(np.asarray(result)[..., 0], np.asarray(expected), rtol=0, atol=LEVELS)


def test_crop_of_the_whole_image_is_the_identity_to_the_bit():
    assert np.all(drawn(AugmentConfig(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0))) == np.eye(3))


def test_flips_happen_half_of_the_time_and_independently():
    signs = drawn(AugmentConfig(horizontal_flip=True, vertical_flip=True))[:, [0, 1], [0, 1]]
    assert set(np.abs(signs).ravel()) == {1}
    assert looks_even(np.unique(signs, axis=0, return_counts=True)[1])
    assert np.all(drawn(AugmentConfig(horizontal_flip=True))[:, 0, 0] == 1)


@pytest.mark.parametrize("given_range", [30.0, (-10.0, 80.0)])
def test_rotation_is_drawn_uniformly(given_range: Any):
    config = AugmentConfig(rotation=given_range)
    matrices = drawn(config)
    assert looks_uniform(np.rad2deg(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0])), *config.range("rotation"))


@pytest.mark.parametrize("given_range", [0.2, (-0.1, 0.5)])
def test_shift_by_a_fraction_is_drawn_uniformly(given_range: Any):
    config = AugmentConfig(height_shift=given_range, width_shift=given_range)
    moves = -drawn(config)[:, :2, 2] / [HEIGHT, WIDTH]
    assert all(looks_uniform(moves[:, axis], *config.range("height_shift")) for axis in (0, 1))
    assert abs(np.corrcoef(moves.T)[0, 1]) < 0.1


def test_shift_by_pixels_is_whole_and_every_step_of_the_range_is_equally_likely():
    matrices = drawn(AugmentConfig(height_shift=(-1.0, 3.0), width_shift=2.0, shift_unit="pixels"))
    for axis, steps in ((0, range(-1, 4)), (1, range(-2, 3))):
        values, counts = np.unique(-matrices[:, axis, 2], return_counts=True)
        assert list(values) == list(steps)
        assert looks_even(counts)


def test_shift_of_one_axis_leaves_the_other():
    for unit, amount in (("pixels", 3.0), ("fraction", 0.3)):
        assert np.all(drawn(AugmentConfig(height_shift=amount, shift_unit=unit))[:, 1, 2] == 0)
        assert np.all(drawn(AugmentConfig(width_shift=amount, shift_unit=unit))[:, 0, 2] == 0)


def test_shear_is_drawn_uniformly():
    matrices = drawn(AugmentConfig(shear=(-15.0, 40.0)))
    assert looks_uniform(-np.rad2deg(np.arcsin(matrices[:, 1, 0])), -15, 40)


def test_zoom_is_drawn_uniformly_and_keeps_the_proportions_unless_told_otherwise():
    together, apart = (drawn(AugmentConfig(zoom=0.3, width_zoom=width)) for width in (None, (0.5, 1.5)))
    np.testing.assert_array_equal(together[:, 0, 0], together[:, 1, 1])
    np.testing.assert_array_equal(together[:, 0, 0], apart[:, 0, 0])
    assert looks_uniform(apart[:, 0, 0], 0.7, 1.3)
    assert looks_uniform(apart[:, 1, 1], 0.5, 1.5)
    assert abs(np.corrcoef(apart[:, 0, 0], apart[:, 1, 1])[0, 1]) < 0.1


@pytest.mark.parametrize("name", [name for name in (*AMOUNTS, *FACTORS) if name in FIELDS])
def test_range_of_one_point_is_always_drawn_and_one_number_is_symmetric(name: str):
    neutral = 1.0 if name in FACTORS else 0.0
    assert AugmentConfig(**{name: 0.25}).range(name) == (neutral - 0.25, neutral + 0.25)
    matrices = drawn(AugmentConfig(**{name: (0.25, 0.25)}))
    assert np.all(matrices == matrices[0])
    assert np.any(matrices[0] != np.eye(3))


@pytest.mark.parametrize("name", ["horizontal_flip", "vertical_flip", "crop_padding"])
def test_moves_by_whole_pixels_keep_the_levels_to_the_bit(name: str):
    image = np.random.default_rng(0).uniform(0, 255, (6, 7, 3)).astype(np.float32)
    config = AugmentConfig(**FIELDS[name], height_shift=2.0, shift_unit="pixels", fill="wrap")
    for seed in range(5):
        result = np.asarray(augment_geometry(jax.random.key(seed), jnp.asarray(image), config))
        np.testing.assert_array_equal(np.sort(result, axis=None), np.sort(image, axis=None))


CASES: dict[str, AugmentConfig] = {
    "flips": AugmentConfig(horizontal_flip=True, vertical_flip=True),
    "pixels": AugmentConfig(crop_padding=2, height_shift=3.0, width_shift=2.0, shift_unit="pixels", fill="wrap"),
    "all": replace(ALL_ON, fill="constant", fill_value=FILL_VALUE),
    "all, nearest": replace(ALL_ON, fill="edge", interpolation="nearest"),
}


@pytest.mark.parametrize("name", CASES)
def test_geometry_gives_the_same_under_every_transformation(name: str):
    keys, images = jax.random.split(jax.random.key(3), 3), jnp.stack([random_image((9, 8, 3), i) for i in range(3)])
    function = partial(augment_geometry, config=CASES[name])
    expected = looped(function, keys, images)
    for harness in HARNESSES.values():  # fused multiply-adds round otherwise
        np.testing.assert_allclose(harness(function, keys, images), expected, rtol=0, atol=LEVELS)


def test_image_of_whole_levels_and_the_same_as_numbers_are_changed_alike():
    image, config = random_image((9, 8, 3)), AugmentConfig(rotation=30, crop_padding=2)
    results = [augment_image(jax.random.key(0), levels, config) for levels in (image.astype(np.uint8), image)]
    assert results[0].dtype == jnp.float32
    np.testing.assert_array_equal(*results)

"""Geometry: every flip, turn, shift, shear, zoom and crop is a matrix; their product is one warp, interpolated once.

A matrix float32[3 3] takes OUTPUT places (y, x, 1), in pixels from the centre of the image, to INPUT places. Images
are float32[h w c] of any range.
"""

import zlib
from collections.abc import Callable
from functools import reduce
from math import log

import jax
import jax.numpy as jnp

from engine.augment.config import AugmentConfig, FillMode, Interpolation
from engine.augment.displacement import draw_displacement
from engine.augment.reading import read_bilinear, read_nearest
from engine.augment.rules import FILLED

FIELDS = ("horizontal_flip", "vertical_flip", *FILLED)


def flipped(vertical: jax.Array | bool, horizontal: jax.Array | bool) -> jax.Array:
    """The matrix of mirroring top and bottom, left and right, or both."""
    return zoomed(jnp.where(vertical, -1.0, 1.0), jnp.where(horizontal, -1.0, 1.0))


def rotated(degrees: jax.Array | float) -> jax.Array:
    """The matrix of a turn about the centre, counter-clockwise."""
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix(((cos, sin, 0), (-sin, cos, 0)))


def shifted(down_pixels: jax.Array | float, right_pixels: jax.Array | float) -> jax.Array:
    """The matrix of a shift."""
    return _matrix(((1, 0, -down_pixels), (0, 1, -right_pixels)))


def sheared(degrees: jax.Array | float) -> jax.Array:
    """The matrix of Keras's `ImageDataGenerator(shear_range=…)`: the y axis is turned counter-clockwise, x stays."""
    angle = jnp.deg2rad(degrees)
    return _matrix(((jnp.cos(angle), 0, 0), (-jnp.sin(angle), 1, 0)))


def zoomed(height_factor: jax.Array | float, width_factor: jax.Array | float) -> jax.Array:
    """The matrix that brings a view of `factor` times the size to full size: above 1 things get smaller."""
    return _matrix(((height_factor, 0, 0), (0, width_factor, 0)))


def sheared_about_first(height: int, width: int, shear_x: jax.Array | float, shear_y: jax.Array | float) -> jax.Array:
    """The matrix of Keras's `RandomShear`: about the upper left pixel, x + shear_x·y and y + shear_y·x are read."""
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    return _matrix(((1, shear_y, shear_y * middle_x), (shear_x, 1, shear_x * middle_y)))


def seen_in_perspective(height: int, width: int, moves: jax.Array) -> jax.Array:
    """The matrix of Keras's `RandomPerspective`: what lies in the corners is seen `moves` times further out.

    moves: float32[4 2], of x and y, in the order upper left (which stays), upper right, lower left, lower right.
    In pixels from the first one the matrix has no shift and no shear, so four equations in four unknowns are left.
    """
    last_y, last_x = max(height - 1, 1), max(width - 1, 1)
    right, lower = last_x * (1 + moves[1, 0]), last_y * (1 + moves[2, 1])
    corner_x, corner_y = last_x * (1 + moves[3, 0]), last_y * (1 + moves[3, 1])
    of_x, of_y = (corner_y / lower - 1) / corner_x, (corner_x / right - 1) / corner_y
    zero, one = jnp.zeros(()), jnp.ones(())
    about_first = jnp.stack(
        [
            jnp.stack([last_y * (of_y + 1 / lower), zero, zero]),
            jnp.stack([zero, last_x * (of_x + 1 / right), zero]),
            jnp.stack([of_y, of_x, one]),
        ]
    )
    middle = shifted(-(height - 1) / 2, -(width - 1) / 2)
    return _product([shifted((height - 1) / 2, (width - 1) / 2), about_first, middle])


def warp(
    image: jax.Array,
    matrix: jax.Array,
    fill: FillMode = "reflect",
    fill_value: float = 0.0,
    interpolation: Interpolation = "bilinear",
    displacement: jax.Array | None = None,
    is_projective: bool = False,
) -> jax.Array:
    """float32[h w c]: the image [h w c] seen through a matrix.

    fill: beyond the border lies fill_value (constant), the nearest pixel (edge), the image mirrored with its outermost
      pixels (reflect: d c b a | a b c d | d c b a) or repeated (wrap: a b c d | a b c d | a b c d). As
      scipy.ndimage's grid-constant, nearest, reflect and grid-wrap. For the others see `engine.augment.reading`.
    displacement: float32[2 h w], added to the places (y, x) that output pixels stand for.
    is_projective: whether the last row of the matrix says anything.
    """
    y, x = _places(matrix, image.shape[0], image.shape[1], displacement, is_projective)
    if interpolation == "bilinear":
        return read_bilinear(image, y, x, fill, fill_value)
    return read_nearest(image, y, x, fill, fill_value, interpolation == "nearest_away")


def augment_geometry(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c]: the image [h w c] after all the geometry that the config asks for, in one warp."""
    if not any(config.changes(name) for name in FIELDS):
        return image
    height, width, _ = image.shape
    matrix = draw_matrix(key, height, width, config)
    interpolation = "nearest" if _moves_whole_pixels(config) else config.interpolation
    displacement = None
    if config.changes("elastic"):
        displacement = draw_displacement(_field_key(key, "elastic"), height, width, config)
    is_projective = config.changes("perspective")
    return warp(image, matrix, config.fill, config.fill_value, interpolation, displacement, is_projective)


def random_crop(key: jax.Array, image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """float32[height width c]: a window of that size of an image [h w c] at least as large, every place as likely."""
    (height, width), (h, w, c) = size, image.shape
    top, left = jax.random.randint(key, (2,), 0, jnp.array([h - height + 1, w - width + 1]))
    return jax.lax.dynamic_slice(image, (top, left, 0), (height, width, c))


def draw_matrix(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    """float32[3 3]: what the config's geometry comes to for one example; flips first, crops last."""
    matrices = [draw(key, height, width, config) for names, draw in _DRAWS if any(map(config.changes, names))]
    if not matrices:
        return jnp.eye(3)
    if config.generator_geometry:
        return _about_transposed_centre(matrices, height, width, config)
    return _product(matrices)


def _field_key(key: jax.Array, name: str) -> jax.Array:
    """A key of its own, so that no field changes what another one draws."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _draw(key: jax.Array, name: str, config: AugmentConfig) -> jax.Array:
    low, high = config.range(name)
    return jax.random.uniform(_field_key(key, name), minval=low, maxval=high)


def _draw_flips(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    def coin(name: str) -> jax.Array | bool:
        return jax.random.bernoulli(_field_key(key, name)) if config.changes(name) else False

    return flipped(coin("vertical_flip"), coin("horizontal_flip"))


def _draw_shift(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    down, right = (_draw_move(key, name, size, config) for name, size in (("height", height), ("width", width)))
    return shifted(-right, -down) if config.generator_geometry else shifted(down, right)


def _draw_move(key: jax.Array, side: str, size: int, config: AugmentConfig) -> jax.Array:
    """Pixels that the image moves by along one side."""
    name = f"{side}_shift"
    steps, (low, high) = getattr(config, f"{name}_steps"), config.range(name)
    if steps:
        step_key, sign_key = jax.random.split(_field_key(key, f"{name}_steps"))
        moves = jnp.asarray(steps, jnp.float32) * (size if max(steps) < 1 else 1)
        return jax.random.choice(step_key, moves) * jax.random.rademacher(sign_key, ())
    if config.shift_unit == "pixels":
        return jax.random.randint(_field_key(key, name), (), round(low), round(high) + 1)
    move = jax.random.uniform(_field_key(key, name), minval=low, maxval=high)
    are_pixels = config.shift_unit == "keras" and max(-low, high) >= 1
    return move if are_pixels else move * size


def _draw_plain_shear(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    sign = jax.random.rademacher(_field_key(key, "shear_sign"), ())
    return sheared_about_first(
        height, width, sign * _draw(key, "shear_x", config), sign * _draw(key, "shear_y", config)
    )


def _draw_zoom(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    factor = _draw(key, "zoom", config)
    return zoomed(factor, factor if config.width_zoom is None else _draw(key, "width_zoom", config))


def _draw_perspective(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    is_seen_key, moves_key = jax.random.split(_field_key(key, "perspective"))
    reach = config.perspective_scale / 2
    matrix = seen_in_perspective(height, width, jax.random.uniform(moves_key, (4, 2), minval=-reach, maxval=reach))
    return jnp.where(jax.random.bernoulli(is_seen_key, config.perspective), matrix, jnp.eye(3))


def _draw_padded_crop(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    padding = config.crop_padding
    moves = jax.random.randint(_field_key(key, "crop_padding"), (2,), -padding, padding + 1)
    return shifted(moves[0], moves[1])


def _moves_whole_pixels(config: AugmentConfig) -> bool:
    """Whether every pixel lands on a pixel, so that one is read where interpolation would read four."""
    whole = ("crop_padding", *(("height_shift", "width_shift") if config.shift_unit == "pixels" else ()))
    return not any(config.changes(name) for name in FILLED if name not in whole)


def _draw_crop(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    """A box of a random share of the area, proportion and place, brought to full size."""
    assert config.crop_area is not None
    area_key, ratio_key, place_key = jax.random.split(_field_key(key, "crop_area"), 3)
    area = jax.random.uniform(area_key, minval=config.crop_area[0], maxval=config.crop_area[1])
    low, high = (log(ratio) for ratio in config.crop_ratio)
    ratio = jnp.exp(jax.random.uniform(ratio_key, minval=low, maxval=high))
    ratio = jnp.clip(ratio, area, 1 / area)  # beyond these a box of that area is longer than the image
    box_height, box_width = jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)
    place = jax.random.uniform(place_key, (2,), minval=-0.5, maxval=0.5)
    down, right = place[0] * (1 - box_height) * height, place[1] * (1 - box_width) * width
    return _matrix(((box_height, 0, down), (0, box_width, right)))


def _matrix(rows: tuple[tuple, tuple]) -> jax.Array:
    return jnp.stack([jnp.stack([jnp.asarray(v, jnp.float32) for v in row]) for row in (*rows, (0, 0, 1))])


def _product(matrices: list[jax.Array]) -> jax.Array:
    return reduce(lambda product, matrix: jnp.matmul(product, matrix, precision="highest"), matrices)


def _about_transposed_centre(matrices: list[jax.Array], height: int, width: int, config: AugmentConfig) -> jax.Array:
    """The product as ImageDataGenerator has it: about the centre of an image [w h], and the flips last."""
    has_flips = config.horizontal_flip or config.vertical_flip
    flips, others = (matrices[:1], matrices[1:]) if has_flips else ([], matrices)
    offset = (width - height) / 2
    if others and offset:
        others = [shifted(-offset, offset), *others, shifted(offset, -offset)]
    return _product([*others, *flips])


def _places(
    matrix: jax.Array, height: int, width: int, displacement: jax.Array | None, is_projective: bool
) -> tuple[jax.Array, jax.Array]:
    """(y, x), float32[h w] each: where in the input every output pixel lies, in pixels from its first pixel."""
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = jnp.arange(height) - middle_y, jnp.arange(width) - middle_x
    y, x = y[:, None], x[None, :]
    if displacement is not None:
        y, x = y + displacement[0], x + displacement[1]

    def row(i: int) -> jax.Array:
        return matrix[i, 0] * y + matrix[i, 1] * x + matrix[i, 2]

    if is_projective:
        return row(0) / row(2) + middle_y, row(1) / row(2) + middle_x
    return row(0) + middle_y, row(1) + middle_x


# In the order of AugmentConfig's fields, which is that in which the image undergoes them.
_DRAWS: tuple[tuple[tuple[str, ...], Callable[[jax.Array, int, int, AugmentConfig], jax.Array]], ...] = (
    (("horizontal_flip", "vertical_flip"), _draw_flips),
    (("rotation",), lambda key, height, width, config: rotated(_draw(key, "rotation", config))),
    (("height_shift", "width_shift", "height_shift_steps", "width_shift_steps"), _draw_shift),
    (("shear",), lambda key, height, width, config: sheared(_draw(key, "shear", config))),
    (("shear_x", "shear_y"), _draw_plain_shear),
    (("zoom", "width_zoom"), _draw_zoom),
    (("perspective",), _draw_perspective),
    (("crop_padding",), _draw_padded_crop),
    (("crop_area",), _draw_crop),
)

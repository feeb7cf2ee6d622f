"""Geometry: every flip, turn, shift, shear, zoom and crop is a matrix; their product is one warp, interpolated once.

A matrix float32[3 3] takes OUTPUT places (y, x, 1), in pixels from the centre of the image, to INPUT places. Images
are float32[h w c] of any range.
"""

import zlib
from math import log

import jax
import jax.numpy as jnp

from engine.augment.config import AugmentConfig, FillMode, Interpolation

FIELDS = (
    "horizontal_flip", "vertical_flip", "rotation", "height_shift", "width_shift", "shear", "zoom", "width_zoom",
    "crop_padding", "crop_area",
)  # fmt: skip


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


def warp(
    image: jax.Array,
    matrix: jax.Array,
    fill: FillMode = "reflect",
    fill_value: float = 0.0,
    interpolation: Interpolation = "bilinear",
) -> jax.Array:
    """float32[h w c]: the image [h w c] seen through a matrix.

    fill: beyond the border lies fill_value (constant), the nearest pixel (edge), the image mirrored with its outermost
      pixels (reflect: d c b a | a b c d | d c b a) or repeated (wrap: a b c d | a b c d | a b c d). As
      scipy.ndimage's grid-constant, nearest, reflect and grid-wrap.
    """
    height, width, _ = image.shape
    y, x = _places(matrix, height, width)
    if interpolation == "nearest":
        return _read(image, jnp.round(y), jnp.round(x), fill, fill_value)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]

    def read(dy: int, dx: int) -> jax.Array:
        return _read(image, top + dy, left + dx, fill, fill_value)

    upper = read(0, 0) * (1 - right) + read(0, 1) * right
    lower = read(1, 0) * (1 - right) + read(1, 1) * right
    return upper * (1 - down) + lower * down


def augment_geometry(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """float32[h w c]: the image [h w c] after all the geometry that the config asks for, in one warp."""
    if not any(config.changes(name) for name in FIELDS):
        return image
    matrix = draw_matrix(key, image.shape[0], image.shape[1], config)
    interpolation = "nearest" if _moves_whole_pixels(config) else config.interpolation
    return warp(image, matrix, config.fill, config.fill_value, interpolation)


def draw_matrix(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    """float32[3 3]: what the config's geometry comes to for one example; flips first, crops last."""

    def field_key(name: str) -> jax.Array:  # of its own, so that no field changes what another one draws
        return jax.random.fold_in(key, zlib.crc32(name.encode()))

    def draw(name: str) -> jax.Array:
        low, high = config.range(name)
        return jax.random.uniform(field_key(name), minval=low, maxval=high)

    def coin(name: str) -> jax.Array | bool:
        return jax.random.bernoulli(field_key(name)) if config.changes(name) else False

    matrices = []
    if config.horizontal_flip or config.vertical_flip:
        matrices.append(flipped(coin("vertical_flip"), coin("horizontal_flip")))
    if config.changes("rotation"):
        matrices.append(rotated(draw("rotation")))
    if config.changes("height_shift") or config.changes("width_shift"):
        matrices.append(_draw_shift(field_key, height, width, config))
    if config.changes("shear"):
        matrices.append(sheared(draw("shear")))
    if config.changes("zoom") or config.changes("width_zoom"):
        factor = draw("zoom")
        matrices.append(zoomed(factor, factor if config.width_zoom is None else draw("width_zoom")))
    if config.crop_padding:
        moves = jax.random.randint(field_key("crop_padding"), (2,), -config.crop_padding, config.crop_padding + 1)
        matrices.append(shifted(moves[0], moves[1]))
    if config.crop_area is not None:
        matrices.append(_draw_crop(field_key("crop_area"), height, width, config))
    product = matrices[0]
    for matrix in matrices[1:]:
        product = jnp.matmul(product, matrix, precision="highest")
    return product


def _moves_whole_pixels(config: AugmentConfig) -> bool:
    """Whether every pixel lands on a pixel, so that one is read where interpolation would read four."""
    shifts = ("height_shift", "width_shift") if config.shift_unit == "fraction" else ()
    return not any(map(config.changes, ("rotation", "shear", "zoom", "width_zoom", "crop_area", *shifts)))


def _draw_shift(field_key, height: int, width: int, config: AugmentConfig) -> jax.Array:
    moves = []
    for name, size in (("height_shift", height), ("width_shift", width)):
        low, high = config.range(name)
        if config.shift_unit == "pixels":
            moves.append(jax.random.randint(field_key(name), (), round(low), round(high) + 1))
        else:
            moves.append(jax.random.uniform(field_key(name), minval=low, maxval=high) * size)
    return shifted(*moves)


def _draw_crop(key: jax.Array, height: int, width: int, config: AugmentConfig) -> jax.Array:
    """A box of a random share of the area, proportion and place, brought to full size."""
    assert config.crop_area is not None
    area_key, ratio_key, place_key = jax.random.split(key, 3)
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


def _places(matrix: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """(y, x), float32[h w] each: where in the input every output pixel lies, in pixels from its first pixel."""
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = jnp.arange(height) - middle_y, jnp.arange(width) - middle_x

    def row(i: int, middle: float) -> jax.Array:
        return matrix[i, 0] * y[:, None] + matrix[i, 1] * x[None, :] + matrix[i, 2] + middle

    return row(0, middle_y), row(1, middle_x)


def _read(image: jax.Array, y: jax.Array, x: jax.Array, fill: FillMode, fill_value: float) -> jax.Array:
    """[h w c]: the pixels at whole places (y, x), float32[h w], inside or beyond the image."""
    height, width, channels = image.shape
    row, column = _inside(y.astype(jnp.int32), height, fill), _inside(x.astype(jnp.int32), width, fill)
    # One index into the image as a list of pixels: half the time of indexing rows and columns.
    pixels = jnp.asarray(image).reshape(height * width, channels).at[row * width + column].get(mode="promise_in_bounds")
    if fill == "constant":
        is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        return jnp.where(is_inside[..., None], pixels, fill_value)
    return pixels


def _inside(index: jax.Array, size: int, fill: FillMode) -> jax.Array:
    if fill == "wrap":
        return jnp.mod(index, size)
    if fill == "reflect":
        folded = jnp.mod(index, 2 * size)
        return jnp.minimum(folded, 2 * size - 1 - folded)
    return jnp.clip(index, 0, size - 1)

"""Augmentation in the words of Keras: the same argument names, ranges and fill modes, turned into an AugmentConfig.

`random_flip("horizontal") | random_rotation(0.1) | random_zoom(0.1)` is the usual stack of Keras layers. What
`ImageDataGenerator` also does to images at evaluation is part of the data here: `rescale` is `DataConfig.scale`, the
`featurewise_…`, `samplewise_…` and `zca_…` arguments are `DataConfig.standardize`.
"""

from typing import Any, Literal, get_args

from engine.augment.config import AugmentConfig, FillMode, Interpolation, Range
from engine.errors import InputError, problem, unknown

Flips = Literal["horizontal", "vertical", "horizontal_and_vertical"]
LayerFill = Literal["constant", "nearest", "reflect", "wrap"]
_FILLS: dict[str, FillMode] = {"constant": "constant", "nearest": "edge", "reflect": "reflect", "wrap": "wrap"}


def image_data_generator(
    *,
    rotation_range: float = 0,
    width_shift_range: float = 0.0,
    height_shift_range: float = 0.0,
    brightness_range: tuple[float, float] | None = None,
    shear_range: float = 0.0,
    zoom_range: Range = 0.0,
    channel_shift_range: float = 0.0,
    fill_mode: LayerFill = "nearest",
    cval: float = 0.0,
    horizontal_flip: bool = False,
    vertical_flip: bool = False,
    rescale: float | None = None,
    featurewise_center: bool = False,
    featurewise_std_normalization: bool = False,
    samplewise_center: bool = False,
    samplewise_std_normalization: bool = False,
    zca_whitening: bool = False,
) -> AugmentConfig:
    """What `keras.preprocessing.image.ImageDataGenerator` does with the same arguments.

    Shifts below 1 are fractions; whole numbers n are pixels, from −(n−1) to n−1 as there. Rotation and shear are
    degrees. zoom_range z stands for 1−z to 1+z, drawn for height and width apart. Channel shifts are drawn for each
    channel, where Keras draws one for all. The last six arguments say what evaluation is shown too, which is up to
    DataConfig here: asked for anything but its defaults, they raise InputError naming the field to set.
    """
    _check_rescale(rescale)
    _check_standardization(
        featurewise_center or featurewise_std_normalization,
        samplewise_center or samplewise_std_normalization,
        zca_whitening,
    )
    in_pixels = _are_pixels(width_shift_range=width_shift_range, height_shift_range=height_shift_range)
    width, height = (s - 1 if in_pixels and s else s for s in (width_shift_range, height_shift_range))
    return AugmentConfig(
        horizontal_flip=horizontal_flip,
        vertical_flip=vertical_flip,
        rotation=rotation_range,
        height_shift=height,
        width_shift=width,
        shift_unit="pixels" if in_pixels else "fraction",
        shear=shear_range,
        zoom=zoom_range,
        width_zoom=zoom_range if zoom_range else None,
        fill=_fill("fill_mode", fill_mode),
        fill_value=cval,
        brightness=brightness_range or 0.0,
        channel_shift=channel_shift_range,
    )


def random_flip(mode: Flips = "horizontal_and_vertical") -> AugmentConfig:
    """What `keras.layers.RandomFlip` does, but that of two directions each is drawn apart, where Keras 3 flips both or
    none."""
    if mode not in get_args(Flips):
        raise InputError(unknown("mode", mode, get_args(Flips)))
    return AugmentConfig(horizontal_flip="horizontal" in mode, vertical_flip="vertical" in mode)


def random_rotation(
    factor: Range, fill_mode: LayerFill = "reflect", interpolation: Interpolation = "bilinear", fill_value: float = 0.0
) -> AugmentConfig:
    """What `keras.layers.RandomRotation` does: factor in turns, one number for both directions, counter-clockwise."""
    turns = factor if isinstance(factor, (int, float)) else _pair(factor)
    degrees = 360 * turns if isinstance(turns, (int, float)) else (360 * turns[0], 360 * turns[1])
    return AugmentConfig(rotation=degrees, **_manner(fill_mode, interpolation, fill_value))


def random_translation(
    height_factor: Range,
    width_factor: Range,
    fill_mode: LayerFill = "reflect",
    interpolation: Interpolation = "bilinear",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomTranslation` does: fractions, down and to the right."""
    manner = _manner(fill_mode, interpolation, fill_value)
    return AugmentConfig(height_shift=height_factor, width_shift=width_factor, **manner)


def random_zoom(
    height_factor: Range,
    width_factor: Range | None = None,
    fill_mode: LayerFill = "reflect",
    interpolation: Interpolation = "bilinear",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomZoom` does: fractions, positive ones zoom out, negative ones in.

    Without width_factor the proportions are kept.
    """
    width = None if width_factor is None else _factors(width_factor)
    manner = _manner(fill_mode, interpolation, fill_value)
    return AugmentConfig(zoom=_factors(height_factor), width_zoom=width, **manner)


def _check_rescale(rescale: float | None) -> None:
    if rescale not in (None, 1 / 255):
        rule = "1/255, the default of data.scale"
        raise InputError(problem("rescale", rescale, rule, "Leave it out and set data.scale."))


def _check_standardization(of_dataset: bool, of_example: bool, whitened: bool) -> None:
    for asked, field in ((of_dataset, "dataset"), (of_example, "example"), (whitened, "whiten")):
        if asked:
            rule = f'DataConfig(standardize="{field}")'
            raise InputError(problem("standardization", "an argument of the augmentation", rule, "Set it there."))


def _are_pixels(**shifts: float) -> bool:
    """Whether shifts are ints of pixels, not fractions; raises InputError if they are neither, or one of each."""
    for name, shift in shifts.items():
        if not isinstance(shift, (int, float)) or shift < 0 or (shift >= 1 and not isinstance(shift, int)):
            rule = "a fraction from 0 to below 1, or an int of pixels"
            raise InputError(problem(name, shift, rule, "Give 0.1 or 3 or so."))
    in_pixels = [name for name, shift in shifts.items() if shift >= 1]
    if in_pixels and any(0 < shift < 1 for shift in shifts.values()):
        got, rule = "a number of pixels beside a fraction", "both shifts in pixels or both as fractions"
        raise InputError(problem(in_pixels[0], got, rule, "Turn one into the other."))
    return bool(in_pixels)


def _factors(change: Range) -> tuple[float, float]:
    low, high = (-change, change) if isinstance(change, (int, float)) else _pair(change)
    return 1 + low, 1 + high


def _pair(values: Any) -> tuple[float, float]:
    if not isinstance(values, (tuple, list)) or len(values) != 2:
        raise InputError(problem("factor", repr(values), "a number, or two", "Give one of these."))
    return values[0], values[1]


def _manner(fill_mode: LayerFill, interpolation: Interpolation, fill_value: float) -> dict[str, Any]:
    return {"fill": _fill("fill_mode", fill_mode), "interpolation": interpolation, "fill_value": fill_value}


def _fill(name: str, fill_mode: str) -> FillMode:
    if fill_mode not in _FILLS:
        raise InputError(unknown(name, fill_mode, _FILLS))
    return _FILLS[fill_mode]

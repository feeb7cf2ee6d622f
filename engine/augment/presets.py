"""Augmentation in the words of Keras: the same argument names, ranges and fill modes, turned into an AugmentConfig.

`random_flip("horizontal") | random_rotation(0.1) | random_zoom(0.1)` is the usual stack of Keras layers. Each gives the
pixels that Keras 3 on TensorFlow gives for the same draw; docs/augment.md lists where something differs, and why.
"""

from typing import Any, Literal, get_args

from engine.augment.config import AugmentConfig, FillMode, Interpolation
from engine.augment.generator import image_data_generator
from engine.augment.preset_config import DataSettings, PresetConfig
from engine.augment.rules import AmountRange
from engine.errors import InputError, problem, unknown

__all__ = [
    "PresetConfig",
    "aug_mix",
    "auto_augment",
    "center_crop",
    "cut_mix",
    "image_data_generator",
    "mix_up",
    "rand_augment",
    "random_brightness",
    "random_color_jitter",
    "random_contrast",
    "random_crop",
    "random_elastic_transform",
    "random_erasing",
    "random_flip",
    "random_grayscale",
    "random_hue",
    "random_invert",
    "random_perspective",
    "random_rotation",
    "random_saturation",
    "random_shear",
    "random_translation",
    "random_zoom",
]

Flips = Literal["horizontal", "vertical", "horizontal_and_vertical"]
LayerFill = Literal["constant", "nearest", "reflect", "wrap"]
LayerInterpolation = Literal["bilinear", "nearest"]
AutoAugmentPolicy = Literal["imagenet", "cifar10", "svhn"]
Fills = dict[str, FillMode]

_FILLS: Fills = {"constant": "constant", "nearest": "edge", "reflect": "reflect", "wrap": "tensorflow_wrap"}
# Keras's elastic layer reads the image with another function than its other layers do.
_ELASTIC_FILLS: Fills = {**_FILLS, "wrap": "wrap", "reflect": "tensorflow_reflect"}
_INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "nearest": "nearest_away"}
_LEVELS = (0, 255)


def random_flip(mode: Flips = "horizontal_and_vertical") -> AugmentConfig:
    """What `keras.layers.RandomFlip` does, but that of two directions each is drawn apart, where Keras 3 flips both or
    none."""
    if mode not in get_args(Flips):
        raise InputError(unknown("mode", mode, get_args(Flips)))
    return AugmentConfig(horizontal_flip="horizontal" in mode, vertical_flip="vertical" in mode)


def random_rotation(
    factor: AmountRange,
    fill_mode: LayerFill = "reflect",
    interpolation: LayerInterpolation = "bilinear",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomRotation` does: factor in turns, one number for both directions, counter-clockwise."""
    low, high = _limits("factor", factor, -1, 1)
    return AugmentConfig(rotation=_range(360 * low, 360 * high), **_manner(fill_mode, interpolation, fill_value))


def random_translation(
    height_factor: AmountRange,
    width_factor: AmountRange,
    fill_mode: LayerFill = "reflect",
    interpolation: LayerInterpolation = "bilinear",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomTranslation` does: fractions, down and to the right."""
    down, right = (
        _limits(f"{side}_factor", factor, -1, 1)
        for side, factor in (("height", height_factor), ("width", width_factor))
    )
    manner = _manner(fill_mode, interpolation, fill_value)
    return AugmentConfig(height_shift=_range(*down), width_shift=_range(*right), **manner)


def random_zoom(
    height_factor: AmountRange,
    width_factor: AmountRange | None = None,
    fill_mode: LayerFill = "reflect",
    interpolation: LayerInterpolation = "bilinear",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomZoom` does: fractions, positive ones zoom out, negative ones in.

    Without width_factor the proportions are kept.
    """
    width = None if width_factor is None else _zooms("width_factor", width_factor)
    manner = _manner(fill_mode, interpolation, fill_value)
    return AugmentConfig(zoom=_zooms("height_factor", height_factor), width_zoom=width, **manner)


def random_shear(
    x_factor: AmountRange = 0.0,
    y_factor: AmountRange = 0.0,
    interpolation: LayerInterpolation = "bilinear",
    fill_mode: LayerFill = "reflect",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomShear` does: about the upper left pixel, both axes to the same side, which is drawn."""

    def drawn(name: str, factor: AmountRange) -> tuple[float, float]:
        low, high = _limits(name, factor, 0, 1)
        return (low, high) if isinstance(factor, (tuple, list)) else (-high, high)

    shears = {"shear_x": drawn("x_factor", x_factor), "shear_y": drawn("y_factor", y_factor)}
    return AugmentConfig(**shears, **_manner(fill_mode, interpolation, fill_value))


def random_perspective(
    factor: AmountRange = 1.0,
    scale: float = 1.0,
    interpolation: LayerInterpolation = "bilinear",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomPerspective` does: with probability factor / 2 (of two numbers, their mean), all
    corners but the upper left are moved by up to scale / 2 of their distance from it; beyond lies fill_value."""
    chance = _chance("factor", factor)
    return AugmentConfig(perspective=chance, perspective_scale=scale, **_manner("constant", interpolation, fill_value))


def random_crop(height: int, width: int) -> PresetConfig:
    """What `keras.layers.RandomCrop` does to images that are larger: a window at a random place in training, drawn for
    each example where Keras draws for each batch; the middle in evaluation, as `data.center_crop`."""
    return PresetConfig(random_crop=(height, width), data=_cut(height, width))


def center_crop(height: int, width: int) -> PresetConfig:
    """What `keras.layers.CenterCrop` does to images that are at least as large: always the middle."""
    return PresetConfig(data=_cut(height, width))


def random_elastic_transform(
    factor: AmountRange = 1.0,
    scale: AmountRange = 1.0,
    interpolation: LayerInterpolation = "bilinear",
    fill_mode: LayerFill = "reflect",
    fill_value: float = 0.0,
    value_range: tuple[float, float] = _LEVELS,
) -> AugmentConfig:
    """What `keras.layers.RandomElasticTransform` does with probability factor / 2; height and width have noise of their
    own, where Keras 3 moves both by the same, and each example a scale of its own."""
    _check_levels(value_range)
    manner = _manner(fill_mode, interpolation, fill_value, _ELASTIC_FILLS)
    chance, scales = _chance("factor", factor), _limits("scale", scale, 0, 1)
    return AugmentConfig(elastic=chance, elastic_scale=scales, **manner)


def random_brightness(factor: AmountRange, value_range: tuple[float, float] = _LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomBrightness` does: adds a share of 255 to all levels, −factor to factor."""
    _check_levels(value_range)
    return AugmentConfig(brightness_shift=_limits("factor", factor, -1, 1))


def random_contrast(factor: AmountRange, value_range: tuple[float, float] = _LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomContrast` of Keras 3 does: about each channel's mean, by a factor from 1 to 1 + factor;
    of two numbers from 1 − the lower to 1 + the upper one."""
    _check_levels(value_range)
    low, high = _limits("factor", factor, 0, 1)
    return AugmentConfig(channel_contrast=(1 - low, 1 + high))


def random_saturation(factor: AmountRange, value_range: tuple[float, float] = _LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomSaturation` does: the saturation of HSV times u / (1 − u), u from −factor to factor."""
    _check_levels(value_range)
    return AugmentConfig(hsv_saturation=_limits("factor", factor, -1, 1))


def random_hue(factor: AmountRange, value_range: tuple[float, float] = _LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomHue` does: up to half of `factor` of the colour circle, either way."""
    _check_levels(value_range)
    low, high = _limits("factor", factor, 0, 1)
    return AugmentConfig(hue=(low / 2, high / 2), hue_either_way=True)


def random_color_jitter(
    value_range: tuple[float, float] = _LEVELS,
    brightness_factor: AmountRange | None = None,
    contrast_factor: AmountRange | None = None,
    saturation_factor: AmountRange | None = None,
    hue_factor: AmountRange | None = None,
) -> AugmentConfig:
    """What `keras.layers.RandomColorJitter` does: brightness, contrast, saturation and hue in this order."""
    _check_levels(value_range)
    changes = AugmentConfig()
    for preset, factor in (
        (random_brightness, brightness_factor),
        (random_contrast, contrast_factor),
        (random_saturation, saturation_factor),
        (random_hue, hue_factor),
    ):
        changes = changes if factor is None else changes | preset(factor)
    return changes


def random_grayscale(factor: float = 0.5) -> AugmentConfig:
    """What `keras.layers.RandomGrayscale` does, with probability `factor`."""
    return AugmentConfig(grayscale=factor)


def random_invert(factor: AmountRange = 1.0, value_range: tuple[float, float] = _LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomInvert` does: 255 less each level, with probability factor / 2 (of two numbers, their
    mean)."""
    _check_levels(value_range)
    return AugmentConfig(invert=_chance("factor", factor))


def random_erasing(
    factor: AmountRange = 1.0,
    scale: AmountRange = (0.02, 0.33),
    fill_value: float | tuple[float, float, float] | None = None,
    value_range: tuple[float, float] = _LEVELS,
) -> AugmentConfig:
    """What `keras.layers.RandomErasing` does with probability factor / 2: each side of the box is the square root of a
    draw from `scale`; it is filled with fill_value (one or three), without which with noise."""
    _check_levels(value_range)
    value: Any = tuple(fill_value) if isinstance(fill_value, list) else fill_value
    area, chance = _limits("scale", scale, 0, 1), _chance("factor", factor)
    return AugmentConfig(erasing=chance, erasing_area=area, erasing_ratio=None, erasing_value=value)


def mix_up(alpha: float = 0.2) -> AugmentConfig:
    """What `keras.layers.MixUp` does: shares from Beta(alpha, alpha), drawn for each example. Partners are neighbours
    of the epoch's random order, where Keras shuffles each batch once more and may leave an example by itself."""
    return AugmentConfig(mixup=alpha)


def cut_mix(factor: AmountRange = 1.0) -> AugmentConfig:
    """What `keras.layers.CutMix` does: α from 0 to factor (of two numbers, between them), drawn for each example where
    Keras draws for each batch. Partners are those of `mix_up`."""
    return AugmentConfig(cutmix_inside=_limits("factor", factor, 0, 1))


def rand_augment(
    value_range: tuple[float, float] = _LEVELS,
    num_ops: int = 2,
    factor: AmountRange = 0.5,
    interpolation: LayerInterpolation = "bilinear",
) -> AugmentConfig:
    """What `keras.layers.RandAugment` does, with operations drawn for each example where Keras draws for each batch."""
    _check_levels(value_range)
    manner = _manner("reflect", interpolation, 0.0)
    factors = _limits("factor", factor, 0, 1)
    return AugmentConfig(policy="keras_rand_augment", policy_ops=num_ops, policy_factor=factors, **manner)


def aug_mix(
    value_range: tuple[float, float] = _LEVELS,
    num_chains: int = 3,
    chain_depth: int = 3,
    factor: AmountRange = 0.3,
    alpha: float = 1.0,
    all_ops: bool = True,
    interpolation: LayerInterpolation = "bilinear",
) -> AugmentConfig:
    """What `keras.layers.AugMix` does, with chains and shares drawn for each example, where Keras draws for each
    batch."""
    _check_levels(value_range)
    return AugmentConfig(
        policy="aug_mix",
        policy_factor=_limits("factor", factor, 0, 1),
        policy_chains=num_chains,
        policy_depth=chain_depth,
        policy_alpha=alpha,
        policy_all_ops=all_ops,
        **_manner("reflect", interpolation, 0.0),
    )


def auto_augment(
    policy: AutoAugmentPolicy = "imagenet",
    fill_mode: LayerFill = "constant",
    interpolation: LayerInterpolation = "nearest",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """AutoAugment (Cubuk et al. 2018), which Keras does not have: one of 25 pairs of operations found for that data,
    each with its own probability. Operations and strengths are those of `policy="rand_augment"`."""
    if policy not in get_args(AutoAugmentPolicy):
        raise InputError(unknown("policy", policy, get_args(AutoAugmentPolicy)))
    manner = _manner(fill_mode, interpolation, fill_value)
    return AugmentConfig(**{"policy": f"auto_augment_{policy}", **manner})


def _limits(name: str, factor: Any, least: float, most: float) -> tuple[float, float]:
    """(low, high) as Keras reads a factor: of one number f from −f, or `least` if that is more, to f."""
    numbers = [*factor] if isinstance(factor, (tuple, list)) else [factor]
    are_numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers)
    if not are_numbers or len(numbers) > 2 or not numbers or not all(least <= number <= most for number in numbers):
        rule = f"a number, or two, from {least} to {most}"
        raise InputError(problem(name, repr(factor)[:80], rule, "Give one of these."))
    if isinstance(factor, (tuple, list)):
        if len(numbers) != 2:
            raise InputError(problem(name, repr(factor)[:80], "a number, or two", "Give one of these."))
        low, high = sorted(numbers)
        return low, high
    return max(-abs(factor), least), abs(factor)


def _cut(height: Any, width: Any) -> DataSettings:
    for name, pixels in (("height", height), ("width", width)):
        if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 1:
            raise InputError(problem(name, repr(pixels), "a whole number of pixels, at least 1", "Give 160 or so."))
    return DataSettings(center_crop=f"{height}x{width}")


def _range(low: float, high: float) -> AmountRange:
    """One number where the range is symmetric, which is how it is shown."""
    return high if low == -high else (low, high)


def _zooms(name: str, factor: AmountRange) -> tuple[float, float]:
    low, high = _limits(name, factor, -1, 1)
    return 1 + low, 1 + high


def _chance(name: str, factor: AmountRange) -> float:
    """The probability that a draw from [0, 1) is below one from the factor's range: of one number f, f / 2."""
    return sum(_limits(name, factor, 0, 1)) / 2


def _check_levels(value_range: Any) -> None:
    if tuple(value_range) != _LEVELS:
        rule = "(0, 255), which pictures have here while they are augmented, whatever data.scale is"
        raise InputError(problem("value_range", repr(value_range), rule, "Leave it out."))


def _manner(fill_mode: str, interpolation: str, fill_value: float, fills: Fills = _FILLS) -> dict[str, Any]:
    if fill_mode not in fills:
        raise InputError(unknown("fill_mode", fill_mode, fills))
    if interpolation not in _INTERPOLATIONS:
        raise InputError(unknown("interpolation", interpolation, _INTERPOLATIONS))
    return {"fill": fills[fill_mode], "interpolation": _INTERPOLATIONS[interpolation], "fill_value": fill_value}

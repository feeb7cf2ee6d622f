"""Augmentation in the words of Keras: the same argument names, ranges and fill modes, turned into an AugmentConfig.

`random_flip("horizontal") | random_rotation(0.1) | random_zoom(0.1)` is the usual stack of Keras layers. Each gives the
pixels that Keras 3 on TensorFlow gives for the same draw; docs/augment.md lists where something differs, and why.
"""

from typing import Any, Literal, get_args

from engine.augment.config import AugmentConfig
from engine.augment.generator import image_data_generator
from engine.augment.keras_arguments import (
    ELASTIC_FILLS,
    LEVELS,
    check_levels,
    read_crop,
    read_limits,
    read_probability,
    read_sampling,
    read_zooms,
    shorten_range,
)
from engine.augment.preset_config import PresetConfig
from engine.augment.rules import AmountRange
from engine.errors import InputError, unknown

__all__ = [
    "PresetConfig", "aug_mix", "auto_augment", "center_crop", "cut_mix", "image_data_generator", "mix_up",
    "rand_augment", "random_brightness", "random_color_jitter", "random_contrast", "random_crop",
    "random_elastic_transform", "random_erasing", "random_flip", "random_grayscale", "random_hue", "random_invert",
    "random_perspective", "random_rotation", "random_saturation", "random_shear", "random_translation",
    "random_zoom",
]  # fmt: skip

Flips = Literal["horizontal", "vertical", "horizontal_and_vertical"]
LayerFill = Literal["constant", "nearest", "reflect", "wrap"]
LayerInterpolation = Literal["bilinear", "nearest"]
AutoAugmentPolicy = Literal["imagenet", "cifar10", "svhn"]


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
    low, high = read_limits("factor", factor, -1, 1)
    return AugmentConfig(
        rotation=shorten_range(360 * low, 360 * high), **read_sampling(fill_mode, interpolation, fill_value)
    )


def random_translation(
    height_factor: AmountRange,
    width_factor: AmountRange,
    fill_mode: LayerFill = "reflect",
    interpolation: LayerInterpolation = "bilinear",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomTranslation` does: fractions, down and to the right."""
    down, right = (
        read_limits(f"{side}_factor", factor, -1, 1)
        for side, factor in (("height", height_factor), ("width", width_factor))
    )
    sampling = read_sampling(fill_mode, interpolation, fill_value)
    return AugmentConfig(height_shift=shorten_range(*down), width_shift=shorten_range(*right), **sampling)


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
    width = None if width_factor is None else read_zooms("width_factor", width_factor)
    sampling = read_sampling(fill_mode, interpolation, fill_value)
    return AugmentConfig(zoom=read_zooms("height_factor", height_factor), width_zoom=width, **sampling)


def random_shear(
    x_factor: AmountRange = 0.0,
    y_factor: AmountRange = 0.0,
    interpolation: LayerInterpolation = "bilinear",
    fill_mode: LayerFill = "reflect",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomShear` does: about the upper left pixel, both axes to the same side, which is drawn."""

    def drawn(name: str, factor: AmountRange) -> tuple[float, float]:
        low, high = read_limits(name, factor, 0, 1)
        return (low, high) if isinstance(factor, (tuple, list)) else (-high, high)

    shears = {"shear_x": drawn("x_factor", x_factor), "shear_y": drawn("y_factor", y_factor)}
    return AugmentConfig(**shears, **read_sampling(fill_mode, interpolation, fill_value))


def random_perspective(
    factor: AmountRange = 1.0,
    scale: float = 1.0,
    interpolation: LayerInterpolation = "bilinear",
    fill_value: float = 0.0,
) -> AugmentConfig:
    """What `keras.layers.RandomPerspective` does: with probability factor / 2 (of two numbers, their mean), all
    corners but the upper left are moved by up to scale / 2 of their distance from it; beyond lies fill_value."""
    chance = read_probability("factor", factor)
    return AugmentConfig(
        perspective=chance, perspective_scale=scale, **read_sampling("constant", interpolation, fill_value)
    )


def random_crop(height: int, width: int) -> PresetConfig:
    """What `keras.layers.RandomCrop` does to images that are larger: a window at a random place in training, drawn for
    each example where Keras draws for each batch; the middle in evaluation, as `data.center_crop`."""
    return PresetConfig(random_crop=(height, width), data=read_crop(height, width))


def center_crop(height: int, width: int) -> PresetConfig:
    """What `keras.layers.CenterCrop` does to images that are at least as large: always the middle."""
    return PresetConfig(data=read_crop(height, width))


def random_elastic_transform(
    factor: AmountRange = 1.0,
    scale: AmountRange = 1.0,
    interpolation: LayerInterpolation = "bilinear",
    fill_mode: LayerFill = "reflect",
    fill_value: float = 0.0,
    value_range: tuple[float, float] = LEVELS,
) -> AugmentConfig:
    """What `keras.layers.RandomElasticTransform` does with probability factor / 2; height and width have noise of their
    own, where Keras 3 moves both by the same, and each example a scale of its own."""
    check_levels(value_range)
    sampling = read_sampling(fill_mode, interpolation, fill_value, ELASTIC_FILLS)
    chance, scales = read_probability("factor", factor), read_limits("scale", scale, 0, 1)
    return AugmentConfig(elastic=chance, elastic_scale=scales, **sampling)


def random_brightness(factor: AmountRange, value_range: tuple[float, float] = LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomBrightness` does: adds a share of 255 to all levels, −factor to factor."""
    check_levels(value_range)
    return AugmentConfig(brightness_shift=read_limits("factor", factor, -1, 1))


def random_contrast(factor: AmountRange, value_range: tuple[float, float] = LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomContrast` of Keras 3 does: about each channel's mean, by a factor from 1 to 1 + factor;
    of two numbers from 1 − the lower to 1 + the upper one."""
    check_levels(value_range)
    low, high = read_limits("factor", factor, 0, 1)
    return AugmentConfig(channel_contrast=(1 - low, 1 + high))


def random_saturation(factor: AmountRange, value_range: tuple[float, float] = LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomSaturation` does: the saturation of HSV times u / (1 − u), u from −factor to factor."""
    check_levels(value_range)
    return AugmentConfig(hsv_saturation=read_limits("factor", factor, -1, 1))


def random_hue(factor: AmountRange, value_range: tuple[float, float] = LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomHue` does: up to half of `factor` of the colour circle, either way."""
    check_levels(value_range)
    low, high = read_limits("factor", factor, 0, 1)
    return AugmentConfig(hue=(low / 2, high / 2), hue_either_way=True)


def random_color_jitter(
    value_range: tuple[float, float] = LEVELS,
    brightness_factor: AmountRange | None = None,
    contrast_factor: AmountRange | None = None,
    saturation_factor: AmountRange | None = None,
    hue_factor: AmountRange | None = None,
) -> AugmentConfig:
    """What `keras.layers.RandomColorJitter` does: brightness, contrast, saturation and hue in this order."""
    check_levels(value_range)
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


def random_invert(factor: AmountRange = 1.0, value_range: tuple[float, float] = LEVELS) -> AugmentConfig:
    """What `keras.layers.RandomInvert` does: 255 less each level, with probability factor / 2 (of two numbers, their
    mean)."""
    check_levels(value_range)
    return AugmentConfig(invert=read_probability("factor", factor))


def random_erasing(
    factor: AmountRange = 1.0,
    scale: AmountRange = (0.02, 0.33),
    fill_value: float | tuple[float, float, float] | None = None,
    value_range: tuple[float, float] = LEVELS,
) -> AugmentConfig:
    """What `keras.layers.RandomErasing` does with probability factor / 2: each side of the box is the square root of a
    draw from `scale`; it is filled with fill_value (one or three), without which with noise."""
    check_levels(value_range)
    value: Any = tuple(fill_value) if isinstance(fill_value, list) else fill_value
    area, chance = read_limits("scale", scale, 0, 1), read_probability("factor", factor)
    return AugmentConfig(erasing=chance, erasing_area=area, erasing_ratio=None, erasing_value=value)


def mix_up(alpha: float = 0.2) -> AugmentConfig:
    """What `keras.layers.MixUp` does: shares from Beta(alpha, alpha), drawn for each example. Partners are neighbours
    of the epoch's random order, where Keras shuffles each batch once more and may leave an example by itself."""
    return AugmentConfig(mixup=alpha)


def cut_mix(factor: AmountRange = 1.0) -> AugmentConfig:
    """What `keras.layers.CutMix` does: α from 0 to factor (of two numbers, between them), drawn for each example where
    Keras draws for each batch. Partners are those of `mix_up`."""
    return AugmentConfig(cutmix_inside=read_limits("factor", factor, 0, 1))


def rand_augment(
    value_range: tuple[float, float] = LEVELS,
    num_ops: int = 2,
    factor: AmountRange = 0.5,
    interpolation: LayerInterpolation = "bilinear",
) -> AugmentConfig:
    """What `keras.layers.RandAugment` does, with operations drawn for each example where Keras draws for each batch."""
    check_levels(value_range)
    sampling = read_sampling("reflect", interpolation, 0.0)
    factors = read_limits("factor", factor, 0, 1)
    return AugmentConfig(policy="keras_rand_augment", policy_ops=num_ops, policy_factor=factors, **sampling)


def aug_mix(
    value_range: tuple[float, float] = LEVELS,
    num_chains: int = 3,
    chain_depth: int = 3,
    factor: AmountRange = 0.3,
    alpha: float = 1.0,
    all_ops: bool = True,
    interpolation: LayerInterpolation = "bilinear",
) -> AugmentConfig:
    """What `keras.layers.AugMix` does, with chains and shares drawn for each example, where Keras draws for each
    batch."""
    check_levels(value_range)
    return AugmentConfig(
        policy="aug_mix",
        policy_factor=read_limits("factor", factor, 0, 1),
        policy_chains=num_chains,
        policy_depth=chain_depth,
        policy_alpha=alpha,
        policy_all_ops=all_ops,
        **read_sampling("reflect", interpolation, 0.0),
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
    sampling = read_sampling(fill_mode, interpolation, fill_value)
    return AugmentConfig(**{"policy": f"auto_augment_{policy}", **sampling})

"""ImageDataGenerator of Keras: its arguments, turned into an AugmentConfig and what they say about the data."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from engine.augment.config import FillMode
from engine.augment.preset_config import DataSettings, PresetConfig
from engine.augment.rules import AmountRange
from engine.errors import InputError, problem, unknown

GeneratorFill = Literal["constant", "nearest", "reflect", "wrap"]
Shift = float | Sequence[float]

_FILLS: dict[str, FillMode] = {
    "constant": "scipy_constant",
    "nearest": "edge",
    "reflect": "reflect",
    "wrap": "scipy_wrap",
}


class _Preprocessing(NamedTuple):
    """(scale × level − mean) / std"""

    scale: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MINUS_1_TO_1, _STANDARDIZED, _AS_THEY_ARE = (
    _Preprocessing(1 / 127.5, (1.0,)),
    _Preprocessing(1 / 255, *_IMAGENET),
    _Preprocessing(1.0),
)
# What `keras.applications.NAME.preprocess_input` does to levels from 0 to 255.
PREPROCESSING: dict[str, _Preprocessing] = {
    **dict.fromkeys(("inception_resnet_v2", "inception_v3", "mobilenet", "mobilenet_v2", "nasnet"), _MINUS_1_TO_1),
    **dict.fromkeys(("resnet_v2", "xception"), _MINUS_1_TO_1),
    "densenet": _STANDARDIZED,
    **dict.fromkeys(("convnext", "efficientnet", "efficientnet_v2", "mobilenet_v3"), _AS_THEY_ARE),
}  # fmt: skip
_BLUE_FIRST = ("resnet", "resnet50", "vgg16", "vgg19")


def image_data_generator(
    *,
    featurewise_center: bool = False,
    samplewise_center: bool = False,
    featurewise_std_normalization: bool = False,
    samplewise_std_normalization: bool = False,
    zca_whitening: bool = False,
    zca_epsilon: float = 1e-6,
    rotation_range: float = 0,
    width_shift_range: Shift = 0.0,
    height_shift_range: Shift = 0.0,
    brightness_range: tuple[float, float] | None = None,
    shear_range: float = 0.0,
    zoom_range: AmountRange = 0.0,
    channel_shift_range: float = 0.0,
    fill_mode: GeneratorFill = "nearest",
    cval: float = 0.0,
    horizontal_flip: bool = False,
    vertical_flip: bool = False,
    rescale: float | None = None,
    preprocessing_function: str | None = None,
    validation_split: float = 0.0,
    interpolation_order: int = 1,
) -> PresetConfig:
    """What `ImageDataGenerator` of Keras 3 does with the same arguments, to the pixel.

    That includes what surprises in it: what is drawn from height_shift_range moves the image along its width and the
    reverse, and an image that is not square turns about the centre of the transposed one. Shifts below 1 are
    fractions, whole numbers n pixels from −(n−1) to n−1, other numbers pixels and parts of them; of a list one is
    drawn, in either direction. zoom_range z stands for 1−z to 1+z, drawn for height and width apart.
    preprocessing_function: the name of an application of Keras, as text, whose preprocess_input is meant.
    What evaluation sees, too, and the share that is held out go to the DataConfig of the run this is given to; the
    share is drawn by the seed, where Keras takes the first files of each class.
    """
    shifts = {**_shift("height", height_shift_range), **_shift("width", width_shift_range)}
    manner = _manner(fill_mode, cval, interpolation_order, shifts)
    is_warped = rotation_range or shear_range or zoom_range or any(shifts.values())
    return PresetConfig(
        horizontal_flip=horizontal_flip,
        vertical_flip=vertical_flip,
        rotation=rotation_range,
        **shifts,
        shear=shear_range,
        zoom=zoom_range,
        width_zoom=zoom_range if zoom_range else None,
        **(manner if is_warped else {}),  # or adding a layer with another one would be refused
        level_shift=channel_shift_range,
        whole_brightness=brightness_range,
        data=DataSettings(
            validation_fraction=_validation_fraction(validation_split),
            standardize=_standardization(
                (featurewise_center, featurewise_std_normalization),
                (samplewise_center, samplewise_std_normalization),
                zca_whitening,
            ),
            zca_epsilon=zca_epsilon if zca_whitening else None,
            **_scaling(preprocessing_function, rescale),
        ),
    )


def _shift(side: str, shift: Any) -> dict[str, Any]:
    """The fields that a shift stands for: a range, or the steps that are drawn from."""
    name = f"{side}_shift"
    given: Any = shift.tolist() if hasattr(shift, "tolist") else shift  # NumPy's numbers and arrays
    steps = [*given] if isinstance(given, (list, tuple)) else [given]
    are_numbers = all(isinstance(step, (int, float)) and not isinstance(step, bool) for step in steps)
    if not are_numbers or any(step < 0 for step in steps):
        rule = "a fraction from 0 to below 1, a number of pixels, or a list of one or the other"
        raise InputError(problem(f"{name}_range", repr(shift)[:80], rule, "Give 0.1, 3 or [2, 4] or so."))
    if isinstance(given, float):
        return {name: given}
    return {f"{name}_steps": tuple(map(float, range(given) if isinstance(given, int) else steps))}


def _manner(fill_mode: str, cval: float, order: int, shifts: dict[str, Any]) -> dict[str, Any]:
    """How the image is read, and what shifts are counted in."""
    if fill_mode not in _FILLS:
        raise InputError(unknown("fill_mode", fill_mode, _FILLS))
    if order not in (0, 1):
        rule = "0 (the nearest pixel) or 1 (bilinear)"
        raise InputError(problem("interpolation_order", order, rule, "Give 1, the default."))
    are_pixels = any(isinstance(shift, float) and shift >= 1 for shift in shifts.values())
    return {
        "generator_geometry": True,
        "fill": _FILLS[fill_mode],
        "fill_value": cval,
        "interpolation": "bilinear" if order else "nearest_away",
        "shift_unit": "keras" if are_pixels else "fraction",
    }


def _validation_fraction(split: float) -> float | None:
    if not 0 <= split < 1:
        raise InputError(problem("validation_split", split, "0 ≤ share < 1", "Give 0.2 or so."))
    return split or None


def _standardization(of_dataset: tuple[bool, bool], of_example: tuple[bool, bool], whitened: bool) -> str | None:
    """The name in DataConfig; the second of each pair asks for a deviation of 1, and so for the first, too."""
    if any(of_example) and (any(of_dataset) or whitened):
        rule = "one of both"
        raise InputError(problem("samplewise_center", "it beside featurewise or ZCA", rule, "Leave one out."))
    if whitened:
        return "zca"
    if any(of_dataset):
        return "dataset" if of_dataset[1] else "dataset_center"
    return ("example" if of_example[1] else "example_center") if any(of_example) else None


def _scaling(name: Any, rescale: float | None) -> dict[str, Any]:
    """Scale, mean and std of a named preprocessing and of what is multiplied by after it."""
    if rescale is not None and not rescale > 0:
        raise InputError(problem("rescale", rescale, "a positive number", "Give 1/255 or so."))
    if name is None:
        return {"scale": rescale}
    if callable(name):
        rule = "the name of an application of Keras, because a function cannot be kept in a checkpoint"
        remedy = 'Give it like "mobilenet_v2", or set data.scale, data.mean and data.std.'
        raise InputError(problem("preprocessing_function", getattr(name, "__name__", name), rule, remedy))
    if name in _BLUE_FIRST:
        remedy = "Set data.scale 1 and data.mean 123.68 116.779 103.939, and train the model on these."
        rule = "one that keeps red, green and blue in their order"
        raise InputError(problem("preprocessing_function", repr(name), rule, remedy))
    if name not in PREPROCESSING:
        raise InputError(unknown("preprocessing_function", name, PREPROCESSING))
    factor, known = rescale or 1.0, PREPROCESSING[name]
    mean = None if known.mean is None else tuple(number * factor for number in known.mean)
    return {"scale": known.scale * factor, "mean": mean, "std": known.std}

"""What stands before the first layer with weights in a Keras model: it becomes the input contract and augmentation.

Rescaling, Normalization, Resizing and CenterCrop are folded into the InputSpec; layers that change training images at
random become an AugmentConfig, or are named as dropped.
"""

from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np

from engine.augment import presets
from engine.augment.config import AugmentConfig
from engine.config.contract import InputSpec
from engine.config.decoding import Interpolation, ResizeRule
from engine.errors import InputError, problem
from engine.importers.keras_graph import Node, snake_case
from engine.importers.keras_series import Join

INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "nearest": "nearest", "bicubic": "bicubic",
                                            "lanczos3": "lanczos"}  # fmt: skip
AUGMENTATION = frozenset(presets.__all__) - {"PresetConfig", "center_crop", "image_data_generator", "random_crop"}
"""Presets by the names of layers of Keras, whose arguments they take."""


@dataclass
class Front:
    """What is known of the inputs so far: the model gets `(scale × pixels − mean) / std`.

    size: height and width, if known. resize, crop, interpolation: how pictures get them, if a layer says so.
    is_scaled: whether the model normalises its inputs itself, so that what its pixels are is known to be 0 to 255.
    """

    size: tuple[int, int] | None
    channels: int
    scale: float = 1.0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    std: np.ndarray = field(default_factory=lambda: np.ones(1))
    crop: tuple[int, int] | None = None
    resize: ResizeRule | None = None
    interpolation: Interpolation = "bilinear"
    is_scaled: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    notes: list[str] = field(default_factory=list)

    def spec(self, height_width: tuple[int, int]) -> InputSpec:
        """The contract for images of a size."""
        mean = tuple(map(float, self.mean)) if self.mean.any() else None
        std = tuple(map(float, self.std)) if (self.std != 1).any() else None
        return InputSpec(
            (*height_width, self.channels), "uint8", self.resize, self.scale, mean, std, center_crop=self.crop,
            interpolation=self.interpolation, antialias=False,
        )  # fmt: skip


def take_front(
    series: tuple[Node | Join, ...], front: Front, arrays: dict[str, np.ndarray], where: str
) -> tuple[tuple[Node | Join, ...], set[str]]:
    """(the layers after those that were folded into `front`, names of the arrays that these used)."""
    used: set[str] = set()
    for number, node in enumerate(series):
        if isinstance(node, Join) or not _take(node, front, arrays, used, where):
            return series[number:], used
    return (), used


def _take(node: Node, front: Front, arrays: dict[str, np.ndarray], used: set[str], where: str) -> bool:
    """Whether the layer belongs to the front, into which it is then folded."""
    if node.kind == "Rescaling":
        scale, offset = (_numbers(node, name, default, where) for name, default in (("scale", 1.0), ("offset", 0.0)))
        _rescale(node, front, scale, offset, where)
    elif node.kind == "Normalization":
        mean, variance = _statistics(node, arrays, used, where)
        deviation = np.maximum(np.sqrt(np.maximum(variance, 0)), 1e-7)  # Keras's epsilon
        is_inverse = bool(node.config.get("invert"))
        scale, offset = (deviation, mean) if is_inverse else (1 / deviation, -mean / deviation)
        _rescale(node, front, scale, offset, where)
    elif node.kind == "Resizing":
        _resize(node, front, where)
    elif node.kind in ("CenterCrop", "RandomCrop"):
        front.crop = _size(node, where)
        if node.kind == "RandomCrop":
            front.notes.append(f"{node.name} (RandomCrop) became the middle, as in prediction")
    elif snake_case(node.kind) in AUGMENTATION or node.kind.startswith("Random"):
        _augment(node, front)
    else:
        return False
    return True


def _rescale(node: Node, front: Front, scale: np.ndarray, offset: np.ndarray, where: str) -> None:
    """Folds `scale × value + offset` in, which comes after what is there."""
    front.is_scaled = True
    if not all(numbers.size in (1, front.channels) for numbers in (scale, offset)):
        got, rule = f"layer {node.name!r} with {scale.size} scales and {offset.size} offsets", f"1 or {front.channels}"
        raise InputError(problem(where, got, f"{rule}, the channels of its inputs", "Correct it."))
    if not front.mean.any() and (front.std == 1).all() and scale.size == 1:
        front.scale, front.mean = front.scale * float(scale[0]), -np.atleast_1d(offset)
    else:
        with np.errstate(all="ignore"):  # looked at below
            front.mean, front.std = front.mean - offset * front.std / scale, front.std / scale
    if not all(np.isfinite(numbers).all() for numbers in (front.scale, front.mean, front.std)):
        got, rule = f"layer {node.name!r}, which makes inputs 0 or infinite", "a scale of each channel above 0"
        raise InputError(problem(where, got, rule, "Correct it."))


def _numbers(node: Node, setting: str, default: float, where: str) -> np.ndarray:
    value = node.config.get(setting, default)
    value = value.get("value", value.get("config")) if isinstance(value, dict) else value
    try:
        numbers = np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if (
        not numbers.size
        or not np.isfinite(numbers).all()
        or (setting in ("scale", "variance") and (numbers == 0).all())
    ):
        raise InputError(
            problem(where, f"layer {node.name!r} with {setting} {str(value)[:80]}", "numbers", "Correct it.")
        )
    return numbers


def _statistics(node: Node, arrays: dict[str, np.ndarray], used: set[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of a Normalization: of its config, or those that it was adapted to."""
    if node.config.get("mean") is not None:
        return tuple(_numbers(node, name, 0.0, where) for name in ("mean", "variance"))  # type: ignore[return-value]
    names = {name: f"{node.name}/{name}" for name in ("mean", "variance", "count")}
    if names["mean"] not in arrays or names["variance"] not in arrays:
        got, remedy = f"layer {node.name!r} without statistics", "Call its adapt() on your data, and save it again."
        raise InputError(problem(where, got, "a mean and a variance", remedy))
    used |= set(names.values()) & set(arrays)
    return tuple(arrays[names[name]].astype(np.float64).reshape(-1) for name in ("mean", "variance"))  # type: ignore[return-value]


def _resize(node: Node, front: Front, where: str) -> None:
    if front.crop is not None:
        got, rule = f"layer {node.name!r}, which resizes what was cut out before it", "resizing before cutting out"
        raise InputError(problem(where, got, rule, "Exchange the two layers, and save the model again."))
    front.size = _size(node, where)
    kind = str(node.config.get("interpolation", "bilinear")).lower()
    if kind not in INTERPOLATIONS:
        rule = f"one of {', '.join(INTERPOLATIONS)}"
        raise InputError(problem(where, f"layer {node.name!r} with interpolation {kind[:40]!r}", rule, "Change it."))
    front.interpolation = INTERPOLATIONS[kind]
    crops, pads = (node.config.get(f"{how}_to_aspect_ratio") for how in ("crop", "pad"))
    front.resize = "crop" if crops else "pad" if pads else "stretch"


def _size(node: Node, where: str) -> tuple[int, int]:
    size = node.config.get("height"), node.config.get("width")
    if not all(type(n) is int and 0 < n < 2**16 for n in size):
        raise InputError(problem(where, f"layer {node.name!r} with size {size}", "two whole numbers", "Correct it."))
    return size  # type: ignore[return-value]


def _augment(node: Node, front: Front) -> None:
    """Adds to the augmentation what a preset makes of the layer; names what none takes."""
    try:
        preset: Any = getattr(presets, snake_case(node.kind))
        known = [name for name in signature(preset).parameters if node.config.get(name) is not None]
        front.augment = front.augment | preset(**{name: _as_given(node.config[name]) for name in known})
        front.notes.append(f"{node.name} ({node.kind}) became augmentation, for training on")
    except (InputError, AttributeError, TypeError, ValueError):
        front.notes.append(f"{node.name} ({node.kind}) dropped: it acts in training alone, and has no counterpart here")


def _as_given(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

"""The input contract that a run derives from its data, and data read under the contract of a trained model."""

from dataclasses import replace
from typing import Any

import numpy as np

from engine.config.contract import InputSpec
from engine.config.data import FITTED, DataConfig
from engine.data.decoded.dataset import Dataset
from engine.data.fitting import channel_statistics
from engine.data.pictures.levels import to_levels
from engine.data.pictures.ranges import (
    check_like_training,
    check_not_raw,
    check_same_range,
    converting,
    deep_range,
    range_of,
)
from engine.errors import InputError, problem, shape_text

LEAST_STD = 1e-6  # of a channel that never changes


def input_spec(config: DataConfig, dataset: Dataset) -> InputSpec:
    """The input contract of a model trained on `dataset` under `config`; fits mean and std if the config says so."""
    is_uint8 = dataset.images.dtype == "uint8"
    if config.standardize in FITTED and not is_uint8:
        rule = "uint8 images to fit it on"
        raise InputError(problem("data.standardize", f"{config.standardize} of float inputs", rule, "Leave it out."))
    mean, std = config.mean, config.std
    if config.standardize in ("dataset", "dataset_center"):
        level_mean, level_std = channel_statistics(dataset)
        mean = tuple(float(m) * config.scale for m in level_mean)
        if config.standardize == "dataset":
            std = tuple(max(float(s) * config.scale, LEAST_STD) for s in level_std)
    return InputSpec(
        shape=dataset.input_shape,
        dtype=dataset.images.dtype.name,
        resize=config.resize if config.image_size else None,
        scale=config.scale if is_uint8 else 1.0,
        mean=mean,
        std=std,
        background=config.background,
        per_example=config.standardize == "example",
        center_crop=config.crop_height_width,
        center_example=config.standardize == "example_center",
        whiten=config.standardize in ("whiten", "zca"),
        color=config.color if is_uint8 else None,
        interpolation=config.interpolation,
        antialias=config.antialias,
        levels=config.levels or dataset.levels or deep_range(dataset.value_range),
        max_pixels=config.max_pixels,
        crop_share=config.crop_share if config.image_size else 1.0,
        value_range=dataset.value_range if is_uint8 else dataset.extremes,
    )


def check_inputs(dataset: Dataset, spec: InputSpec, whose: str) -> None:
    """Raises InputError, showing both sides, unless a dataset has the shape, type and scale of an input contract."""
    if dataset.input_shape != tuple(spec.shape):
        got, rule = f"images of {shape_text(dataset.input_shape)}", f"{shape_text(spec.shape)}, {whose}"
        remedy = "Use data of that size, or set data.image_size to it."
        if dataset.input_shape[:-1] == tuple(spec.shape)[:-1]:
            remedy = "Use data of as many channels, or set data.color: in arrays np.repeat(images, 3, -1) of grey ones."
        raise InputError(problem(dataset.name, got, rule, remedy))
    dtype = dataset.images.dtype.name
    if dtype != spec.dtype:
        rule = f"{spec.dtype}, {whose}"
        found = range_of(np.asarray(dataset.images), f"{dataset.name} images")
        is_uint8 = spec.dtype == "uint8"
        remedy = to_levels(found) if is_uint8 else converting(spec.dtype, found, spec.value_range)
        raise InputError(problem(dataset.name, f"{dtype} images", rule, remedy))
    if dataset.extremes is not None and spec.value_range is not None:
        check_like_training(dataset.extremes, spec.value_range, f"{dataset.name} images", dtype, len(dataset))
    if dataset.value_range is None and isinstance(dataset.images, np.ndarray):
        check_not_raw(dataset.images, spec.value_range, f"{dataset.name} images")
    check_same_range(dataset.value_range, spec.value_range, dataset.name, "as in training")


def under_contract(data: DataConfig, spec: InputSpec) -> DataConfig:
    """The data config with an input contract in place of what it leaves at its defaults.

    Raises InputError, showing both sides, where it asks for something else.
    """
    theirs: dict[str, Any] = {"mean": spec.mean, "std": spec.std, "standardize": None}
    if spec.dtype == "uint8":
        theirs.update(scale=spec.scale, background=spec.background)
        theirs.update(interpolation=spec.interpolation, antialias=spec.antialias, color=spec.color)
        theirs["levels"] = data.levels if spec.levels is None else spec.levels
    if spec.per_example or spec.center_example:
        theirs["standardize"] = "example" if spec.per_example else "example_center"
    if spec.whiten:  # by what was fitted for the source, whichever of the two it was
        theirs["standardize"] = "zca" if data.standardize == "zca" else "whiten"
    if spec.center_crop is not None:
        theirs["center_crop"] = shape_text(spec.center_crop).replace("×", "x")
    if spec.resize is not None:
        theirs.update(image_size=shape_text(spec.shape[:2]).replace("×", "x"), resize=spec.resize)
        theirs["crop_share"] = spec.crop_share
    is_fitted = spec.mean is not None and (spec.std is not None or data.standardize == "dataset_center")
    if data.standardize in ("dataset", "dataset_center") and is_fitted:
        data = replace(data, standardize=None)  # fitted once, on what the weights were trained on
    defaults, problems = DataConfig(), []
    for name, value in theirs.items():
        given = getattr(data, name)
        if given not in (getattr(defaults, name), value):
            rule = f"{value!r}, as the weights were trained with"
            problems.append(problem(f"data.{name}", repr(given), rule, "Give that, or train from scratch."))
    if problems:
        raise InputError(*problems)
    return replace(data, **theirs)

"""How the inputs of imported weights were normalised: by the catalogue, by timm's config, or by what a file holds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.errors import InputError, problem
from engine.importers.catalogue import IMAGENET_STD, Contract, Variant
from engine.importers.weights_file import WeightsFile

MEAN, VARIANCE = "normalization/mean", "normalization/variance"
OF_NORMALIZATION = (MEAN, VARIANCE, "normalization/count")
INTERPOLATIONS = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos"}


def find_contract(
    variant: Variant, file: WeightsFile, given: Mapping[str, np.ndarray], digest: str, answer: str | None
) -> tuple[Contract, frozenset[str]]:
    """(the contract of a file's weights, the arrays that it was read from). answer: of the user, where only they know.

    Raises InputError, which asks, for a file that does not say it.
    """
    if cfg := file.about.get("pretrained_cfg"):
        return of_timm(cfg, variant.contract, str(file.path)), frozenset()
    if not variant.is_ambiguous or VARIANCE not in given:
        if answer is not None and not variant.is_ambiguous:
            rule = f"none: inputs of {variant.name} are normalised in one way"
            raise InputError(problem("normalization", answer, rule, "Leave it out."))
        return variant.contract, frozenset(OF_NORMALIZATION) & frozenset(given)
    answer = answer or _known(variant, file, digest)
    if answer is None:
        got = "a file of weights that was not published, with statistics of its inputs"
        rule = "to know if its model scales inputs once more, as Keras's does where weights='imagenet'"
        remedy = "Add --normalization imagenet if it was made so, else --normalization file."
        raise InputError(problem(str(file.path), got, rule, remedy))
    mean, variance = (np.asarray(given[name], np.float64).reshape(-1) for name in (MEAN, VARIANCE))
    std = np.sqrt(variance * (np.asarray(IMAGENET_STD) if answer == "imagenet" else 1))
    if len(mean) not in (1, 3) or len(mean) != len(variance) or not (std > 0).all():
        rule = "a mean and a variance above 0 of each channel"
        raise InputError(problem(str(file.path), f"{len(mean)} means, {len(variance)} variances", rule, "Check it."))
    numbers = tuple(tuple(float(f"{number:.9g}") for number in row) for row in (mean, std))
    contract = variant.contract._replace(mean=numbers[0], std=numbers[1])
    return contract, frozenset(OF_NORMALIZATION) & frozenset(given)


def _known(variant: Variant, file: WeightsFile, digest: str) -> str | None:
    """What the file says by its hash, or by the layers of a whole model."""
    published = [each.hash for each in (variant.with_top, variant.without_top) if each]
    if digest in published:
        return "imagenet"
    config = file.about.get("model_config")
    if config is None:
        return None
    return "imagenet" if count_layers(config, "Rescaling") > 1 else "file"


def count_layers(config: Any, kind: str) -> int:
    """How many layers of a class a model's config of Keras lists."""
    inner = list(config.values()) if isinstance(config, dict) else config if isinstance(config, list) else []
    is_one = isinstance(config, dict) and config.get("class_name") == kind
    return is_one + sum(count_layers(each, kind) for each in inner)


def of_timm(cfg: Any, usual: Contract, whose: str) -> Contract:
    """The contract that timm's pretrained_cfg describes; what it leaves out is the variant's."""
    if not isinstance(cfg, dict):
        raise InputError(problem(whose, "a pretrained_cfg that is no object", "that of timm", "Check config.json."))
    numbers = {}
    for name in ("mean", "std"):
        given = cfg.get(name)
        if given is not None:
            is_list = isinstance(given, list) and len(given) in (1, 3)
            if not is_list or not all(isinstance(n, int | float) and np.isfinite(n) for n in given):
                rule = "one number or three"
                raise InputError(problem(f"{whose}: {name}", str(given)[:80], rule, "Check config.json."))
            numbers[name] = tuple(float(n) for n in given)
    interpolation, share = cfg.get("interpolation", usual.interpolation), cfg.get("crop_pct", usual.crop_share)
    if interpolation not in INTERPOLATIONS or not isinstance(share, int | float) or not 0 < share <= 1:
        rule = "an interpolation by name and a share of at most 1"
        got = f"{str(interpolation)[:40]!r}, {str(share)[:40]}"
        raise InputError(problem(whose, got, rule, "Check config.json."))
    changed = {"resize": "shorter", "antialias": True, "interpolation": interpolation, "crop_share": float(share)}
    return usual._replace(scale=1 / 255, **{"mean": usual.mean, "std": usual.std, **numbers}, **changed)

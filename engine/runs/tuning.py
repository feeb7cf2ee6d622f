"""The arguments of `engine.finetune` that say what trains, as a FineTuneConfig has them."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from engine.config.finetune import FeatureCaching, FineTuneConfig
from engine.errors import InputError, problem
from engine.models.layer import Layer
from engine.models.specs import Model, Sequential


def read_tuning(
    model: Model,
    head: Any,
    freeze: Any,
    freeze_first: int,
    freeze_until: str | None,
    unfreeze: Any,
    learning_rates: Any,
    cache_features: FeatureCaching,
) -> tuple[Model, FineTuneConfig]:
    """(the model, with another head if that is given as layers; the config). Raises InputError for other kinds."""
    model, names = _with_head(model, head)
    return model, FineTuneConfig(
        head=names,
        freeze=_names("freeze", freeze),
        freeze_first=freeze_first,
        freeze_until=freeze_until,
        unfreeze=_unfreezings(unfreeze),
        learning_rates=_factors(learning_rates),
        cache_features=cache_features,
    )


def _with_head(model: Model, head: Any) -> tuple[Model, tuple[str, ...]]:
    """(the model, with layers given as its head in the place of its own; names of the layers that are new)."""
    given = (head,) if isinstance(head, Layer) else head
    if not isinstance(given, Iterable) or not any(isinstance(layer, Layer) for layer in given):
        return model, _names("head", head)
    if not isinstance(model, Sequential):
        rule = "names of layers, with a model of a class of your own"
        raise InputError(problem("head", "layers", rule, "Give the class another head, and its model here."))
    changed = model.with_head(tuple(given))
    own = len(changed.layers) - len(tuple(given))
    new = (each for each in changed.named if each.position[0] >= own and not each.is_block)
    return changed, tuple(each.name for each in new)


def _names(field: str, layers: Any) -> tuple[str, ...]:
    """Names or patterns of layers; a single one needs no list."""
    names = (layers,) if isinstance(layers, str) else layers
    if not _are_texts(names):
        raise InputError(problem(f"finetune.{field}", repr(layers), "a list of layers by name", 'Give ["conv_*"].'))
    return tuple(names)


def _are_texts(given: Any) -> bool:
    return not isinstance(given, str) and isinstance(given, Iterable) and all(isinstance(text, str) for text in given)


def _unfreezings(layers: Any) -> tuple[str, ...]:
    """{2: ["conv_3"]} as FineTuneConfig has it, `2:conv_3`."""
    if not isinstance(layers, Mapping | None):
        rule = "epochs done, each with the layers that then train"
        raise InputError(problem("finetune.unfreeze", repr(layers), rule, 'Give it like {2: ["conv_3"]}.'))
    return tuple(f"{epoch}:{name}" for epoch, names in (layers or {}).items() for name in _names("unfreeze", names))


def _factors(rates: Any) -> tuple[str, ...]:
    """{"conv_*": 0.1} as FineTuneConfig has it, `conv_*=0.1`."""
    is_mapping = isinstance(rates, Mapping | None)
    if not is_mapping or not all(isinstance(factor, Real) for factor in (rates or {}).values()):
        rule = "layers, each with the factor of its learning rate"
        raise InputError(problem("finetune.learning_rates", repr(rates), rule, 'Give it like {"conv_*": 0.1}.'))
    return tuple(f"{pattern}={float(factor)!r}" for pattern, factor in (rates or {}).items())

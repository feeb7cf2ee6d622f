"""`--help` of a recipe: the options that people change most. `--help-all` lists the rest."""

from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

from tyro.conf import Suppress

from engine.config import RunConfig

# Section of RunConfig → the fields that `--help` shows.
COMMON = {
    "data": ("name", "path", "image_size", "validation_fraction"),
    "train": ("epochs", "batch_size", "seed", "best_by", "patience", "members", "folds", "precision"),
    "optim": ("name", "learning_rate", "schedule", "weight_decay"),
    "augment": ("horizontal_flip", "rotation", "zoom"),
    "finetune": ("init",),
}


def only_common(config: RunConfig) -> RunConfig:
    """The same config, of a class of which the parser of options shows COMMON alone."""
    shown = {name: _narrowed(getattr(config, name), COMMON[name]) for name in COMMON}
    kind = _class_of(RunConfig, COMMON, {name: type(value) for name, value in shown.items()})
    return kind(**{each.name: shown.get(each.name, getattr(config, each.name)) for each in fields(config)})


def _narrowed(section: Any, shown: tuple[str, ...]) -> Any:
    kind = _class_of(type(section), shown, {})
    return kind(**{each.name: getattr(section, each.name) for each in fields(section)})


def _class_of(kind: type, shown: Any, types: dict[str, type]) -> type:
    """A class derived from a dataclass, with all fields but those shown suppressed and some of other types."""
    hints = get_type_hints(kind, include_extras=True) | types
    changed = [
        (each.name, hints[each.name] if each.name in shown else Annotated[hints[each.name], Suppress], _copied(each))
        for each in fields(kind)
        if each.name not in shown or each.name in types
    ]
    return make_dataclass(kind.__name__, changed, bases=(kind,), frozen=True)


def _copied(given: Field) -> Any:
    if given.default_factory is not MISSING:
        return field(default_factory=given.default_factory, kw_only=given.kw_only)
    return field(default=given.default, kw_only=given.kw_only)

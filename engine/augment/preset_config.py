"""PresetConfig: an AugmentConfig that says something about the data of a run, too."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from engine.augment.config import AugmentConfig
from engine.errors import InputError, problem


@dataclass(frozen=True)
class DataSettings:
    """What a preset says about the data, by the names of DataConfig; None: nothing."""

    validation_fraction: float | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    standardize: str | None = None
    zca_epsilon: float | None = None
    center_crop: str | None = None

    def given(self) -> dict[str, Any]:
        """The settings that say something."""
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def added_to(self, data: Any) -> Any:
        """The DataConfig with these settings; raises InputError where it says something else."""
        problems = [
            problem(f"data.{name}", getattr(data, name), f"{value}, as the preset says", "Leave out one of them.")
            for name, value in self.given().items()
            if getattr(data, name) not in (getattr(type(data), name), value)
        ]
        if problems:
            raise InputError(*problems)
        return replace(data, **self.given())


@dataclass(frozen=True)
class PresetConfig(AugmentConfig):
    """An AugmentConfig that brings settings of the data along, which a RunConfig moves to its DataConfig."""

    data: DataSettings = field(default_factory=DataSettings)

    def __or__(self, other: AugmentConfig) -> "PresetConfig":
        """Both, with the settings of both; raises InputError where they contradict each other."""
        both = super().__or__(other)
        ours = self.data.given()
        theirs = other.data.given() if isinstance(other, PresetConfig) else {}
        problems = [
            problem(f"data.{name}", value, f"{ours[name]} as before it", "Give one of them.")
            for name, value in theirs.items()
            if ours.get(name, value) != value
        ]
        if problems:
            raise InputError(*problems)
        return replace(both, data=DataSettings(**{**ours, **theirs}))  # type: ignore[return-value]

    def plain(self) -> AugmentConfig:
        """The augmentation alone."""
        return AugmentConfig(**{own.name: getattr(self, own.name) for own in fields(AugmentConfig)})

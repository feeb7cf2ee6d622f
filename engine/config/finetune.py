"""FineTuneConfig: what a run starts from, which layers train from which epoch on, and how fast.

Layers go by the names of `Sequential.layer_names`; those of a user's own class by the dotted attribute paths of its
modules. A pattern is a name, several (conv_*), or, of dotted paths, all below one (encoder for encoder.conv).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from engine.config.matters import RESULT
from engine.errors import problem, unknown
from engine.records import check, check_all, check_whole

FeatureCaching = Literal["auto", "off"]


@dataclass(frozen=True)
class FineTuneConfig:
    """Training on from another run's weights, whole or in part."""

    init: Annotated[Path | None, arg(name="init", prefix_name=False, metavar="RUN"), RESULT] = None
    """Start from the weights and input contract of a run, in its directory or packed, at its best step."""
    head: tuple[str, ...] = ()
    """Layers that start from scratch, by name or pattern; None: the last with weights if the classes differ."""
    freeze: tuple[str, ...] = ()
    """Layers that stay as they are, by name or pattern, like conv_*; they run as in evaluation, batch norms too."""
    freeze_first: int = 0
    """Freeze so many of the first layers too, counted as `engine summary` numbers them."""
    unfreeze: tuple[str, ...] = ()
    """EPOCH:PATTERN …: frozen layers that train once so many epochs are done, like 2:conv_3 4:*."""
    learning_rates: tuple[str, ...] = ()
    """PATTERN=FACTOR …: what the learning rate of layers is multiplied by; the last pattern that fits counts."""
    cache_features: FeatureCaching = "auto"
    """auto: what the frozen layers below all others give is computed once, where nothing random is among it and it
    fits the memory."""

    def __post_init__(self):
        check_all(self, "finetune", self._range_problems)

    def _range_problems(self) -> list[str]:
        problems = check_whole("finetune.freeze_first", self.freeze_first, 0, "Give 0 for none.")
        holds = all(re.fullmatch(r"[1-9]\d*:.+", text) for text in self.unfreeze)
        rule = "EPOCH:PATTERN, with a whole number of at least 1"
        problems += check("finetune.unfreeze", self.unfreeze, holds, rule, "Give it like 2:conv_3.")
        holds = all(_is_factor(text) for text in self.learning_rates)
        rule = "PATTERN=FACTOR, with a factor above 0"
        remedy = "Give it like conv_*=0.1; use freeze for none at all."
        return problems + check("finetune.learning_rates", self.learning_rates, holds, rule, remedy)

    @property
    def freezes(self) -> bool:
        """Whether any layer is frozen, at least for a while."""
        return bool(self.freeze or self.freeze_first)

    @property
    def unfreezings(self) -> list[tuple[int, str]]:
        """`unfreeze` as (epoch, pattern)."""
        return [(int(epoch), pattern) for epoch, _, pattern in (text.partition(":") for text in self.unfreeze)]


def frozen_layers(config: FineTuneConfig, names: Sequence[str], epoch: int) -> frozenset[str]:
    """The layers, of those named, that are frozen once so many epochs are done."""
    starts = {name: first_epoch(config, names, name) for name in names}
    return frozenset(name for name, first in starts.items() if first is None or epoch < first)


def first_epoch(config: FineTuneConfig, names: Sequence[str], name: str) -> int | None:
    """How many epochs are done when a layer starts to train; None if it never does."""
    if not (matches_pattern(name, config.freeze) or name in names[: config.freeze_first]):
        return 0
    return min((epoch for epoch, pattern in config.unfreezings if matches_pattern(name, [pattern])), default=None)


def rate_factor(config: FineTuneConfig, name: str) -> float:
    """What the learning rate of a layer is multiplied by."""
    pairs = (text.rpartition("=") for text in reversed(config.learning_rates))
    return next((float(number) for pattern, _, number in pairs if matches_pattern(name, [pattern])), 1.0)


def name_problems(config: FineTuneConfig, names: Sequence[str], are_ordered: bool = True) -> list[str]:
    """What does not go together with a model's layers; `are_ordered` if there is a first one."""
    given = {
        "head": config.head,
        "freeze": config.freeze,
        "unfreeze": [pattern for _, pattern in config.unfreezings],
        "learning_rates": [text.rpartition("=")[0] for text in config.learning_rates],
    }
    problems: list[str] = [
        unknown(f"finetune.{field}", pattern, names)
        for field, patterns in given.items()
        for pattern in patterns
        if not any(matches_pattern(name, [pattern]) for name in names)
    ]
    if config.freeze_first and not are_ordered:
        rule, remedy = "0 for a class of your own, whose layers have no order", "Use finetune.freeze."
        problems.append(problem("finetune.freeze_first", config.freeze_first, rule, remedy))
    at_start = frozen_layers(config, names, 0)
    for _, pattern in config.unfreezings:
        if not any(matches_pattern(name, [pattern]) for name in at_start):
            rule = f"frozen layers ({', '.join(sorted(at_start)) or 'there are none'})"
            problems.append(problem("finetune.unfreeze", repr(pattern), rule, "Freeze them from the start."))
    return problems


def matches_pattern(name: str, patterns: Iterable[str]) -> bool:
    """Whether a layer is named by one of the patterns, itself or what it is part of."""
    parts = name.split(".")
    wholes = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatchcase(whole, pattern) for pattern in patterns for whole in wholes)


def _is_factor(text: str) -> bool:
    pattern, _, number = text.rpartition("=")
    return bool(pattern) and re.fullmatch(r"(\d+(\.\d+)?|\.\d+)(e[+-]?\d+)?", number) is not None and float(number) > 0

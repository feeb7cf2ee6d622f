"""FineTuneConfig: what a run starts from, which layers train from which epoch on, and how fast.

Layers go by the names of `Sequential.named`; those of a user's own class by the dotted attribute paths of its modules.
A pattern is a name or several (conv_*), of layers, of blocks (all within them), of the activation of a layer, or of the
first part of a dotted name (encoder for encoder.conv).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from tyro.conf import arg

from engine.config.matters import RESULT
from engine.errors import problem, unknown
from engine.models.names import NamedLayer
from engine.records import check, check_all, check_whole

FeatureCaching = Literal["auto", "off"]


class LayerName(NamedTuple):
    """What a layer is called, every name that it answers to, and its number as `engine summary` counts, from 0."""

    name: str
    answers_to: tuple[str, ...]
    number: int = 0

    def fits(self, patterns: Iterable[str]) -> bool:
        """Whether one of the patterns means it, itself or what it is part of."""
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in self.answers_to)


def layer_names(named: Iterable[NamedLayer]) -> tuple[LayerName, ...]:
    """Those of a model's layers, in order; blocks are not among them, but what is in them answers to theirs."""
    return tuple(LayerName(each.name, each.answers_to, each.position[0]) for each in named if not each.is_block)


def dotted_names(paths: Iterable[str]) -> tuple[LayerName, ...]:
    """Those of modules by their paths: encoder.conv answers to encoder too."""
    parts = ((path, path.split(".")) for path in paths)
    return tuple(LayerName(path, tuple(".".join(of[:end]) for end in range(1, len(of) + 1))) for path, of in parts)


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
    freeze_until: str | None = None
    """Freeze all layers up to this one too, which is frozen itself, like conv_dw_3_relu."""
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
        return bool(self.freeze or self.freeze_first or self.freeze_until)

    @property
    def unfreezings(self) -> list[tuple[int, str]]:
        """`unfreeze` as (epoch, pattern)."""
        return [(int(epoch), pattern) for epoch, _, pattern in (text.partition(":") for text in self.unfreeze)]


def frozen_layers(config: FineTuneConfig, layers: Sequence[LayerName], epoch: int) -> frozenset[str]:
    """The layers that are frozen once so many epochs are done."""
    starts = first_epochs(config, tuple(layers))
    return frozenset(name for name, first in starts.items() if first is None or epoch < first)


@lru_cache(maxsize=32)
def first_epochs(config: FineTuneConfig, layers: tuple[LayerName, ...]) -> Mapping[str, int | None]:
    """How many epochs are done when each layer starts to train; None if it never does."""
    frozen = {layer.name for fits in freezings(config, layers).values() for layer in fits}
    later = [(epoch, pattern) for epoch, pattern in config.unfreezings]

    def first(layer: LayerName) -> int | None:
        if layer.name not in frozen:
            return 0
        return min((epoch for epoch, pattern in later if layer.fits([pattern])), default=None)

    return {layer.name: first(layer) for layer in layers}


def freezings(config: FineTuneConfig, layers: Sequence[LayerName]) -> dict[str, list[LayerName]]:
    """What freezes layers at the start, in words → these layers."""
    found = {pattern: [layer for layer in layers if layer.fits([pattern])] for pattern in config.freeze}
    if config.freeze_first:
        found[f"the first {config.freeze_first}"] = [each for each in layers if each.number < config.freeze_first]
    if config.freeze_until:
        last = max((n for n, layer in enumerate(layers) if layer.fits([config.freeze_until])), default=-1)
        found[f"all until {config.freeze_until}"] = list(layers[: last + 1])
    return found


def rate_factor(config: FineTuneConfig, layer: LayerName | None) -> float:
    """What the learning rate of a layer is multiplied by."""
    if layer is None:
        return 1.0
    pairs = (text.rpartition("=") for text in reversed(config.learning_rates))
    return next((float(number) for pattern, _, number in pairs if layer.fits([pattern])), 1.0)


def name_problems(config: FineTuneConfig, layers: Sequence[LayerName], are_ordered: bool = True) -> list[str]:
    """What does not go together with a model's layers; `are_ordered` if there is a first one."""
    given = {
        "head": config.head,
        "freeze": config.freeze,
        "freeze_until": [config.freeze_until] if config.freeze_until else [],
        "unfreeze": [pattern for _, pattern in config.unfreezings],
        "learning_rates": [text.rpartition("=")[0] for text in config.learning_rates],
    }
    known = dict.fromkeys(name for layer in layers for name in (*layer.answers_to, layer.name))
    problems: list[str] = [
        unknown(f"finetune.{field}", pattern, known)
        for field, patterns in given.items()
        for pattern in patterns
        if not any(layer.fits([pattern]) for layer in layers)
    ]
    rule = "for a class of your own, whose layers have no order"
    if config.freeze_first and not are_ordered:
        problems.append(problem("finetune.freeze_first", config.freeze_first, f"0 {rule}", "Use finetune.freeze."))
    if config.freeze_until and not are_ordered:
        problems.append(problem("finetune.freeze_until", config.freeze_until, f"none {rule}", "Use finetune.freeze."))
    at_start = frozen_layers(config, layers, 0)
    for _, pattern in config.unfreezings:
        if not any(layer.fits([pattern]) for layer in layers if layer.name in at_start):
            rule = f"frozen layers ({shortened(sorted(at_start)) or 'there are none'})"
            problems.append(problem("finetune.unfreeze", repr(pattern), rule, "Freeze them from the start."))
    return problems


MOST_NAMES = 6  # in one line


def shortened(names: Sequence[str]) -> str:
    """Names in a line, of many the first and the last: `conv1, conv1_bn, conv1_relu, … conv_dw_3_relu`."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: MOST_NAMES - 2])}, … {names[-1]}"


def _is_factor(text: str) -> bool:
    pattern, _, number = text.rpartition("=")
    return bool(pattern) and re.fullmatch(r"(\d+(\.\d+)?|\.\d+)(e[+-]?\d+)?", number) is not None and float(number) > 0

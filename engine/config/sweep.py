"""Sweeps: a number of the config in several values, each the setting of one member of an ensemble."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import exp, isfinite, log
from typing import Any

from engine.config.ensemble import OPTIM_NUMBERS, MemberNumbers
from engine.config.run import RunConfig
from engine.errors import InputError, problem

MOST_MEMBERS = 1000
OF_MEMBERS = {
    "optim.learning_rate": "learning_rates",
    "optim.weight_decay": "weight_decays",
    "train.label_smoothing": "label_smoothings",
}
"""Fields that have a list of their own in EnsembleConfig."""
SWEPT = (*OF_MEMBERS, *(f"optim.{name}" for name in OPTIM_NUMBERS))
FORM = "FIELD=LOW:HIGH:log:COUNT, FIELD=LOW:HIGH:linear:COUNT or FIELD=NUMBER,NUMBER,…"
Sweep = Sequence[str] | Mapping[str, Sequence[float]]


def with_sweep(config: RunConfig, sweep: Sweep) -> RunConfig:
    """The config of an ensemble with a member for each value, of several fields for each combination of their values.

    sweep: {"optim.learning_rate": [1e-4, 1e-3]}, or texts like optim.learning-rate=1e-4:1e-1:log:8. All members draw
      the same, so that they differ in these numbers alone; the one that is best on the validation data predicts.
    Raises InputError for fields that members of one program cannot differ in, and for values that a field cannot have.
    """
    columns: dict[str, tuple[float, ...]] = {}
    for name, values in _read_all(sweep):
        field = _check_field(name)
        if field in columns:
            raise InputError(problem("sweep", f"{name} twice", "each field once", "Give its values in one."))
        columns[field] = _check_values(name, values)
    if not columns:
        return config
    if config.train.members != 1:
        rule = "1 with a sweep, whose members are its values"
        raise InputError(problem("train.members", config.train.members, rule, "Leave out members and folds."))
    rows = list(product(*columns.values()))
    if len(rows) > MOST_MEMBERS:
        raise InputError(problem("sweep", f"{len(rows):,} members", f"at most {MOST_MEMBERS:,}", "Give fewer values."))
    own: dict[str, Any] = {}
    numbers = []
    for place, name in enumerate(columns):
        values = tuple(row[place] for row in rows)
        config = _with_value(config, name, values)
        if name in OF_MEMBERS:
            own[OF_MEMBERS[name]] = values
        else:
            numbers.append(MemberNumbers(name.removeprefix("optim."), values))
    ensemble = replace(config.ensemble, shared_seed=True, select_best=True, numbers=tuple(numbers), **own)
    return replace(config, train=replace(config.train, members=len(rows)), ensemble=ensemble)


def swept_columns(config: RunConfig) -> dict[str, tuple[float, ...]]:
    """Field → its value in each member, of all fields that members differ in."""
    ensemble = config.ensemble
    lists = {name: getattr(ensemble, plural) for name, plural in OF_MEMBERS.items()}
    found = {name: values for name, values in lists.items() if values is not None}
    return found | {f"optim.{each.name}": each.values for each in ensemble.numbers}


def _read_all(sweep: Any) -> list[tuple[str, Any]]:
    """(field, values) of all that is given; raises InputError for anything but a mapping or a list of texts."""
    if isinstance(sweep, Mapping):
        return [(str(name), values) for name, values in sweep.items()]
    if isinstance(sweep, Sequence) and not isinstance(sweep, str) and all(isinstance(text, str) for text in sweep):
        return [_read(text) for text in sweep]
    remedy = 'Give it like {"optim.learning_rate": [0.001, 0.01]}.'
    if isinstance(sweep, str):
        remedy = "Put it in brackets."
    raise InputError(problem("sweep", repr(sweep)[:80], "fields with their values", remedy))


def _read(text: str) -> tuple[str, tuple[float, ...]]:
    """(field, values) of a sweep as it is written on the command line."""
    name, equals, written = text.partition("=")
    parts = written.split(":")
    try:
        if len(parts) == 4 and parts[2] in ("log", "linear"):
            low, high, count = float(parts[0]), float(parts[1]), int(parts[3])
            if count < 2 or not (isfinite(low) and isfinite(high)) or (parts[2] == "log" and min(low, high) <= 0):
                raise ValueError
            return name, _spaced(low, high, min(count, MOST_MEMBERS + 1), parts[2] == "log")
        if equals and len(parts) == 1:
            return name, tuple(float(value) for value in written.split(","))
    except ValueError:
        pass
    raise InputError(problem("sweep", text, FORM, "Give it like optim.learning-rate=1e-4:1e-1:log:8."))


def _spaced(low: float, high: float, count: int, is_log: bool) -> tuple[float, ...]:
    shares = [i / (count - 1) for i in range(count)]
    if not is_log:
        return tuple(low + (high - low) * share for share in shares)
    # Rounded, so that the values can be typed again.
    return tuple(float(f"{exp(log(low) + (log(high) - log(low)) * share):.6g}") for share in shares)


def _check_field(name: str) -> str:
    field = name.replace("-", "_").removeprefix("__")
    if field not in SWEPT:
        rule = f"one of {', '.join(each.replace('_', '-') for each in SWEPT)}, numbers that one program can be given"
        remedy = "Train a run for each value of any other field, or let Optuna do it: docs/sweeps.md."
        raise InputError(problem("sweep", name, rule, remedy))
    return field


def _check_values(name: str, values: Any) -> tuple[float, ...]:
    try:
        found = tuple(map(float, values))
    except (TypeError, ValueError):
        got, remedy = f"{name} with {values!r}"[:120], 'Give it like {"optim.learning_rate": [0.001, 0.01]}.'
        raise InputError(problem("sweep", got, "a list of numbers", remedy)) from None
    if len(found) < 2 or len(set(found)) < len(found):
        raise InputError(
            problem("sweep", f"{name} with {list(found)}", "two values or more, all different", FORM + ".")
        )
    return found


def _with_value(config: RunConfig, name: str, values: Sequence[float]) -> RunConfig:
    """The config with the first of the values in a field; raises InputError for any that the field cannot have."""
    section, field = name.split(".")
    configs = [replace(getattr(config, section), **{field: value}) for value in values]
    return replace(config, **{section: configs[0]})

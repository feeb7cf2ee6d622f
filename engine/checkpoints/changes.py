"""Changes of a run's settings: what differs between a stored config and one to resume with, and what may differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.checkpoints.record import Change, Record
from engine.config import RunConfig
from engine.config.correction import variants
from engine.config.matters import CHANGEABLE, RESULT, read_marks
from engine.errors import InputError, problem, unknown
from engine.records import Difference, differences, to_json

CHANGEABLE_FIELDS = tuple(".".join(path) for path, mark in read_marks(RunConfig).items() if CHANGEABLE in mark)
"""Dotted fields that a resumed run may have another value of, if that is allowed."""


def find_changes(stored: RunConfig, given: RunConfig) -> list[Difference]:
    """Fields that differ and matter for what the run computes."""
    free = tuple(f"{'.'.join(path)}." for path, mark in given.marks().items() if RESULT not in mark)
    known = stored.to_json()
    every = (differences(known, variant.to_json()) for variant in variants(given))
    return min(
        ([change for change in changes if not f"{change.field}.".startswith(free)] for changes in every), key=len
    )


def check_changeable(names: Iterable[str]) -> frozenset[str]:
    """Fields by the names that options or configs have for them; raises InputError for one that may not change."""
    if isinstance(names, str):
        raise InputError(problem("allow_change", repr(names), "a list", "Put it in brackets."))
    found = [name.replace("-", "_") for name in names]
    if wrong := [name for name in found if name not in CHANGEABLE_FIELDS]:
        raise InputError(unknown("allow_change", wrong[0], CHANGEABLE_FIELDS))
    return frozenset(found)


def in_terms_of(record: Record, given: RunConfig, allowed: Iterable[str] = ()) -> RunConfig:
    """The given config in the terms of a run that was saved earlier, to compare the two.

    Names are read as in earlier versions if that brings the config closer to the stored one. A default batch size is
    the number of examples if there are fewer. A field that was changed earlier, and here has the value that the run was
    started with, keeps the changed one, unless it is among the `allowed`.
    """
    if record.steps_per_epoch == 1:
        given = given.with_batch_within(record.config.train.batch_size)
    before = [given.in_terms_of_version_1("model"), given.in_terms_of_version_1("model", "optim")]
    found = min(given, *before, key=lambda config: len(find_changes(record.config, config)))
    first = {change.field: change.before for change in reversed(record.changes or ())}
    for field in first.keys() - set(allowed):
        section, name = field.split(".")
        if to_json(getattr(getattr(found, section), name)) == first[field]:
            value = getattr(getattr(record.config, section), name)
            found = replace(found, **{section: replace(getattr(found, section), **{name: value})})
    return found


def list_changes(record: Record, config: RunConfig) -> tuple[Change, ...]:
    """Those made so far, and those that resuming with this config makes."""
    found = find_changes(record.config, config)
    new = [Change(record.step, *each) for each in found if each.field in CHANGEABLE_FIELDS]
    return (*(record.changes or ()), *new)


def change_texts(changes: Sequence[Change]) -> list[str]:
    """`optim.learning_rate 0.001 → 1e-05`, one for each."""
    return [f"{each.field} {each.before} → {each.after}" for each in changes]


def describe_new(changes: Sequence[Change], history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The column `changes` of the row that follows this history, if there were any since."""
    since = history[-1]["step"] if history else 0
    texts = change_texts([change for change in changes if change.step >= since])
    return {"changes": "; ".join(texts)} if texts else {}

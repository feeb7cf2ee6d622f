"""Frozen dataclasses to JSON values and back, without loss.

A dataclass becomes an object of its fields. Where a field may hold one of several dataclasses (the layers of a
model), the object also carries `kind`, the class name. Reading checks every value against the field's type, so a
record that was edited by hand fails with the field's name rather than later and elsewhere. A class whose attribute
KINDS maps names to dataclasses derived from it stands for any of these.

A dataclass whose fields have changed their meaning has a class attribute RECORD_VERSION, which its objects carry as
`version` (1 where there is none), and a class method `upgraded(fields, version)` → the fields in today's terms.
"""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from engine.errors import InputError, problem, unknown
from engine.host.json_files import LARGEST_WHOLE, shown

LONGEST_NAME = 80
ADDED = {"is added": True}
"""The metadata of a field that records have only where it differs from its default.

For fields that a class gets later, so that older records stay as they are. Give it by keyword only.
"""
NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "an object of named fields",
    (list, tuple): "a list",
}


def to_json(value: Any) -> Any:
    """The JSON value (dict, list, str, number, bool, None) that stands for a dataclass or a plain value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written = [field for field in dataclasses.fields(value) if not _is_left_out(field, getattr(value, field.name))]
        fields = {field.name: to_json(getattr(value, field.name)) for field in written}
        version = getattr(value, "RECORD_VERSION", None)
        return {"kind": type(value).__name__, **({"version": version} if version else {}), **fields}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if getattr(value, "shape", None) == ():
        return value.item()  # type: ignore[union-attr]  # a NumPy number
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be written as JSON without loss")


def from_json(kind: Any, value: Any, where: str = "record") -> Any:
    """The value of type `kind` (a dataclass, union, tuple, …) that `to_json` turned into `value`.

    Raises InputError, naming the field as a dotted path, where the value does not fit the type.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _from_union(get_args(kind), value, where)
    if origin is typing.Annotated:
        return from_json(get_args(kind)[0], value, where)
    if origin is typing.Literal:
        if value not in get_args(kind):
            raise InputError(unknown(where, _name(value), map(str, get_args(kind))))
        return value
    if origin is tuple:
        return _from_sequence(get_args(kind), value, where)
    if origin in (dict, Mapping):
        return dict(_expect(value, dict, where))
    if isinstance(kind, type) and "KINDS" in vars(kind):
        return _from_union(tuple(vars(kind)["KINDS"].values()), value, where)
    if dataclasses.is_dataclass(kind):
        return _from_object(kind, value, where)
    return _from_scalar(kind, value, where)


def check_types(record: Any, where: str) -> list[str]:
    """Problems of a dataclass whose fields hold values of other types than they declare.

    Values that only differ in form (a list for a tuple, a string for a path, 1 for 1.0) are put right in place.
    """
    problems, types_of = [], _types_of(type(record))
    for name, kind in types_of.items():
        value, field = getattr(record, name), f"{where}.{name}".lstrip(".")
        if dataclasses.is_dataclass(kind):
            if type(value) is kind:
                continue  # a record that has checked itself
            if not isinstance(value, dict) and not dataclasses.is_dataclass(value):
                rule = f"{typing.cast(type, kind).__name__}(…)"
                problems.append(problem(field, repr(value)[:80], rule, f"Write {name}={rule}."))
                continue
        try:
            object.__setattr__(record, name, from_json(kind, to_json(value), field))
        except InputError as error:
            problems += error.problems
        except TypeError:
            remedy = _remedy_for_code(kind, value)
            problems.append(problem(field, repr(value)[:80], "a value that JSON can hold", remedy))
    return problems


def _remedy_for_code(kind: Any, value: Any) -> str:
    """What to write in place of a value that JSON cannot hold, as of a function."""
    if not any(map(callable, value if isinstance(value, list | tuple) else (value,))):
        return "Correct it."
    if "Custom" not in str(kind):
        return "Give a value; no function goes here."
    return "Pass engine.custom(it)." if callable(value) else "Pass engine.custom(function) in place of each function."


class Difference(NamedTuple):
    """A dotted field in which two JSON values differ."""

    field: str
    stored: Any
    given: Any

    def text(self, stored: str = "stored", given: str = "given") -> str:
        """`field: stored A, given B`, or with other words for the two sides."""
        return f"{self.field}: {stored} {self.stored!r}, {given} {self.given!r}"


def differences(stored: Any, given: Any, where: str = "") -> list[Difference]:
    """All fields in which two JSON values differ."""
    if isinstance(stored, dict) and isinstance(given, dict):
        names = [*stored, *(name for name in given if name not in stored)]
        found = [differences(stored.get(n), given.get(n), f"{where}.{n}" if where else n) for n in names]
        return [each for inner in found for each in inner]
    return [] if stored == given else [Difference(where, stored, given)]


def _is_left_out(field: dataclasses.Field, value: Any) -> bool:
    return field.metadata == ADDED and value == field.default


def _from_union(kinds: tuple, value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    records: dict[str, Any] = {getattr(k, "__name__", ""): k for k in kinds if dataclasses.is_dataclass(k)}
    if records and isinstance(value, dict):
        name = value.get("kind")
        if not isinstance(name, str) or name not in records:
            raise InputError(unknown(f"{where}.kind", _name(name), records))
        return from_json(records[name], value, where)
    plain = [kind for kind in kinds if kind not in (type(None), *records.values())]
    errors = list[InputError]()
    for kind in plain or records.values():
        try:
            return from_json(kind, value, where)
        except InputError as error:
            errors.append(error)
    rules = dict.fromkeys(str(error.rule) for error in errors)
    if len({(error.field, error.got) for error in errors}) > 1 or len(rules) == 1:
        raise errors[-1]  # the one that got further in
    raise InputError(problem(where, errors[-1].got, " or ".join(rules), str(errors[-1].remedy)))


def _from_sequence(kinds: tuple, value: Any, where: str) -> tuple:
    items = _expect(value, (list, tuple), where)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(from_json(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if len(items) != len(kinds):
        raise InputError(problem(where, f"{len(items)} values", f"{len(kinds)}", "Correct the record."))
    return tuple(from_json(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, items, strict=True)))


def _from_object(kind: Any, value: Any, where: str) -> Any:
    types_of = _types_of(kind)
    if _expect(value, dict, where).get("kind", kind.__name__) != kind.__name__:
        raise InputError(problem(f"{where}.kind", shown(value["kind"]), repr(kind.__name__), "Correct it."))
    given = _upgraded(kind, {name: item for name, item in value.items() if name != "kind"}, where)
    for name in given:
        if name not in types_of:
            raise InputError(unknown(f"{where}.{_name(name)}", _name(name), types_of))
    missing = [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in given]
    if missing:
        raise InputError(problem(f"{where}.{missing[0]}", "nothing", "a value", "Add the field."))
    return kind(**{name: from_json(types_of[name], item, f"{where}.{name}") for name, item in given.items()})


def _upgraded(kind: Any, given: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of an object as its class means them today."""
    newest = getattr(kind, "RECORD_VERSION", None)
    if newest is None:
        return given
    version = given.pop("version", 1)
    if not isinstance(version, int) or not 1 <= version <= newest:
        rule = f"1 to {newest}"
        raise InputError(problem(f"{where}.version", shown(version), rule, "Install a newer engine, or use another."))
    return given if version == newest else kind.upgraded(given, version)


def _name(value: Any) -> Any:
    """A name that is not known, as an error repeats it."""
    return value[:LONGEST_NAME] if isinstance(value, str) else shown(value)


@cache
def _types_of(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)  # without marks, which would hide that a field is a record
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _from_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is Path:
        return Path(_expect(value, str, where))
    if kind in (int, float) and isinstance(value, int) and abs(value) >= LARGEST_WHOLE:
        raise InputError(problem(where, shown(value), "a number below 2^63", "Correct it."))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        raise InputError(problem(where, value, "a finite number", "Correct it."))
    return _expect(value, kind, where)


def _expect(value: Any, kinds: Any, where: str) -> Any:
    is_bool_as_number = isinstance(value, bool) and kinds in (int, float)
    if is_bool_as_number or not isinstance(value, kinds):
        raise InputError(problem(where, shown(value), NAMES.get(kinds, "another kind of value"), "Correct it."))
    return value


def check(name: str, value: object, holds: bool, rule: str, remedy: str) -> list[str]:
    """No problem if the rule holds, else the one."""
    return [] if holds else [problem(name, value, rule, remedy)]


def check_whole(name: str, value: Any, least: int, remedy: str, below: int | None = None) -> list[str]:
    """No problem for a whole number of at least `least`, and below `below`."""
    rule = f"a whole number of at least {least}" + (f" and below {below}" if below else "")
    holds = isinstance(value, Integral) and least <= int(value) < (math.inf if below is None else below)
    return check(name, value if holds or isinstance(value, Integral) else shown(value), holds, rule, remedy)


def check_all(config: Any, where: str, range_problems: Callable[[], list[str]]) -> None:
    """Raises InputError with the first problem of every field, of its type or, where types allow to tell, its range."""
    problems = check_types(config, where)
    with contextlib.suppress(TypeError, *([AttributeError, ValueError] if problems else [])):
        problems += range_problems()
    first = {getattr(each, "field", each): each for each in reversed(problems)}
    if first:
        raise InputError(*reversed(first.values()))

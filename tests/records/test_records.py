"""Dataclasses to JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import engine
from engine.errors import InputError
from engine.records import differences, from_json, to_json


@dataclass(frozen=True)
class Circle:
    radius: float


@dataclass(frozen=True)
class Box:
    sides: tuple[int, int]
    corner: Literal["round", "sharp"] = "sharp"


@dataclass(frozen=True)
class Drawing:
    """One field of each kind that a record may have."""

    title: str
    shapes: tuple[Circle | Box, ...] = ()
    frame: Box | None = None
    gap: int | tuple[int, int] = 1
    scale: float = 1.0
    is_final: bool = False
    file: Path | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    author: Annotated[str, "hidden"] = ""


FULL = Drawing(
    "plan",
    (Circle(1.5), Box((2, 3), "round")),
    Box((4, 5)),
    (1, 2),
    0.1,
    True,
    Path("plans/first.svg"),
    {"n": 3, "names": ["a", None]},
    "me",
)


@pytest.mark.parametrize("record", [FULL, Drawing("empty"), Drawing("one gap", gap=3)])
def test_record_comes_back_equal_when_read_from_json_text(record: Drawing):
    assert from_json(Drawing, json.loads(json.dumps(to_json(record)))) == record


def test_config_comes_back_equal_when_every_section_was_changed():
    config = engine.RunConfig(
        "my run",
        engine.cnn((4, 8), pool_last=True, hidden=(16,), dropout=0.1),
        engine.DataConfig("mnist", image_size="32x48", color="rgb", mean=(0.1, 0.2, 0.3), data_dir=Path("prepared")),
        engine.TrainConfig(epochs=3, label_smoothing=0.1, seed=2**32 - 1),
        engine.OptimConfig("adamw", 1 / 3, schedule="cosine", warmup_epochs=0.5, clip_norm=1.0),
        engine.PlanConfig("xla", 7),
    )
    assert engine.RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_to_json_writes_the_class_of_each_record():
    assert to_json(FULL)["shapes"] == [
        {"kind": "Circle", "radius": 1.5},
        {"kind": "Box", "sides": [2, 3], "corner": "round"},
    ]


@pytest.mark.parametrize("value", [np.zeros(2), {1, 2}, Circle, object()])
def test_to_json_refuses_what_json_cannot_hold(value: object):
    with pytest.raises(TypeError, match="cannot be written as JSON without loss"):
        to_json(Drawing("bad", notes={"value": value}))


def test_whole_number_becomes_a_float_when_the_field_is_one():
    radius = from_json(Circle, {"kind": "Circle", "radius": 2}).radius
    assert (radius, type(radius)) == (2.0, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": 3}, r"plan\.title: got 3; expected text\."),
        ({"title": None}, r"plan\.title: got None; expected text\."),
        ({"scale": "1"}, r"plan\.scale: got '1'; expected a number\."),
        ({"scale": True}, r"plan\.scale: got True; expected a number\."),
        ({"is_final": 1}, r"plan\.is_final: got 1; expected true or false\."),
        ({"gap": True}, r"plan\.gap: got True"),
        ({"gap": 1.5}, r"plan\.gap: got 1\.5"),
        ({"gap": [1, 2, 3]}, r"plan\.gap: got 3 values; expected 2\."),
        ({"file": 3}, r"plan\.file: got 3; expected text\."),
        ({"notes": []}, r"plan\.notes: got \[\]; expected an object of named fields\."),
        ({"author": 3}, r"plan\.author: got 3; expected text\."),
        ({"frame": 3}, r"plan\.frame: got 3; expected an object of named fields\."),
        ({"shapes": 3}, r"plan\.shapes: got 3; expected a list\."),
        ({"shapes": [{"kind": "Circle", "radius": 1}, {"kind": "Box", "sides": [1, "2"]}]},
         r"plan\.shapes\[1\]\.sides\[1\]: got '2'; expected a whole number\."),
        ({"frame": {"kind": "Box", "sides": [1, 2], "corner": "rounded"}},
         r"plan\.frame\.corner: got 'rounded'; expected one of round, sharp\. Did you mean 'round'\?"),
    ],
)  # fmt: skip
def test_from_json_names_the_dotted_field_when_a_value_does_not_fit(change: dict, message: str):
    with pytest.raises(InputError, match=message):
        from_json(Drawing, to_json(FULL) | change, "plan")


def test_from_json_names_the_nearest_when_a_field_is_unknown():
    with pytest.raises(InputError, match=r"plan\.titel: got 'titel'; expected one of title, .*Did you mean 'title'\?"):
        from_json(Drawing, {"titel": "x"}, "plan")


@pytest.mark.parametrize("kind", ["Circel", None])
def test_from_json_lists_the_known_when_a_kind_is_unknown(kind: str | None):
    rule = r"plan\.shapes\[0\]\.kind: got .*; expected one of Circle, Box\."
    with pytest.raises(InputError, match=rule):
        from_json(Drawing, {"title": "x", "shapes": [{"kind": kind, "radius": 1}]}, "plan")


def test_from_json_names_the_field_when_one_is_missing():
    with pytest.raises(InputError, match=r"plan\.title"):
        from_json(Drawing, {"kind": "Drawing", "gap": 2}, "plan")


def test_from_json_refuses_an_object_when_it_says_that_it_is_another():
    with pytest.raises(InputError, match=r"plan\.frame"):
        from_json(Drawing, {"title": "x", "frame": {"kind": "Circle", "sides": [1, 2]}}, "plan")
    with pytest.raises(InputError, match=r"plan"):
        from_json(Box, {"kind": "Circle", "sides": [1, 2]}, "plan")


def test_differences_is_empty_when_records_are_equal():
    assert differences(to_json(FULL), to_json(FULL)) == []


def test_differences_names_each_dotted_field_with_both_sides():
    stored = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "gone": 5}
    given = {"a": 1, "b": {"c": [1, 3], "d": "y"}, "new": 6}
    assert [each.text() for each in differences(stored, given)] == [
        "b.c: stored [1, 2], given [1, 3]",
        "b.d: stored 'x', given 'y'",
        "gone: stored 5, given None",
        "new: stored None, given 6",
    ]


def test_differences_shows_both_when_an_object_meets_a_plain_value():
    (difference,) = differences({"a": {"b": 1}}, {"a": None})
    assert difference.text("here", "there") == "a: here {'b': 1}, there None"

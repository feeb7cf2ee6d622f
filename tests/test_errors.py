"""InputError: what it says is also there as attributes, and survives processes and renamed files."""

import pickle

import pytest

import engine
from engine.config.contract import InputSpec
from engine.data.pictures.images import read_pictures
from engine.errors import InputError, problem, renamed, within
from engine.models import Conv, Sequential


def test_an_error_carries_its_parts():
    with pytest.raises(InputError) as caught:
        engine.TrainConfig(batch_size=0)
    error = caught.value
    assert (error.field, error.got, error.remedy) == ("train.batch_size", "0", "Give 64 or so.")
    assert str(error) == f"{error.field}: got {error.got}; expected {error.rule}. {error.remedy}"


def test_an_error_lists_all_problems_found_at_once_the_first_of_each_field():
    with pytest.raises(InputError) as caught:
        engine.TrainConfig(epochs=-1, batch_size=0, label_smoothing=2.0)
    assert {each.field for each in caught.value.problems} == {
        "train.epochs",
        "train.batch_size",
        "train.label_smoothing",
    }
    assert str(caught.value).splitlines() == list(caught.value.problems)


def test_a_colon_in_a_name_does_not_part_a_field():
    error = InputError(problem("C:/data: copy", "nothing", "a file", "Check it."), "  a note")
    assert error.field == "C:/data: copy"
    assert error.problems[1:] == ("  a note",)
    assert InputError("a line of another form").field is None


def test_an_error_from_another_process_is_the_same():
    error = InputError(problem("out", "a", "b", "Do c."), "  more")
    copy = pickle.loads(pickle.dumps(error))  # our own
    assert (str(copy), copy.problems, copy.field, copy.problems[0].remedy) == (
        str(error), error.problems, "out", "Do c.",
    )  # fmt: skip


def test_an_error_about_a_scratch_copy_is_renamed_in_all_its_parts():
    error = renamed(
        InputError(problem("/tmp/x/config.json", "/tmp/x", "a run", "Check /tmp/x."), "/tmp/x"), "/tmp/x", "a.engine"
    )
    assert error.field == "a.engine/config.json"
    assert str(error) == "a.engine/config.json: got a.engine; expected a run. Check a.engine.\na.engine"


def test_an_error_within_something_keeps_its_parts():
    error = within("part 2", InputError(problem("size", 0, "at least 1", "Give 3."), "a line of another form"))
    assert (error.field, error.got, error.rule, error.remedy) == ("part 2: size", "0", "at least 1", "Give 3.")
    assert str(error) == "part 2: size: got 0; expected at least 1. Give 3.\npart 2: a line of another form"


def test_a_layer_that_does_not_fit_is_named_and_the_parts_stay():
    with pytest.raises(InputError, match=r"^layer 2 Conv: got 6×6") as caught:
        Sequential((Conv(4, 3), Conv(4, 9))).rows((8, 8, 1))
    error = caught.value
    assert (error.field, error.got) == ("layer 2 Conv", "6×6")
    assert error.rule
    assert error.remedy


def test_many_bad_pictures_are_one_error_with_the_parts_of_the_first(tmp_path):
    spec = InputSpec((4, 4, 1), "uint8")
    with pytest.raises(InputError, match=r"and 2 more") as caught:
        read_pictures([tmp_path / f"{number}.png" for number in range(12)], spec)
    error = caught.value
    assert error.field == str(tmp_path / "0.png")
    assert error.remedy
    assert len(error.problems) == 11

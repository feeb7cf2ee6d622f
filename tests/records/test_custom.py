"""Code of the user's own in a config: stored by import path where it can be imported again, refused where it cannot."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import optax
import pytest

from engine.errors import InputError
from engine.models import Custom, custom
from engine.records import from_json, to_json
from engine.records.custom import check_trust, find_custom


def double(number: float, factor: float = 2.0) -> float:
    return factor * number


def made_within() -> object:
    def inner() -> None: ...

    return inner


replaced = double


def double_of_before() -> None: ...


double_of_before.__qualname__ = "double"


def test_function_is_stored_by_its_path_and_called_with_its_arguments():
    spec = from_json(Custom, to_json(custom(double, factor=3)))
    assert (spec.path, spec.name) == (f"{__name__}:double", "double")
    assert spec.load() is double
    assert spec.make("train.loss", 5) == 15
    assert custom(optax.lion, b1=0.5).load() is optax.lion


@pytest.mark.parametrize(
    ("target", "got"),
    [
        (lambda x: x, r"\(a lambda\)"),
        (made_within(), r"\(a function within another\)"),
        (partial(double, factor=1), r"\(no name\)"),
        (double_of_before, r"double, which is not what .*test_custom has under this name"),
    ],
)
def test_what_cannot_be_imported_again_is_refused_with_advice(target, got):
    with pytest.raises(InputError, match=rf"custom: got .*{got}; expected a class or function that can be imported\."):
        custom(target)


def test_arguments_that_json_cannot_hold_are_refused():
    with pytest.raises(InputError, match=r"Custom arguments: got .*; expected numbers, texts, lists and dicts"):
        custom(double, factor=object())


def test_call_with_other_arguments_names_the_field():
    with pytest.raises(InputError, match=r"train\.loss: got .*:double: .*'power'.*; expected a function that takes"):
        custom(double, power=1).make("train.loss", 5)


def test_custom_parts_are_found_anywhere_in_a_config_and_need_trust(tiny_config):
    assert list(find_custom(tiny_config)) == []
    check_trust(tiny_config, "runs/a", trust=False)
    own = (("a", (custom(double), 1)), tiny_config)
    assert [spec.name for spec in find_custom(own)] == ["double"]
    check_trust(own, "runs/a", trust=True)
    with pytest.raises(InputError, match=r"runs/a: got code of its author's own \(.*:double\); .* trust=True"):
        check_trust(own, "runs/a", trust=False)


def test_a_script_is_not_run_once_more_for_its_own_functions(tmp_path: Path):
    # One whose work stands at its top level would start its training a second time.
    lines = ("import engine", "print('work')", "def loss(): ...", "print(engine.custom(loss).load() is loss)")
    (tmp_path / "mine.py").write_text("\n".join(lines))
    made = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert made.stdout.splitlines() == ["work", "True"]

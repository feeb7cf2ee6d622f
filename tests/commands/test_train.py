"""`engine train`: recipes and files by name, their options, and what is said of mistakes."""

import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Literal

import pytest

import engine
from engine.__main__ import main
from engine.commands.choices import read_choices
from engine.commands.common_options import COMMON
from engine.commands.experiment import Options, read_options
from engine.recipes.cats_dogs import config as cats_dogs
from engine.recipes.convnet import config as convnet

TINY = """
import engine
from engine.models import Dense, Flatten, Sequential


def config():
    data = engine.DataConfig(split="train[:64]", test_split="test[:64]")
    return engine.RunConfig("tiny_net", Sequential((Flatten(), Dense())), data, engine.TrainConfig(epochs=1))
"""


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch):
    """What a command changes in its own process is put back."""
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    monkeypatch.setattr(sys, "path", [*sys.path])


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(["train", *arguments])
    said = capsys.readouterr()
    assert said.out == ""
    return re.sub(r"[\s│]+", " ", said.err)


def test_file_of_ones_own_is_trained_and_the_next_commands_are_named(in_tmp: Path, own_process, capsys, monkeypatch):
    (in_tmp / "tiny_net.py").write_text(TINY)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/engine", "train", "tiny_net.py", "--overwrite"])
    main(["train", "tiny_net.py", "--train.batch-size", "16"])
    said = capsys.readouterr().out
    assert "saved in runs/tiny_net" in said
    assert re.search(r"engine train tiny_net\.py --resume --train\.epochs 5$", said.strip())
    assert engine.restore("runs/tiny_net").record.config.train.batch_size == 16


def test_help_shows_some_twenty_options_and_help_all_the_rest(
    capsys: pytest.CaptureFixture[str], own_process, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = {}
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit, match="0"):
            main(["train", "convnet", option])
        shown[option] = {*re.findall(r"^\W*(--[a-z][a-z.-]+)", capsys.readouterr().out, re.MULTILINE)}
    common = {f"--{section}.{name.replace('_', '-')}" for section, names in COMMON.items() for name in names}
    own = {f"--{each.name.replace('_', '-')}" for each in fields(Options) if each.name != "config"}
    common = common - {"--finetune.init"} | {"--init"} | own
    assert shown["--help"] == common
    assert 18 <= len(common) <= 30
    assert common < shown["--help-all"]
    assert "--data.standardize" in shown["--help-all"]


def test_options_of_a_recipe_of_its_own_choose_its_config_and_are_in_its_help(capsys: pytest.CaptureFixture[str]):
    options = read_options(cats_dogs, ["--train.epochs", "1", "--stage", "frozen"], "engine")
    assert options.config == read_options(lambda: cats_dogs("frozen"), ["--train.epochs", "1"], "engine").config
    assert not read_options(cats_dogs, ["--stage=features"], "engine").config.augment.is_active
    with pytest.raises(SystemExit, match="0"):
        read_options(cats_dogs, ["--help"], "engine")
    assert "--stage {features,frozen,finetune}" in capsys.readouterr().out


def choose(kind: Literal["a", "b"] = "a", number: int = 3) -> None: ...


def test_only_choices_among_texts_are_options():
    (choice,), rest = read_choices(choose, ["--number", "4", "--kind", "b"])
    assert (choice.value, choice.option, rest) == ("b", "--kind", ["--number", "4"])
    for arguments, expected in ((["--kind", "c"], "got 'c'; expected one of a, b"), (["--kind"], "got no value")):
        with pytest.raises(engine.InputError, match=expected):
            read_choices(choose, arguments)


def test_settings_that_help_does_not_show_are_taken(capsys: pytest.CaptureFixture[str]):
    options = read_options(convnet, ["--data.standardize", "dataset", "--optim.clip-norm", "1"], "engine")
    assert (options.config.data.standardize, options.config.optim.clip_norm) == ("dataset", 1.0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("convent",), r"error: target: got 'convent', neither a recipe .* Did you mean convnet\?"),
        (("nowhere.py",), r"target: got 'nowhere\.py', a file that does .* engine new nowhere\.py --like"),
        (("--train.epochs", "3"), r"got --train\.epochs; expected the name .* first.* train convnet --train\.epochs"),
        (("broken_net.py",), r"'broken_net\.py', which raises NameError: name 'engin' is not defined \(\S+, line 2\)"),
        (("raising_net.py",), r"'raising_net\.py', which raises ZeroDivisionError: division by zero \(\S+, line 3\)"),
        (("json.py",), r"got 'json\.py', the name of .*json.__init__\.py too; .* Rename the file"),
        (("cats_dogs", "--stage", "last"), r"stage: got 'last'; expected one of features, frozen, finetune"),
    ],
    ids=["recipe", "file", "order", "name", "raises", "shadowing", "choice"],
)  # fmt: skip
def test_mistake_is_reported_in_a_line(arguments, expected, in_tmp: Path, capsys, own_process):
    (in_tmp / "broken_net.py").write_text("def config():\n    return engin.RunConfig()\n")
    (in_tmp / "raising_net.py").write_text("def config():\n    pass\nprint(1 / 0)\n")
    (in_tmp / "json.py").write_text(TINY)
    assert re.search(expected, mistake(capsys, *arguments))
    assert not (in_tmp / "runs").exists()


def test_usage_names_the_recipes(capsys: pytest.CaptureFixture[str], own_process):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert "engine train convnet" in shown
    assert "recipes: mlp, convnet" in shown


def test_version_is_that_of_the_package_and_loads_no_jax(capsys: pytest.CaptureFixture[str]):
    main(["--version"])
    assert re.fullmatch(r"engine \d\S*, Python 3\.\S+, jax \S+, flax \S+\n", capsys.readouterr().out)


def test_engine_alone_shows_its_commands(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main([])
    assert "usage: engine" in capsys.readouterr().out

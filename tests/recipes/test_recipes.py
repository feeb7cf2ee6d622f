"""The recipes that ship: each is listed with what is true of it, and becomes a file that trains the same."""

import importlib
import re
from pathlib import Path

import pytest

import engine
from engine.__main__ import main
from engine.commands.experiments import experiment_config
from engine.commands.recipes import count_params, experiment_source
from engine.recipes import RECIPES

ROOT = Path(__file__).parents[2]
# As the docstrings say; of cats_dogs those that are trained, without the statistics that Keras counts too.
KNOWN = {"cats_dogs": "5,832,002"}


def recipe_module(name: str):
    return importlib.import_module(f"engine.recipes.{name}")


def test_every_module_is_listed_and_has_a_file_in_experiments():
    files = {path.stem for path in (ROOT / "engine" / "recipes").glob("[!_]*.py")}
    assert files == set(RECIPES)
    for name in RECIPES:
        assert importlib.import_module(f"experiments.{name}").config is recipe_module(name).config


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_its_name_and_the_parameters_and_accuracy_that_its_docstring_says(name: str):
    module = recipe_module(name)
    document, config = module.__doc__, module.config()
    assert config.name == name
    assert KNOWN.get(name, f"{count_params(name, config):,}") in (KNOWN.get(name), *re.findall(r"[\d,]+\d", document))
    assert f"{count_params(name, config):,}" == KNOWN.get(name, f"{count_params(name, config):,}")
    assert f"engine train {name}" in document


@pytest.mark.parametrize("name", [name for name in RECIPES if re.match(r"\d", RECIPES[name].accuracy)])
def test_accuracy_that_was_measured_here_is_that_of_the_docstring(name: str):
    assert RECIPES[name].accuracy in recipe_module(name).__doc__


@pytest.mark.parametrize("name", RECIPES)
def test_file_made_of_a_recipe_trains_the_same_under_its_own_name(name: str, tmp_path: Path):
    source = (ROOT / "engine" / "recipes" / f"{name}.py").read_text("utf-8")
    made = experiment_source(source, Path("other_net.py"), name)
    names: dict = {"__name__": "other_net"}
    exec(compile(made, "other_net.py", "exec"), names)
    config = names["config"]()
    assert config.name == "other_net"
    assert config.to_json() | {"name": name} == recipe_module(name).config().to_json()


def test_list_shows_parameters_data_and_accuracy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "140")
    main(["recipes"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "│ convnet " in line)
    for cell in ("three convolutions", "104,202", "fashion_mnist_12k", "0.852 ± 0.006"):
        assert cell in line


def test_new_file_is_an_experiment_like_the_recipe(in_tmp: Path, capsys: pytest.CaptureFixture[str]):
    main(["new", "my_flowers.py", "--like", "flowers"])
    assert "engine train my_flowers.py" in capsys.readouterr().out
    config = experiment_config("my_flowers.py")
    assert (config.name, config.data.image_size) == ("my_flowers", "180x180")
    main(["new", "other_one.py"])
    assert experiment_config("other_one.py").model == engine.cnn((32, 64, 128))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("there.py",), r"file: got there\.py, which exists; expected a new file"),
        (("a-b.py",), r"file: got a-b\.py; expected a name of letters, digits and _ that ends in \.py"),
        (("mine.txt",), r"Name it mine\.py"),
        (("json.py",), r"file: got json\.py, the name of a module of Python's too; expected a name that no other"),
        (("numpy.py",), r"file: got numpy\.py, the name of a module"),
        (("no/where.py",), r"file: got no/where\.py; .*mkdir -p no"),
        (("mine.py", "--like", "convent"), r"like: got 'convent'; expected one of mlp, .*Did you mean 'convnet'"),
    ],
    ids=["exists", "dash", "suffix", "stdlib", "installed", "folder", "like"],
)
def test_mistake_of_new_is_reported_and_nothing_written(arguments, expected, in_tmp: Path, capsys):
    Path("there.py").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        main(["new", *arguments])
    assert re.search(expected, capsys.readouterr().err)
    assert [(path.name, path.read_text()) for path in in_tmp.iterdir()] == [("there.py", "mine")]

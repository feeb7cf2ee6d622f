"""`engine recipes` and `engine new`: the recipes that ship with the package, as a list and as files to change."""

import ast
import importlib
import importlib.util
import inspect
import shlex
import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from engine import recipes as shipped
from engine.commands.process import engine_command
from engine.config import RunConfig
from engine.errors import InputError, problem, unknown
from engine.host.console import Table, show
from engine.host.storage import check_file_place, write_atomically
from engine.models.specs import Sequential
from engine.recipes import RECIPES

FOOTNOTE = "accuracy on test images of the data, measured here unless reported elsewhere; parameters that are trained"


def list_recipes() -> None:
    """List the recipes that ship with the package: parameters, data, accuracy."""
    table = Table("recipe", "what it is", heading="recipes", footnote=FOOTNOTE)
    table.add_column("parameters", justify="right")
    table.add_column("data")
    table.add_column("accuracy")
    for name, recipe in RECIPES.items():
        config = importlib.import_module(f"{shipped.__name__}.{name}").config()
        table.add_row(name, recipe.about, f"{count_params(name, config):,}", config.data.name, recipe.accuracy)
    show(table)


def count_params(name: str, config: RunConfig) -> int:
    """Trained numbers of a recipe's model on the data it was made for; of an ensemble, of each member."""
    recipe, model = RECIPES[name], config.model
    assert isinstance(model, Sequential)
    return model.with_outputs(recipe.num_outputs).num_params(recipe.input_shape)


def new(
    file: Annotated[Path, Positional, arg(metavar="FILE")],
    like: str = "convnet",
) -> None:
    """Write an experiment file to change, for engine train: a recipe under a name of your own.

    Args:
        file: File to write, like mine.py; its name becomes the run's.
        like: Recipe to start from; engine recipes lists them.
    """
    if like not in RECIPES:
        raise InputError(unknown("like", like, RECIPES))
    _check_file(file)
    source = inspect.getsource(importlib.import_module(f"{shipped.__name__}.{like}"))
    write_atomically(file, experiment_source(source, file, like))
    words = ("summary", "train") if RECIPES[like].input_shape == shipped.GREY else ("train",)
    show(f"{file}: like {like}", "next:", *(f"  {shlex.join([engine_command(), word, str(file)])}" for word in words))


def _check_file(file: Path) -> None:
    """Raises InputError unless an experiment can be written there, and imported from there."""
    name = file.stem
    if file.suffix != ".py" or not name.isidentifier():
        rule = "a name of letters, digits and _ that ends in .py"
        raise InputError(problem("file", file, rule, "Name it mine.py."))
    if file.exists():
        raise InputError(problem("file", f"{file}, which exists", "a new file", "Choose another name."))
    if name in {*sys.stdlib_module_names, *sys.modules} or importlib.util.find_spec(name) is not None:
        rule = "a name that no other module has"
        raise InputError(problem("file", f"{file}, the name of a module of Python's too", rule, "Name it mine.py."))
    check_file_place(file, "file")


def experiment_source(source: str, file: Path, like: str) -> str:
    """A recipe's source as an experiment of another name, with a docstring that says how to use and change it."""
    tree = ast.parse(source)
    document = tree.body[0]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lines = source.splitlines()
    for name in (call.args[0] for call in calls if ast.unparse(call.func) == "engine.RunConfig"):
        line = lines[name.lineno - 1].encode()  # columns are counted in bytes
        end = name.end_col_offset or 0
        lines[name.lineno - 1] = (line[: name.col_offset] + f'"{file.stem}"'.encode() + line[end:]).decode()
    body = "\n".join(lines[document.end_lineno :])
    command = shlex.quote(str(file))
    return f'''"""{file.stem}: like the recipe {like}.

    engine train {command}                        # trains it, in runs/{file.stem}
    engine train {command} --train.epochs 20      # with another setting, for this run
    engine train {command} --help-all             # all settings: --train.epochs is TrainConfig(epochs=…) below

What to change: the layers (from engine.models), the data (DataConfig, or --data.path), and the rest of the settings.
"""
{body}


if __name__ == "__main__":
    engine.main(config)
'''


COMMANDS = {"recipes": list_recipes, "new": new}

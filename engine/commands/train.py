"""`engine train`: a recipe, or an experiment of the user's own, trained with the options that follow its name."""

import sys
from collections.abc import Sequence

from engine.commands.experiment import run_experiment
from engine.commands.experiments import find_config
from engine.commands.process import command_name, errors_as_lines
from engine.errors import InputError, problem
from engine.host.console import show
from engine.recipes import RECIPES

USAGE = (
    "usage: engine train NAME|FILE [OPTIONS]",
    "",
    "Train a recipe, or an experiment of your own: a file with a function config().",
    "",
    "  engine train convnet --train.epochs 10        a recipe, with other settings",
    "  engine train flowers --data.path ~/flowers    on data of your own",
    "  engine train convnet --help                   its options; --help-all lists all",
    "  engine new mine.py --like convnet             makes a file to change, then: engine train mine.py",
    "",
    f"recipes: {', '.join(RECIPES)}",
    "engine recipes says what each of them is.",
)


def train(arguments: Sequence[str]) -> None:
    """Train a recipe (engine train convnet) or an experiment of your own (engine train mine.py)."""
    with errors_as_lines(is_run=True):
        if not arguments or arguments[0] in ("-h", "--help"):
            show("\n".join(USAGE))
            sys.exit(0 if arguments else 2)
        target = arguments[0]
        if target.startswith("-"):
            rule = "the name of a recipe or the file of an experiment first"
            raise InputError(problem("target", target, rule, f"Write: engine train convnet {target} …"))
        run_experiment(find_config(target), arguments[1:], f"{command_name()} train {target}")


PARSERS = {"train": train}

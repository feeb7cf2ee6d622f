"""`engine train`: a recipe, or an experiment of the user's own, trained with the options that follow its name."""

import sys
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from engine.commands.experiment import Options, run_experiment
from engine.commands.experiments import find_config
from engine.commands.process import command_name, errors_as_lines
from engine.errors import InputError, problem
from engine.host.console import show
from engine.recipes import RECIPES
from engine.recipes.convnet import config as convnet

OPTIONS = Options(convnet())
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
    """Trains what the first argument names, with the options that follow it."""
    with errors_as_lines(is_run=True):
        target = read_target("train", arguments, USAGE)
        run_experiment(find_config(target), arguments[1:], f"{command_name()} train {target}")


def read_target(command: str, arguments: Sequence[str], usage: Sequence[str]) -> str:
    """What comes first, a recipe or a file; shows the usage, and ends, if nothing does or help is requested."""
    if not arguments or arguments[0] in ("-h", "--help"):
        show("\n".join(usage))
        sys.exit(0 if arguments else 2)
    if arguments[0].startswith("-"):
        rule = "the name of a recipe or the file of an experiment first"
        remedy = f"Write: engine {command} convnet {arguments[0]} …"
        raise InputError(problem("target", arguments[0], rule, remedy))
    return arguments[0]


def show_train(
    target: Annotated[str, Positional, arg(metavar="NAME|FILE")], options: Annotated[Options, arg(name="")] = OPTIONS
) -> None:
    """Train a recipe (engine train convnet) or an experiment of your own (engine train mine.py)."""


PARSERS = {"train": train}
COMMANDS = {"train": show_train}  # never called: for the list of commands and the completion of options

"""The `engine` command: data, augment, summary, eval, predict, plan, export, pack and unpack."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from engine.commands.augment import augment
from engine.commands.data import data
from engine.commands.evaluate import evaluate
from engine.commands.export import export
from engine.commands.pack import pack, unpack
from engine.commands.plan import plan
from engine.commands.predict import predict
from engine.commands.process import errors_as_lines
from engine.commands.summary import summary

COMMANDS: dict[str, Callable[..., Any]] = {
    "data": data,
    "augment": augment,
    "summary": summary,
    "eval": evaluate,
    "predict": predict,
    "plan": plan,
    "export": export,
    "pack": pack,
    "unpack": unpack,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the `engine` command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with errors_as_lines():
        if given and given[0] in COMMANDS:
            # By itself and not as one of all: faster, and mistakes are told in the words that were typed.
            tyro.cli(COMMANDS[given[0]], prog=f"engine {given[0]}", args=given[1:])
            return
        about = "Look at data and augmentation before training, and use trained models after it."
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="engine", args=given, description=about)


if __name__ == "__main__":
    main()

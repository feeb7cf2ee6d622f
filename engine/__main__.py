"""The `engine` command: `engine data`, `engine predict` and all others that the modules of engine/commands define."""

import sys
from collections.abc import Sequence

import tyro

from engine.commands.every import find_commands
from engine.commands.nearest import check_command
from engine.commands.process import errors_as_lines, version_text
from engine.host.console import show


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the `engine` command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with errors_as_lines():
        parsers = find_commands("PARSERS")
        known = {**parsers, **find_commands()}  # of a name in both, COMMANDS has what help and completion show
        known = dict(sorted(known.items(), key=lambda each: (each[0] != "train", each[0])))
    if given and given[0] in parsers:
        parsers[given[0]](given[1:])
        return
    with errors_as_lines():
        if given == ["--version"]:
            show(version_text())
            return
        if given:
            check_command(given[0], known)
        if given and given[0] in known:
            # Parsed alone and not as one of all: faster, and mistakes are reported in the words that were typed.
            tyro.cli(known[given[0]], prog=f"engine {given[0]}", args=given[1:])
        else:
            about = "Train image classifiers, look at data before, use the models after. --version: of the package."
            tyro.extras.subcommand_cli_from_dict(known, prog="engine", args=given or ["--help"], description=about)


if __name__ == "__main__":
    main()

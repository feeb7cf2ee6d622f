"""`engine completion`: the tab key completes commands, recipes, options, their values, and files."""

import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tyro

from engine.commands.common_options import COMMON
from engine.commands.every import find_commands
from engine.commands.finders import BatchOptions, RateOptions
from engine.host.console import show
from engine.recipes import RECIPES
from engine.recipes.convnet import config as convnet

OF_RECIPES = ("batch-find", "lr-find", "summary", "train")  # commands whose first word may be the name of a recipe
SCRIPT = """\
# Completion of `engine` for bash, and for zsh after `bashcompinit`. Made by `engine completion`.
_engine() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}"
  local words="" first="" all="" usual=""
  COMPREPLY=()
  case "$command" in
{commands}
  esac
  case "$command $before" in
{values}
  *) case "$COMP_CWORD $current" in
    "1 "*) words="{names}" ;;
    *" -"|*" --") words="${{usual:-$all}}" ;;
    *" -"*) words="$all" ;;
    "2 "*) words="$first" ;;
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  case "$COMP_CWORD $current" in
  "1 "*|*" -"*) ;;
  *) [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current")) ;;
  esac
}}
complete -o filenames -F _engine engine"""


# Of commands that parse their own options: these, with their defaults.
OPTIONS = {"batch-find": BatchOptions(convnet()), "lr-find": RateOptions(convnet())}


class Option(NamedTuple):
    """An option as it is typed, and the words that it can be followed by."""

    flags: tuple[str, ...]
    values: tuple[str, ...]


def completion() -> None:
    """Print the script for bash and zsh by which the tab key completes engine's commands: docs/shell.md."""
    show(write_script(find_commands()))


def write_script(commands: dict[str, Callable[..., Any]]) -> str:
    """The script for these commands."""
    options = {name: _read_options(run) for name, run in commands.items()}
    options |= {name: _read_options(type(given), default=given) for name, given in OPTIONS.items()}
    usual = [f"--{section}.{name.replace('_', '-')}" for section, names in COMMON.items() for name in names]
    lines, values = [], []
    for name, known in sorted(options.items()):
        flags = [flag for option in known for flag in option.flags]
        some = [flag for flag in ("--help", "--run-dir", "--resume", "--overwrite", *usual) if flag in flags]
        parts = {
            "all": flags,
            "first": RECIPES if name in OF_RECIPES else (),
            "usual": some if name in ("train", *OPTIONS) else (),
        }
        settings = " ".join(_set(part, words) for part, words in parts.items() if words)
        lines.append(f"  {name}) {settings} ;;")
        for option in known:
            cases = "|".join(f'"{name} {flag}"' for flag in option.flags)
            values += [f"  {cases}) {_set('words', option.values)} ;;"] if option.values else []
    return SCRIPT.format(commands="\n".join(lines), values="\n".join(values), names=" ".join(sorted(options)))


def _read_options(command: Callable[..., Any], **settings: Any) -> list[Option]:
    """The options of a command, from its parser."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tyro has no other public way to its options
        parser = tyro.extras.get_parser(command, **settings)
    return [
        Option(tuple(action.option_strings), _read_values(action))
        for action in parser._actions
        if action.option_strings
    ]


def _read_values(action: Any) -> tuple[str, ...]:
    """The words among which an option's value is: its choices, or those that its help has in braces."""
    groups = [action.choices or ()]
    groups += [group.split(",") for group in re.findall(r"{([^{}]*)}", str(action.metavar or ""))]
    words = dict.fromkeys(word for group in groups for word in group if re.fullmatch(r"[\w.+-]+", word))
    return tuple(words) if len(words) > 1 else ()  # not None alone, where a file or a number may be meant


def _set(variable: str, words: Iterable[str]) -> str:
    return f'{variable}="{str.join(" ", words)}"'


COMMANDS = {"completion": completion}

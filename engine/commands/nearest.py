"""What a mistyped command or option may have meant."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from engine.commands.common_options import COMMON
from engine.errors import InputError, problem, unknown

# What others call the last part of an option's name.
ELSEWHERE = {
    "lr": "learning-rate", "wd": "weight-decay", "bs": "batch-size", "batch": "batch-size", "ep": "epochs",
    "output": "run-dir", "output-dir": "run-dir", "logdir": "run-dir", "out-dir": "run-dir", "opt": "optim.name",
    "optimizer": "optim.name", "dataset": "data.name", "early-stopping": "patience", "ensemble": "members",
    "num-epochs": "epochs", "scheduler": "schedule", "dtype": "precision",
}  # fmt: skip


def check_command(name: str, known: Iterable[str]) -> None:
    """Raises InputError, with the nearest, for a word that is no command."""
    if not name.startswith("-") and name not in (names := list(known)):
        raise InputError(unknown("command", name, names))


def check_all_known(words: Sequence[str], options: Any, program: str) -> None:
    """Raises InputError, with the nearest option, if the parser had no use for some words.

    options: a dataclass of options, with those of others within.
    """
    if not words:
        return
    name = words[0].split("=")[0]
    if not name.startswith("--"):
        rule = "an option like --train.epochs 10 there"
        raise InputError(problem(program, " ".join(words), rule, "--help lists the options."))
    nearest = find_nearest(name, [*option_names(options)])
    remedy = f"Did you mean {nearest}?" if nearest else "--help lists the usual ones, --help-all all."
    raise InputError(problem(name, "an unknown option", f"one of {program}", remedy))


def option_names(options: Any, prefix: str = "") -> Iterator[str]:
    """`run-dir`, `train.epochs`, …: an option for each field, and for those of the dataclasses in them."""
    kinds = get_type_hints(type(options), include_extras=True)
    for each in fields(options):
        value, name = getattr(options, each.name), prefix + each.name.replace("_", "-")
        own = [about.name for about in get_args(kinds[each.name]) if getattr(about, "prefix_name", None) is False]
        if each.name == "config":
            yield from option_names(value)
        elif is_dataclass(value) and not prefix:
            yield from option_names(value, f"{name}.")
        else:
            yield own[0] if own else name  # some stand without their section: --mesh, --plan, --init


def find_nearest(name: str, known: Sequence[str]) -> str | None:
    """The option that was meant: of the same last part, those that people change most first, or of a similar name."""
    meant = name.removeprefix("--").replace("_", "-")
    meant = ELSEWHERE.get(meant.lower(), meant)
    usual = [f"{section}.{each}".replace("_", "-") for section, names in COMMON.items() for each in names]
    ordered = sorted(known, key=lambda each: each not in usual)
    for part in (meant, meant.split(".")[-1]):
        if found := next((each for each in ordered if part in (each, each.split(".")[-1])), None):
            return f"--{found}"
    by_last = {each.split(".")[-1]: each for each in reversed(ordered)}
    near = difflib.get_close_matches(meant, [*known, *by_last], n=1)
    return f"--{by_last.get(near[0], near[0])}" if near else None

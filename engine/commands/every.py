"""Every command that the modules of this room define."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from engine import commands


def find_commands(table: str = "COMMANDS") -> dict[str, Callable[..., Any]]:
    """Every command by its name: the entries of such a table in each module of engine/commands that has one.

    COMMANDS are functions whose parameters are the options; PARSERS get all arguments, and parse them themselves.
    """
    names = (module.name for module in pkgutil.iter_modules(commands.__path__))
    modules = [importlib.import_module(f"{commands.__name__}.{name}") for name in names]
    return {name: run for module in modules for name, run in getattr(module, table, {}).items()}

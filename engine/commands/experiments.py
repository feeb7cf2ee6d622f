"""Experiments by name or file: found without running anything, and imported only if they are what was meant.

To import a module runs its code and that of the packages around it. A slip of the pen must not do that to a folder of
downloaded data that happens to hold Python files.
"""

import ast
import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

from engine.config import RunConfig
from engine.errors import InputError, problem

MOST_BYTES = 2**20  # of an experiment's source
RULE = "the directory of a run, or an experiment like experiments.convnet with a function config()"
REMEDY = "Check the name and the file."


def experiment_config(target: str) -> RunConfig:
    """The config of an experiment, by module (experiments.convnet) or by file; importing it runs its code.

    Raises InputError, with nothing run, unless there is a source file that defines `config`.
    """
    directory, name = _place(target)
    file = _source(name, directory)
    if file is None or not _defines_config(file):
        got = f"{target!r}, which names no module" if file is None else f"{target!r} ({file}, without config())"
        raise InputError(problem("target", got, RULE, REMEDY))
    try:
        config = _imported(name, directory).config()
    except InputError:
        raise
    except (ImportError, SyntaxError, AttributeError, TypeError, ValueError) as error:
        raise InputError(problem("target", f"{target!r} ({error})", RULE, REMEDY)) from error
    if not isinstance(config, RunConfig):
        rule = "an experiment whose config() returns a RunConfig"
        raise InputError(problem("target", f"{target!r} with {type(config).__name__}", rule, "Correct it."))
    return config


def _place(target: str) -> tuple[Path, str]:
    """(the directory to import from, the module's name) of an experiment as it was typed."""
    path = Path(target)
    if path.suffix != ".py":
        return Path.cwd(), target
    parts = path.with_suffix("").parts
    if path.is_absolute() or not all(part.isidentifier() for part in parts):
        return path.absolute().parent, path.stem
    return Path.cwd(), ".".join(parts)


def _source(name: str, directory: Path) -> Path | None:
    """The source file of a module that would be imported by that name, found without importing what is around it."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    places: list[str] | None = [str(directory), *sys.path]
    spec = None
    for part in parts:
        spec = None if places is None else PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return Path(str(spec.origin)) if spec is not None and isinstance(spec.loader, SourceFileLoader) else None


def _defines_config(file: Path) -> bool:
    """Whether a source file binds the name `config` outside of functions and classes, or may do so by a star."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return False
        body = ast.parse(file.read_bytes()).body
    except SyntaxError as error:
        raise InputError(problem("target", f"{file} ({error})", RULE, REMEDY)) from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(problem("target", f"{file} ({type(error).__name__})", RULE, REMEDY)) from None
    return any(_binds(statement) for statement in body)


def _binds(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return statement.name == "config"
    if isinstance(statement, ast.If | ast.Try | ast.With):
        handlers = [each for handler in getattr(statement, "handlers", ()) for each in handler.body]
        parts = (statement.body, getattr(statement, "orelse", ()), handlers)
        return any(_binds(inner) for part in parts for inner in part)
    if isinstance(statement, ast.ImportFrom | ast.Import):
        return any((alias.asname or alias.name) in ("config", "*") for alias in statement.names)
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return any(isinstance(target, ast.Name) and target.id == "config" for target in targets)


def _imported(name: str, directory: Path) -> ModuleType:
    """The module. Its directory comes first while it is imported, as in `python -m`, and then after all others.

    What we import later is then ours, whatever lies beside an experiment.
    """
    with _first(str(directory)):
        return importlib.import_module(name)


@contextlib.contextmanager
def _first(directory: str) -> Iterator[None]:
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)
        sys.path.append(directory)

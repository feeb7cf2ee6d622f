"""Recipes and experiments by name or file: found without running anything, imported only if they are what was meant.

To import a module runs its code and that of the packages around it. A slip of the pen must not do that to a folder of
downloaded data that happens to hold Python files.
"""

import ast
import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from engine import recipes
from engine.config import RunConfig
from engine.errors import InputError, Problem, error_text, problem
from engine.host.storage import names_like
from engine.recipes import RECIPES

MOST_BYTES = 2**20  # of an experiment's source
RULE = "a recipe (engine recipes lists them), an experiment like mine.py with a function config(), or a run's directory"
REMEDY = "Check the name and the file."


def find_config(target: str) -> Callable[..., RunConfig]:
    """`config` of a recipe, of a module (experiments.convnet) or of a file (mine.py); importing it runs its code.

    Raises InputError, with nothing run, unless there is a source file that defines `config`.
    """
    if target in RECIPES:
        return importlib.import_module(f"{recipes.__name__}.{target}").config
    directory, name = _place(target)
    file = _source(name, directory)
    if file is None or not _defines_config(file):
        raise InputError(_not_found(target) if file is None else _without_config(target, file))
    module = _explained(lambda: _imported(name, directory), target)
    if Path(str(module.__file__)) != file:
        rule = "a name that no other module has"
        raise InputError(problem("target", f"{target!r}, the name of {module.__file__} too", rule, "Rename the file."))
    config = _explained(lambda: module.config, target)
    return lambda **choices: _explained(lambda: _checked(config(**choices), target), target)


def _not_found(target: str) -> Problem:
    """No file, or no recipe or module, of that name."""
    path = Path(target)
    if path.suffix == ".py":
        near = [str(each) for each in names_like(path) if each.suffix == ".py"]
        remedy = f"engine new {target} --like convnet writes one." if not path.exists() else "Rename the file."
        got = f"{target!r}, " + ("whose name Python cannot import" if path.exists() else "a file that does not exist")
    else:
        near, remedy = difflib.get_close_matches(target, RECIPES, n=1), REMEDY
        got = f"{target!r}, neither a recipe nor a module"
    return problem("target", got, RULE, f"Did you mean {near[0]}?" if near else remedy)


def _without_config(target: str, file: Path) -> Problem:
    remedy = "Write one that returns an engine.RunConfig; engine new FILE --like convnet shows how."
    return problem("target", f"{target!r} ({file}, without config())", RULE, remedy)


def experiment_config(target: str) -> RunConfig:
    """The config of a recipe or an experiment, as `find_config` finds it."""
    return find_config(target)()


def _checked(config: Any, target: str) -> RunConfig:
    if not isinstance(config, RunConfig):
        rule = "an experiment whose config() returns a RunConfig"
        raise InputError(problem("target", f"{target!r} with {type(config).__name__}", rule, "Correct it."))
    return config


def _explained(run: Callable[[], Any], target: str) -> Any:
    """What the user's code returns; raises InputError with the line of the file for whatever else it raises."""
    try:
        return run()
    except InputError:
        raise
    except Exception as error:
        got = f"{target!r}, which raises {error_text(error)}"
        raise InputError(problem("target", got, RULE, "Correct it.")) from error


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
        where = f"{file}, which is not Python at line {error.lineno}: {error.msg}"
        remedy = f"Correct line {error.lineno}{f', {text!r}' if (text := (error.text or '').strip()[:80]) else ''}."
        raise InputError(problem("target", where, "a file that Python can read", remedy)) from None
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

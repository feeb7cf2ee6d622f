"""The export formats: where a file or directory of each may be written, and how it is moved there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from engine.errors import InputError, problem, unknown
from engine.host.json_files import read_json
from engine.host.storage import check_place, replaced_whole

ExportFormat = Literal["stablehlo", "onnx", "savedmodel"]
SUFFIXES: dict[ExportFormat, str] = {"stablehlo": ".stablehlo", "onnx": ".onnx", "savedmodel": ".savedmodel"}
DIRECTORY_FORMATS = ("stablehlo", "savedmodel")
DESCRIPTION_FILES = {"stablehlo": "model.json", "savedmodel": "assets.extra/model.json"}
"""The files, below an export's directory, that may contain its description; TensorFlow ignores `assets.extra`."""


def find_format(path: Path | None) -> ExportFormat:
    """The format whose suffix a path has; without one, stablehlo."""
    for found, suffix in SUFFIXES.items():
        if path is not None and path.suffix.lower() == suffix:
            return found
    return "stablehlo"


def check_target(target: Path, format: str, overwrite: bool) -> None:
    """Raises InputError unless a model can be written to `target`. An existing export of the same kind (file or
    directory) is replaced only with `overwrite`, and nothing else ever."""
    if format not in get_args(ExportFormat):
        raise InputError(unknown("format", format, get_args(ExportFormat)))
    is_directory = format in DIRECTORY_FORMATS
    kind = "directory" if is_directory else "file"
    if not target.name:
        raise InputError(problem("out", target, f"a {kind} to make", f"Add a name, like {target / 'model'}."))
    check_place(target, "out", f"a {kind} to make")
    if not target.exists():
        return
    if not overwrite:
        raise InputError(problem("out", f"{target}, which exists", "a new name", "Add --overwrite, or another name."))
    if is_directory != target.is_dir() or (is_directory and description_of(target) is None):
        rule = f"an earlier {kind} of this command to replace"
        raise InputError(problem("out", f"{target}, something else", rule, "Choose another name."))


def description_of(directory: Path) -> dict[str, Any] | None:
    """The description in an exported directory; None if it is not an export."""
    for file in DESCRIPTION_FILES.values():
        with contextlib.suppress(InputError):
            found = read_json(directory / file, "an export's description", "")
            if isinstance(found, dict) and found.get("exported_by") == "engine":
                return found
    return None


@contextlib.contextmanager
def put_in_place(target: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces the target at the end of the block if there was no error.

    Raises InputError if writing fails.
    """
    try:
        with replaced_whole(target) as path:
            yield path
    except OSError as error:
        got = f"{target} ({error.strerror})"
        raise InputError(problem("out", got, "a place that can be written", "Choose another.")) from error

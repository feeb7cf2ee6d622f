"""Where commands write: checked before the work starts, so that none of it is lost."""

from pathlib import Path

from engine.errors import InputError, problem
from engine.host.storage import check_file_place


def check_picture_file(path: Path) -> None:
    """Raises InputError unless a PNG can be put at `path` without losing anything but another grid of ours."""
    from engine.report.grid import is_our_picture

    check_file_place(path, "out", ".png")
    if path.exists() and not is_our_picture(path):
        rule = "a new file, or a picture that this command drew before"
        raise InputError(problem("out", f"{path}, another file", rule, "Choose another name with --out."))


def check_csv_file(path: Path, overwrite: bool) -> None:
    """Raises InputError unless predictions can be put at `path`, over a file that is there only if that is wanted."""
    check_file_place(path, "out", ".csv")
    if path.exists() and not overwrite:
        raise InputError(problem("out", f"{path}, which exists", "a new file", "Add --overwrite, or another name."))


def check_json_file(path: Path, overwrite: bool) -> None:
    """Raises InputError unless a plan can be put at `path`, over a file that is there only if that is wanted."""
    check_file_place(path, "out", ".json")
    if path.exists() and not overwrite:
        raise InputError(problem("out", f"{path}, which exists", "a new file", "Add --overwrite, or another name."))


def check_graph_file(path: Path) -> None:
    """Raises InputError unless an SVG can be put at `path` without losing anything but another graph of ours."""
    from engine.models.graph import HEAD

    check_file_place(path, "graph", ".svg")
    if path.exists() and path.open("rb").read(len(HEAD)) != HEAD.encode():
        rule = "a new file, or a graph that this command drew before"
        raise InputError(problem("graph", f"{path}, another file", rule, "Choose another name."))

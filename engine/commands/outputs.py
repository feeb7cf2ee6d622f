"""Where commands write: checked before the work starts, so that none of it is lost."""

from pathlib import Path

from engine.errors import InputError, problem


def check_picture_file(path: Path) -> None:
    """Raises InputError unless a PNG can be put at `path` without losing anything but another grid of ours."""
    from engine.report.grid import is_our_picture

    _check_place(path, "out", ".png")
    if path.exists() and not is_our_picture(path):
        rule = "a new file, or a picture that this command drew before"
        raise InputError(problem("out", f"{path}, another file", rule, "Choose another name with --out."))


def check_csv_file(path: Path, overwrite: bool) -> None:
    """Raises InputError unless predictions can be put at `path`, over a file that is there only if that is wanted."""
    _check_place(path, "out", ".csv")
    if path.exists() and not overwrite:
        raise InputError(problem("out", f"{path}, which exists", "a new file", "Add --overwrite, or another name."))


def check_json_file(path: Path, overwrite: bool) -> None:
    """Raises InputError unless a plan can be put at `path`, over a file that is there only if that is wanted."""
    _check_place(path, "out", ".json")
    if path.exists() and not overwrite:
        raise InputError(problem("out", f"{path}, which exists", "a new file", "Add --overwrite, or another name."))


def check_graph_file(path: Path) -> None:
    """Raises InputError unless an SVG can be put at `path` without losing anything but another graph of ours."""
    from engine.models.graph import HEAD

    _check_place(path, "graph", ".svg")
    if path.exists() and path.open("rb").read(len(HEAD)) != HEAD.encode():
        rule = "a new file, or a graph that this command drew before"
        raise InputError(problem("graph", f"{path}, another file", rule, "Choose another name."))


def _check_place(path: Path, field: str, suffix: str) -> None:
    if path.is_dir():
        rule = f"the name of a file, like {path / ('out' + suffix)}"
        raise InputError(problem(field, f"{path}, a directory", rule, "Add a name."))
    if path.suffix.lower() != suffix:
        raise InputError(
            problem(field, path, f"a name that ends in {suffix}", f"Name it {path.stem or 'out'}{suffix}.")
        )
    if not path.parent.is_dir():
        rule = "a file in a directory that exists"
        raise InputError(problem(field, path, rule, f"Make it first: mkdir -p {path.parent}"))

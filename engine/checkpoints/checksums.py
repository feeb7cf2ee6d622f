"""Checksums: of the files of a saved step, in the format of `b2sum`, and of its arrays."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import InputError, problem, remedy_for
from engine.host.storage import check_regular, write_atomically

SUMS = "B2SUMS"
RULE, REMEDY = (
    "the files as they were saved",
    "Use a copy of the run, or an earlier step; --resume takes the step before.",
)


def write_sums(directory: Path) -> None:
    """Writes the checksums of the files of all items into a step's directory, for `check_sums` or `b2sum --check`.

    Orbax's metadata next to the items is left out: Orbax changes it after the items are complete.
    """
    files = sorted(path for path in directory.glob("*/**/*") if path.is_file())
    lines = [f"{_digest(path)}  {path.relative_to(directory).as_posix()}\n" for path in files]
    write_atomically(directory / SUMS, "".join(lines))


def check_sums(directory: Path, *below: str) -> None:
    """Raises InputError naming the first file that is missing or differs from what was saved.

    below: files and folders of the directory to check; all of them by default.
    """
    try:
        check_regular(directory / SUMS)
        lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {_inside(name): digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise InputError(problem(str(directory / SUMS), _reason(error), RULE, remedy_for(error, REMEDY))) from None
    for part in below:
        if not any(name == part or name.startswith(f"{part}/") for name in sums):
            raise InputError(problem(str(directory / SUMS), f"nothing about {part}", RULE, REMEDY))
    for name, digest in sums.items():
        if below and not any(name == part or name.startswith(f"{part}/") for part in below):
            continue
        path = directory / name
        try:
            found = _digest(path)
        except OSError as error:
            raise InputError(problem(str(path), _reason(error), RULE, remedy_for(error, REMEDY))) from None
        if found != digest:
            raise InputError(problem(str(path), "content that is not what was saved", RULE, REMEDY))


def array_checksum(tree: Any) -> str:
    """A hash of all arrays of a tree, with their shapes and types, in the order of its leaves."""
    import jax
    import numpy as np

    digest = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)  # bfloat16 has no buffer of its own
    return digest.hexdigest()


def _inside(name: str) -> str:
    """The name itself; raises ValueError if it leads out of the directory."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"a name that leads elsewhere, {name!r}")
    return name


def _digest(path: Path) -> str:
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "nothing: the file is missing"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

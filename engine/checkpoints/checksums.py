"""Checksums: of the files of a saved step, in the format of `b2sum`, and of its arrays."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import InputError, problem, remedy_for
from engine.host.storage import check_regular, write_atomically

SUMS = "B2SUMS"
PIECES = "pieces:"  # begins the checksum of arrays that several processes have hashed in pieces
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


def matches(tree: Any, checksum: object, by_member: bool) -> bool:
    """Whether host arrays have a checksum, of `array_checksum` or `checksum_of_pieces`."""
    import jax
    import numpy as np

    if not str(checksum).startswith(PIECES):
        return array_checksum(tree) == checksum
    pieces = dict[str, str]()
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        pieces |= _hash_pieces(number, leaf.shape, np.asarray(leaf), 0 if by_member else None)
    return checksum_of_pieces(pieces) == checksum


def checksum_of_pieces(pieces: dict[str, str]) -> str:
    """Of the hashes of all pieces: the same whichever process has hashed which."""
    digest = hashlib.blake2b("\n".join(f"{name} {pieces[name]}" for name in sorted(pieces)).encode(), digest_size=16)
    return PIECES + digest.hexdigest()


def hash_own_pieces(tree: Any, by_member: bool) -> dict[str, str]:
    """Hashes of the pieces that are this process's to hash, of placed arrays that several processes share.

    A piece is one array or, by_member, one entry of its leading axis. Each is hashed by one process.
    """
    import jax
    import numpy as np

    pieces, rank, size = dict[str, str](), jax.process_index(), jax.process_count()
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        if leaf.is_fully_replicated:
            parts = [(0, leaf.addressable_data(0))] if number % size == rank else []
        else:
            parts = [(each.index[0].start or 0, each.data) for each in leaf.addressable_shards if each.replica_id == 0]
        for first, part in parts:
            pieces |= _hash_pieces(number, leaf.shape, np.asarray(part), first if by_member else None)
    return pieces


def _hash_pieces(number: int, shape: tuple[int, ...], part: Any, first: int | None) -> dict[str, str]:
    """Hashes of an array of that shape or, of its entries from `first` on, of each."""
    import numpy as np

    if first is None or not shape:  # what all members have may have no axes
        parts = {f"{number}": part}
    else:
        parts = {f"{number}/{first + i}": row for i, row in enumerate(part)}
    return {
        name: hashlib.blake2b(
            np.ascontiguousarray(each).reshape(-1).view(np.uint8).data,
            digest_size=16,
            person=_hash_kind(part.dtype, shape),
        ).hexdigest()
        for name, each in parts.items()
    }


def _hash_kind(dtype: Any, shape: tuple[int, ...]) -> bytes:
    return hashlib.blake2b(f"{dtype} {shape}".encode(), digest_size=16).digest()


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

"""The decoded cache: uint8 images as a memory map, so that a second start reads nothing but the pages it touches.

An entry is a directory `decoded/<name>-<key>/` with images.npy, labels.npy and about.json. It is written beside its
place and renamed into it, so that a reader sees all of it or nothing, and two writers cannot mix.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.dataset import Dataset, new_fingerprint

HASHED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Decoded:
    """A source ready to be decoded: how many examples, of which shape, in batches of (uint8[b h w c], int32[b])."""

    num_examples: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    batches: Iterable[tuple[np.ndarray, np.ndarray]]


def cache_directory(given: Path | None = None) -> Path:
    """Where this machine keeps what can be computed again: `given`, $ENGINE_CACHE_DIR or the user's cache folder."""
    chosen = given or os.environ.get("ENGINE_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "engine"


def content_key(files: Iterable[Path], *settings: object) -> str:
    """A key of what the files hold and of the settings they are read with, but not of where they lie.

    Files up to 64 MiB are hashed whole; of larger ones the size and both ends, to keep a start short.
    """
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=10)
    for path in sorted(files, key=lambda path: path.name):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(min(size, HASHED_BYTES)))
            if size > HASHED_BYTES:
                file.seek(-(2**20), os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()


def cached(entry: Path, name: str, decode: Callable[[], Decoded], tell: Callable[[str], None]) -> Dataset:
    """The dataset of a cache entry, decoded and stored first if it is not there or damaged.

    Where the entry cannot be stored (read-only or full disk) the data is kept in memory and `tell` says so.
    """
    dataset = _read(entry, name)
    if dataset is not None:
        return dataset
    decoded = decode()
    tell(f"decoding {name}: {decoded.num_examples:,} images, once")
    try:
        _store(entry, decoded)
    except OSError as error:
        tell(f"{entry.parent}: cannot cache decoded images ({error.strerror or error}); keeping them in memory")
        return _in_memory(name, decode())
    stored = _read(entry, name)
    return stored if stored is not None else _in_memory(name, decode())


def _read(entry: Path, name: str) -> Dataset | None:
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(entry / "labels.npy", allow_pickle=False)
        return Dataset(images, labels, tuple(about["class_names"]), name, about["fingerprint"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _store(entry: Path, decoded: Decoded) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(entry) as scratch:
        shape = (decoded.num_examples, *decoded.input_shape)
        labels, digest = [], new_fingerprint(decoded.input_shape)
        # A stream and not a memory map: a full disk then raises an error instead of killing the process.
        with (scratch / "images.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for images, batch_labels in decoded.batches:
                file.write(images.tobytes())
                digest.update(images.tobytes())
                labels.append(batch_labels)
            file.flush()
            os.fsync(file.fileno())
        all_labels = np.concatenate(labels) if labels else np.zeros(0, np.int32)
        np.save(scratch / "labels.npy", all_labels, allow_pickle=False)
        digest.update(all_labels.tobytes())
        about = {"class_names": decoded.class_names, "fingerprint": digest.hexdigest()}
        (scratch / "about.json").write_text(json.dumps(about), encoding="utf-8")
        _put_in_place(scratch, entry)


@contextlib.contextmanager
def _scratch(entry: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(scratch: Path, entry: Path) -> None:
    """Renames the finished entry; one that another run finished meanwhile is kept, a damaged one is replaced."""
    try:
        scratch.rename(entry)
    except OSError:
        if _read(entry, "") is None:
            shutil.rmtree(entry, ignore_errors=True)
            scratch.rename(entry)


def _in_memory(name: str, decoded: Decoded) -> Dataset:
    images, labels, digest = [], [], new_fingerprint(decoded.input_shape)
    for batch, batch_labels in decoded.batches:
        images.append(batch)
        labels.append(batch_labels)
        digest.update(batch.tobytes())
    all_labels = np.concatenate(labels)
    digest.update(all_labels.tobytes())
    return Dataset(np.concatenate(images), all_labels, decoded.class_names, name, digest.hexdigest())

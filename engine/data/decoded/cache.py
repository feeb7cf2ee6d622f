"""The cache of decoded images: uint8 in a file, so that a second start reads only the pages it touches.

An entry is a directory `decoded/<name>-<key>/` with images.raw, labels.npy, hashes.npy and about.json. It is written
under a temporary name and renamed, so that a reader sees all of it or nothing, and two writers cannot mix.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from engine.config.decoding import ValueRange
from engine.data.arrays.stored import StoredImages, image_hashes
from engine.data.decoded.dataset import Dataset, combined_fingerprint
from engine.data.pictures.ranges import doubts_of
from engine.errors import InputError, problem
from engine.host.memory import free_host_bytes
from engine.host.storage import scratch_beside

HASHED_BYTES = 64 * 2**20
SYNC_BYTES = 16 * 2**20
ABANDONED_SECONDS = 24 * 3600


class DecodedBatch(NamedTuple):
    """images uint8[b h w c], labels int32[b] and, where a source has computed them, the images' hashes uint64[b]."""

    images: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray | None = None


@dataclass
class Findings:
    """What decoding finds out; complete when the last batch was taken.

    notes: what was guessed or left out, for the user to know on every start.
    levels: what was taken for black and for white in pictures of more than 8 bits that do not say it.
    several_frames: how many pictures hold frames or pages beside the one that is read.
    """

    notes: list[str] = field(default_factory=list)
    levels: ValueRange | None = None
    several_frames: int = 0


@dataclass(frozen=True)
class Decoded:
    """A source ready to be decoded.

    num_examples: how many there are, before any are skipped.
    skipped: "path: reason" of each file left out; complete when the last batch was taken.
    passing: those of them that may be readable the next time, because the system and not their content was at fault.
    value_range: (black, white) of the numbers that the levels are made of; None where they are levels.
    """

    num_examples: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    batches: Iterable[DecodedBatch]
    skipped: list[str] = field(default_factory=list)
    passing: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    value_range: ValueRange | None = None


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
    dataset = _decoded(entry, name, decode, tell)
    for note in dataset.notes:
        tell(f"{name}: {note}")
    return dataset


def _decoded(entry: Path, name: str, decode: Callable[[], Decoded], tell: Callable[[str], None]) -> Dataset:
    dataset = _read(entry, name)
    if dataset is not None and _is_final(entry):
        return dataset

    def watched() -> Decoded:
        return _watched(decode())

    decoded = watched()
    tell(f"decoding {name}: {decoded.num_examples:,} images, once")
    try:
        _store(entry, decoded)
    except OSError as error:
        reason = error.strerror or str(error)
        _check_fits_memory(decoded, entry, reason)
        tell(f"{entry.parent}: cannot cache decoded images ({reason}); keeping them in memory")
        return _in_memory(name, watched())
    stored = _read(entry, name)
    return stored if stored is not None else _in_memory(name, watched())


def _watched(decoded: Decoded) -> Decoded:
    """The same; once all batches were taken, a note says if no level is above 1."""

    def batches() -> Iterator[DecodedBatch]:
        highest = 0
        for batch in decoded.batches:
            if highest <= 1:
                highest = max(highest, int(batch.images.max(initial=0)))
            yield batch
        if doubts := doubts_of((0, highest), np.dtype(np.uint8)):
            decoded.findings.notes.append(doubts)

    return replace(decoded, batches=batches())


def _read(entry: Path, name: str) -> Dataset | None:
    """The dataset of an entry, all but its images compared with what was written; None if it is missing or damaged."""
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        # Mapped first, which fails where a header promises more than there is.
        mapped = (np.load(entry / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in ("labels", "hashes"))
        labels, hashes = (np.array(part) for part in mapped)
        input_shape = tuple(about["input_shape"])
        images = StoredImages(entry / "images.raw", (len(labels), *input_shape), hashes=hashes)
        if about.pop("digest", None) != _digest(about) or images.path.stat().st_size != images.nbytes:
            return None
        if about["fingerprint"] != combined_fingerprint(input_shape, hashes, labels):
            return None
        images.hold()
        class_names, skipped, notes = (tuple(map(str, about[part])) for part in ("class_names", "skipped", "notes"))
        levels = about["levels"] and (float(about["levels"][0]), float(about["levels"][1]))
        if levels and not np.isfinite(levels).all():  # of version 0.1, where one picture had NaN: all came out black
            return None
        black_white = tuple(map(float, about.get("value_range") or ()))
        value_range = (black_white[0], black_white[1]) if black_white else None
        found = (about["fingerprint"], hashes, skipped, notes, levels, value_range)
        return Dataset(images, labels, class_names, name, *found, several_frames=int(about.get("several_frames", 0)))
    except Exception:  # of nearly every kind, where a header or a text is damaged
        return None


def _digest(about: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).hexdigest()


def _is_final(entry: Path) -> bool:
    """Whether no other try may read more; False of an entry that is gone by now."""
    try:
        return json.loads((entry / "about.json").read_text(encoding="utf-8")).get("is_final", True)
    except (OSError, ValueError):  # another process has removed it, or is about to
        return False


def _store(entry: Path, decoded: Decoded) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(entry.parent)
    with scratch_beside(entry) as scratch:
        # A stream and not a memory map: a full disk then raises an error instead of killing the process.
        with (scratch / "images.raw").open("wb", buffering=0) as file, ThreadPoolExecutor(1) as disk:
            written, syncs = 0, []

            def keep(images: np.ndarray) -> None:
                nonlocal written
                before, written = written, written + images.nbytes
                _write(file, images)
                if before // SYNC_BYTES != written // SYNC_BYTES:  # now, while cores decode, and not all at the end
                    syncs.append(disk.submit(os.fsync, file.fileno()))

            labels, hashes, fingerprint = _drain(decoded, keep)
            for sync in syncs:
                sync.result()  # the system reports a failed write only once
            os.fsync(file.fileno())
        np.save(scratch / "labels.npy", labels, allow_pickle=False)
        np.save(scratch / "hashes.npy", hashes, allow_pickle=False)
        about = {
            "input_shape": decoded.input_shape,
            "class_names": decoded.class_names,
            "fingerprint": fingerprint,
            "skipped": decoded.skipped,
            "notes": decoded.findings.notes,
            "levels": decoded.findings.levels,
            "value_range": decoded.value_range,
            "several_frames": decoded.findings.several_frames,
            "is_final": not decoded.passing,
        }
        (scratch / "about.json").write_text(json.dumps({**about, "digest": _digest(about)}), encoding="utf-8")
        _put_in_place(scratch, entry)


def _write(file: IO[bytes], images: np.ndarray) -> None:
    rest = images.reshape(-1)
    while len(rest):  # a write may stop short, at the latest after 2 GiB
        rest = rest[file.write(rest.data) :]


def _drain(decoded: Decoded, keep: Callable[[np.ndarray], object]) -> tuple[np.ndarray, np.ndarray, str]:
    """(labels, hashes, fingerprint) of all batches, whose images are handed to `keep` one by one."""
    labels, hashes = list[np.ndarray](), [np.zeros(0, np.uint64)]
    for batch in decoded.batches:
        images = np.ascontiguousarray(batch.images)
        keep(images)
        hashes.append(image_hashes(images) if batch.hashes is None else batch.hashes)
        labels.append(batch.labels)
    all_labels, all_hashes = np.concatenate(labels or [np.zeros(0, np.int32)]), np.concatenate(hashes)
    return all_labels, all_hashes, combined_fingerprint(decoded.input_shape, all_hashes, all_labels)


def _remove_abandoned(directory: Path) -> None:
    """Removes what killed processes have left: unfinished entries without a write for a day."""
    for scratch in directory.glob(".*-????????"):
        with contextlib.suppress(OSError):  # another process removes it too, or it is not ours
            written = max(path.stat().st_mtime for path in (scratch, *scratch.iterdir()))
            if time.time() - written > ABANDONED_SECONDS:
                shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(scratch: Path, entry: Path) -> None:
    """Renames the finished entry; one that another run finished meanwhile is kept, a damaged one is replaced."""
    try:
        scratch.rename(entry)
    except OSError:
        if _read(entry, "") is None or not _is_final(entry):
            shutil.rmtree(entry, ignore_errors=True)
            scratch.rename(entry)


def _in_memory(name: str, decoded: Decoded) -> Dataset:
    images: list[np.ndarray] = []
    labels, hashes, fingerprint = _drain(decoded, images.append)
    held = np.concatenate(images) if images else np.zeros((0, *decoded.input_shape), np.uint8)
    skipped, notes, levels = tuple(decoded.skipped), tuple(decoded.findings.notes), decoded.findings.levels
    found = (fingerprint, hashes, skipped, notes, levels, decoded.value_range)
    several_frames = decoded.findings.several_frames
    return Dataset(held, labels, decoded.class_names, name, *found, several_frames=several_frames)


def _check_fits_memory(decoded: Decoded, entry: Path, reason: str) -> None:
    needed = decoded.num_examples * int(np.prod(decoded.input_shape))
    if needed > free_host_bytes() // 2:
        rule = f"room for {needed / 2**30:.1f} GiB of decoded images, which do not fit into memory"
        raise InputError(problem("data.cache_dir", f"{entry.parent} ({reason})", rule, "Name a larger disk."))

"""Images in a file of any size, read on demand through the interface of an array.

A disk may return other bytes than were written, and other programs may change the file. So every 256th image that is
read is compared with its hash, and all of them before a run is resumed.
"""

import contextlib
import hashlib
import itertools
import mmap
import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError, problem
from engine.host.cores import num_cores

# Hashing one image in so many takes less than a hundredth of what training on them does, on any device.
CHECKED_EVERY = 256
CHECKED_BYTES = 4 * 2**20  # read at a time where all are compared


@dataclass(frozen=True, eq=False)
class StoredImages:
    """uint8[n h w c] of which only what is accessed is held in memory; can be sent to another process.

    path: raw levels of `stored_shape`, one example after the other.
    indices: which of them, in which order; None for all.
    hashes: uint64[n] of each image in the file, if they are known. What is read and differs raises InputError, once the
      file is removed, so that whoever opens it next decodes the images again.
    """

    path: Path
    stored_shape: tuple[int, ...]
    indices: np.ndarray | None = None
    hashes: np.ndarray | None = None

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.stored_shape[0] if self.indices is None else len(self.indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, h, w, c)."""
        return (len(self), *self.stored_shape[1:])

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.stored_shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all of them take."""
        return int(np.prod(self.shape))

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that hold images."""
        return int(np.prod(self.stored_shape))

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """uint8[…]: one example by number, or many by slice or array of numbers, copied into memory."""
        if isinstance(chosen, (int, np.integer)):
            return self._read(np.array([range(len(self))[chosen]]))[0]
        if isinstance(chosen, slice):
            return self._read(np.arange(*chosen.indices(len(self))))
        return self._read(np.arange(len(self))[chosen])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them: mapped from the file where they are the whole of it, else copied into memory."""
        mapped = np.frombuffer(mmap.mmap(self._descriptor, self.stored_bytes, access=mmap.ACCESS_READ), np.uint8)
        mapped = mapped.reshape(self.stored_shape)
        whole = mapped if self.indices is None else mapped[self.indices]
        self._check_some(np.arange(len(self)) if self.indices is None else self.indices, whole)
        return np.array(whole, dtype) if copy or (dtype is not None and dtype != self.dtype) else whole

    def take(self, indices: np.ndarray) -> "StoredImages":
        """Those at `indices`, in that order; nothing is read."""
        taken = replace(self, indices=indices if self.indices is None else self.indices[indices])
        taken._hold(os.dup(self._descriptor))
        return taken

    def hold(self) -> "StoredImages":
        """Itself, with the file open from now on, so that a cache which is cleared takes nothing away."""
        self._descriptor  # noqa: B018
        return self

    def is_intact(self) -> bool:
        """Whether every image is as its hash says; reads all of them, a few at a time, on all cores."""
        if self.hashes is None:
            return True
        size = max(1, CHECKED_BYTES // max(1, self.nbytes // len(self)))
        starts = range(0, len(self), size)
        with ThreadPoolExecutor(num_cores()) as pool:
            return all(pool.map(lambda start: self._agrees(np.arange(start, min(start + size, len(self)))), starts))

    def remove(self) -> None:
        """Removes the file, so that its images are decoded again; raises InputError where that cannot be done."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            got = f"{self.path.parent}, whose images are not as they were decoded ({error.strerror})"
            remedy = "Remove it, or name another place for the cache with --data.cache-dir."
            raise InputError(
                problem("data.cache_dir", got, "a cache that is intact or can be written", remedy)
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredImages, (self.path, self.stored_shape, self.indices, self.hashes)

    @cached_property
    def _descriptor(self) -> int:
        return self._hold(os.open(self.path, os.O_RDONLY))

    def _hold(self, descriptor: int) -> int:
        self.__dict__["_descriptor"] = descriptor
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _read(self, places: np.ndarray) -> np.ndarray:
        rows = self._rows(places)
        images = self._levels(rows)
        self._check_some(rows, images)
        return images

    def _rows(self, places: np.ndarray) -> np.ndarray:
        return places if self.indices is None else self.indices[places]

    def _agrees(self, places: np.ndarray) -> bool:
        assert self.hashes is not None
        rows = self._rows(places)
        return np.array_equal(image_hashes(self._levels(rows)), self.hashes[rows])

    def _check_some(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Compares every CHECKED_EVERY-th image read since the file was opened, in whatever order they are read."""
        if self.hashes is None:
            return
        first = self.__dict__.get("_until_checked", int.from_bytes(os.urandom(2), "little") % CHECKED_EVERY)
        checked = np.arange(first, len(rows), CHECKED_EVERY)
        self.__dict__["_until_checked"] = first + len(checked) * CHECKED_EVERY - len(rows)
        if np.array_equal(image_hashes(images[checked]), self.hashes[rows[checked]]):
            return
        with contextlib.suppress(InputError):
            self.remove()
        rule = "the decoded images as they were written"
        remedy = "Start again (a run: with --resume), and they are decoded again; check the disk."
        raise InputError(problem(str(self.path.parent), "other bytes", rule, remedy))

    def _levels(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.stored_shape[1:]), np.uint8)
        for start, stop in _runs(rows):
            target = images[start:stop].reshape(-1)
            offset = int(rows[start]) * (images[0].size)
            while len(target):
                # Reads at a place of their own instead of a seek, so that threads share the file; and no memory map,
                # whose pages would count as this process's memory until the system takes them back.
                count = os.preadv(self._descriptor, [target.data], offset)
                if count == 0:
                    raise OSError(f"{self.path} ends before its {self.stored_shape[0]} images")
                target, offset = target[count:], offset + count
        return images


def image_hashes(images: np.ndarray) -> np.ndarray:
    """uint64[n]: a hash of each image's bytes. SHA-256, because most CPUs have instructions for it."""
    rows = (hashlib.sha256(np.ascontiguousarray(image).data).digest()[:8] for image in images)
    return np.frombuffer(b"".join(rows), "<u8").astype(np.uint64)


def _runs(rows: np.ndarray) -> Sequence[tuple[int, int]]:
    """(start, stop) of each stretch of neighbouring rows, which is read in one go."""
    if len(rows) == 0:
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return list(itertools.pairwise(edges))

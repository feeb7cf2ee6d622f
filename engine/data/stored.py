"""Images in a file, read when they are asked for: an array for its readers, however large it is."""

import itertools
import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class StoredImages:
    """uint8[n h w c] of which only what is asked for is held in memory; can be sent to another process.

    path: raw levels of `stored_shape`, one example after the other.
    indices: which of them, in which order; None for all.
    """

    path: Path
    stored_shape: tuple[int, ...]
    indices: np.ndarray | None = None

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

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredImages, (self.path, self.stored_shape, self.indices)

    @cached_property
    def _descriptor(self) -> int:
        return self._hold(os.open(self.path, os.O_RDONLY))

    def _hold(self, descriptor: int) -> int:
        self.__dict__["_descriptor"] = descriptor
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _read(self, places: np.ndarray) -> np.ndarray:
        rows = places if self.indices is None else self.indices[places]
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


def _runs(rows: np.ndarray) -> Sequence[tuple[int, int]]:
    """(start, stop) of each stretch of neighbouring rows, which is read in one go."""
    if len(rows) == 0:
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return list(itertools.pairwise(edges))

"""What lies in an HDF5 file, found by h5py in a process of its own: `python hdf5_child.py FILE START SIZE MOST`.

The HDF5 library is C: a damaged file can make it crash, hang or take all memory. It does so here, where that is seen
and bounded. What comes out, on stdout, is eight bytes of length, a JSON object of that length, {"attributes": {path:
{name: value}}, "arrays": [[path, shape, dtype, offset]]}, and the bytes of those arrays that have no offset, in order.
Those that have one are read from the file by who asks. It loads nothing of the engine.
"""

import json
import math
import os
import struct
import sys
import time
from typing import Any

MOST_DEPTH, MOST_OBJECTS, MOST_AXES = 12, 100_000, 8
MOST_TEXT_BYTES, MOST_TEXTS = 48 * 2**20, 100_000
PROCESSOR_SECONDS, BYTES_A_SECOND = 3, 10 * 2**20
SPARE_BYTES = 512 * 2**20  # beyond what the interpreter takes once all is loaded
NOT_WEIGHTS = ("optimizer_weights", "optimizer")
ATTRIBUTES = ("layer_names", "weight_names", "name", "keras_version", "backend", "model_config")


class Refused(Exception):
    """What is in the file, and what is expected."""


class Part:
    """A part of a file as a file, for one within an archive; h5py reads it through these methods."""

    def __init__(self, path: str, start: int, size: int):
        self.file = open(path, "rb")  # noqa: SIM115  # as long as the process
        self.start, self.size, self.at = start, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to an offset, of the part's beginning, of here or of its end."""
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        """The offset."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer, as far as there are bytes."""
        count = max(0, min(len(buffer), self.size - self.at))
        self.file.seek(self.start + self.at)
        self.at += (read := self.file.readinto(memoryview(buffer)[:count]))
        return read

    def read(self, count: int = -1) -> bytes:
        """Up to so many bytes."""
        found = bytearray(max(0, min(count if count >= 0 else self.size, self.size - self.at)))
        return bytes(found[: self.readinto(found)])

    def flush(self) -> None:
        """Nothing: it is only read."""


class Walk:
    """The objects of a file, each once for every path to it, within limits."""

    def __init__(self, h5py: Any, most_bytes: int):
        self.h5py, self.most_bytes, self.size = h5py, most_bytes, 0
        self.attributes: dict[str, dict[str, Any]] = {}
        self.arrays: list[tuple[str, Any, int | None]] = []
        self.count = self.text_bytes = 0

    def group(self, path: str, group: Any, depth: int = 0) -> None:
        """Takes in a group and all that it holds."""
        self.texts(path, group)
        if depth > MOST_DEPTH:
            raise Refused(f"groups more than {MOST_DEPTH} deep")
        for name in group:
            if not depth and name in NOT_WEIGHTS:
                continue
            inner = f"{path}/{name}" if path else name
            self.count += 1
            if self.count > MOST_OBJECTS:
                raise Refused(f"more than {MOST_OBJECTS:,} objects")
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise Refused(f"a link at {inner[:200]} to another place or file, which Keras never writes")
            found = group[name]
            if isinstance(found, self.h5py.Group):
                self.group(inner, found, depth + 1)
            elif isinstance(found, self.h5py.Dataset):
                self.dataset(inner, found)
            else:
                raise Refused(f"{inner[:200]}, which is neither group nor array")

    def texts(self, path: str, found: Any) -> None:
        """Takes in the attributes that Keras writes: texts and lists of texts."""
        for name in found.attrs:
            if name.rstrip("0123456789") not in ATTRIBUTES:
                continue
            described = found.attrs.get_id(name)
            count = math.prod(described.shape or ())
            if count > MOST_TEXTS or count * described.dtype.itemsize > MOST_TEXT_BYTES:
                raise Refused(f"an attribute {name} of {described.shape}")
            value = found.attrs[name]
            value = value.tolist() if hasattr(value, "tolist") else value
            self.attributes.setdefault(path, {})[name] = self.text(name, value)

    def text(self, name: str, value: Any) -> Any:
        """The value as JSON holds it."""
        if isinstance(value, list):
            return [self.text(name, one) for one in value]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "backslashreplace")
        if not isinstance(value, str):
            raise Refused(f"an attribute {name} that is no text")
        self.text_bytes += len(value)
        if self.text_bytes > MOST_TEXT_BYTES:
            raise Refused(f"texts of more than {MOST_TEXT_BYTES:,} bytes")
        return value

    def dataset(self, path: str, found: Any) -> None:
        """Takes in an array's description."""
        shape, dtype, stored = found.shape, found.dtype, found.id.get_storage_size()
        if shape is None or dtype.kind not in "fiub" or len(shape) > MOST_AXES:
            raise Refused(f"{path[:200]} of shape {shape} and dtype {str(dtype)[:50]}")
        if found.external or found.is_virtual:
            raise Refused(f"{path[:200]}, whose numbers lie in another file")
        size = math.prod(shape) * dtype.itemsize
        self.size += size
        if self.size > self.most_bytes:
            raise Refused(f"arrays of {self.size:,} bytes up to {path[:200]}, more than {self.most_bytes:,}")
        offset = found.id.get_offset()
        if size and not stored:
            raise Refused(f"{path[:200]}, whose numbers were never written")
        if found.chunks is None:
            if stored != size:
                raise Refused(f"{path[:200]} of {shape} with {stored:,} bytes")
        elif math.prod(found.chunks) * dtype.itemsize > 2 * size + 2**16:
            raise Refused(f"{path[:200]} in pieces of {found.chunks}, larger than itself")
        self.arrays.append((path, found, offset))


def limit(most_bytes: int) -> None:
    """Bounds this process's memory and time, where the system can."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        memory = now + SPARE_BYTES + most_bytes
        seconds = math.ceil(time.process_time()) + PROCESSOR_SECONDS + most_bytes // (16 * BYTES_A_SECOND)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # the first by a signal of its own
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass  # Windows and macOS: the one who asks waits no longer than it must


def main(path: str, start: int, size: int, most_bytes: int) -> None:
    """Writes what the file holds, or {"refused": why}, to stdout."""
    os.environ["HDF5_PLUGIN_PRELOAD"] = "::"  # no filter is loaded from anywhere
    import h5py

    limit(most_bytes)
    out, walk = sys.stdout.buffer, Walk(h5py, most_bytes)
    try:
        with h5py.File(Part(path, start, size) if start else path, "r") as file:
            if file.userblock_size:
                raise Refused("bytes before its beginning")
            walk.group("", file)
            described = [[name, found.shape, found.dtype.str, offset] for name, found, offset in walk.arrays]
            answer = json.dumps({"attributes": walk.attributes, "arrays": described}).encode()
            out.write(struct.pack("<Q", len(answer)) + answer)
            for _, found, offset in walk.arrays:
                if offset is None:
                    out.write(found[...].tobytes())
    except Exception as error:  # whatever the library makes of a damaged file
        got = str(error)[:500] or type(error).__name__
        reason = f"an HDF5 file with {got}" if isinstance(error, Refused) else f"a damaged HDF5 file ({got})"
        answer = json.dumps({"refused": reason}).encode()
        out.write(struct.pack("<Q", len(answer)) + answer)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

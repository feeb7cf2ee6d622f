"""Files of weights made by hand, so that tests can say what no library would write."""

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STORAGES = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<f2": "HalfStorage", "<i8": "LongStorage",
            "<u2": "BFloat16Storage", "|b1": "BoolStorage"}  # fmt: skip
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00."


class Part(NamedTuple):
    """A tensor as a pickle describes it: which storage, how many numbers that has, and the view of it."""

    key: str
    dtype: str
    count: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(part: Part) -> bytes:
    """The operations by which torch.save describes a tensor."""
    identity = b"(" + text("storage") + f"ctorch\n{STORAGES[part.dtype]}\n".encode() + text(part.key) + text("cpu")
    storage = identity + number(part.count) + b"tQ"
    rest = number(part.offset) + numbers(part.shape) + numbers(part.strides) + b"\x89" + ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def pickled(parts: Mapping[str, Part | bytes]) -> bytes:
    """The pickle of a state dict; bytes stand for themselves."""
    items = (text(name) + (part if isinstance(part, bytes) else tensor(part)) for name, part in parts.items())
    return b"\x80\x02" + ORDERED_DICT + b"(" + b"".join(items) + b"u."


def parts_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Part]:
    """Tensors as torch describes contiguous arrays."""
    made = {}
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(step // array.itemsize for step in array.strides)
        made[name] = Part(str(key), array.dtype.str, array.size, 0, array.shape, strides)
    return made


def torch_zip(parts: Mapping[str, Part | bytes], storages: Mapping[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), pickled(parts), how)
        for key, content in storages.items():
            archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), content, how)
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n", how)
    return file.getvalue()


def torch_old(parts: Mapping[str, Part | bytes], storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    """storages: (number of values, bytes) by key."""
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    held = b"".join(struct.pack("<q", count) + content for count, content in storages.values())
    return MAGIC + pickled(parts) + keys + held


def torch_of(arrays: Mapping[str, np.ndarray], is_old: bool = False) -> bytes:
    """A state dict of arrays."""
    parts = parts_of(arrays)
    content = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    if is_old:
        counts = {str(key): array.size for key, array in enumerate(arrays.values())}
        return torch_old(parts, {key: (counts[key], held) for key, held in content.items()})
    return torch_zip(parts, content)


def safetensors(header: Any, content: bytes = b"", length: int | None = None) -> bytes:
    """A file of a header, which is JSON unless it is bytes, and what follows it."""
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(written) if length is None else length) + written + content


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path

"""safetensors: eight bytes of length, a JSON header, raw arrays (https://github.com/huggingface/safetensors)."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.host.json_files import parse_json, read_json, shown
from engine.importers.weights_file import Place, WeightsFile, check_places, damaged, make_weights_file, widened

MOST_HEADER_BYTES = 32 * 2**20  # 100,000 arrays; of ResNet50 40 kB
LENGTH_BYTES = 8
METADATA = "__metadata__"
BFLOAT16 = "BF16"
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", BFLOAT16: "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read_safetensors(path: Path) -> WeightsFile:
    """The arrays of a safetensors file, and its metadata; a config.json beside it (as timm has) is part of `about`.

    The arrays must lie one after the other without gap or overlap, up to the end of the file.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start, header = _read_header(path, file, size)
        metadata = header.pop(METADATA, {})
        places = {name: _read_place(path, name, entry) for name, entry in header.items()}
        check_places(path, (place for place, _, _ in places.values()), size - start)
        _check_offsets(path, places, size - start)
        arrays = {}
        for name, (place, begin, _) in places.items():
            file.seek(start + begin)
            flat = np.fromfile(file, place.dtype, place.num_bytes // place.dtype.itemsize)
            array = flat.reshape(place.shape)
            arrays[name] = widened(array) if header[name]["dtype"] == BFLOAT16 else array
    about = {"metadata": metadata, **_read_config(path)}
    notes = ["bfloat16 read as float32"] if any(entry["dtype"] == BFLOAT16 for entry in header.values()) else []
    return make_weights_file(path, "safetensors", arrays, about, notes)


def _read_header(path: Path, file: Any, size: int) -> tuple[int, dict[str, Any]]:
    """(where the arrays begin, the header)."""
    (length,) = struct.unpack("<Q", file.read(LENGTH_BYTES))
    if length > min(MOST_HEADER_BYTES, size - LENGTH_BYTES):
        rule = f"one of at most {MOST_HEADER_BYTES:,} bytes, within the file's {size:,}"
        raise damaged(path, f"a safetensors header of {length:,} bytes", rule)
    try:
        header = parse_json(file.read(length).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"a safetensors header that is not JSON ({str(error)[:100]})") from None
    if not isinstance(header, dict):
        raise damaged(path, f"a safetensors header that is {shown(header)}", "an object of arrays")
    return LENGTH_BYTES + length, header


def _read_place(path: Path, name: str, entry: Any) -> tuple[Place, int, int]:
    """(an array's description, where its bytes begin, where they end), counted from the header's end."""
    given = entry if isinstance(entry, dict) else {}
    shape, offsets, dtype = given.get("shape"), given.get("data_offsets"), given.get("dtype")
    if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPES):
        raise damaged(path, f"{name[:100]} of dtype {shown(dtype)}", f"one of {', '.join(DTYPES)}")
    if dtype is None or shape is None or offsets is None or not _are_whole(shape, offsets) or len(offsets) != 2:
        raise damaged(path, f"{name[:100]} described as {shown(entry)}", "dtype, shape and data_offsets")
    return Place(name, tuple(shape), np.dtype(DTYPES[dtype])), offsets[0], offsets[1]


def _are_whole(*lists: Any) -> bool:
    return all(isinstance(one, list) and all(type(value) is int and value >= 0 for value in one) for one in lists)


def _check_offsets(path: Path, places: dict[str, tuple[Place, int, int]], size: int) -> None:
    """Raises InputError unless the arrays follow each other without gap or overlap, each as long as its shape says."""
    before = 0
    for name, (place, begin, end) in sorted(places.items(), key=lambda item: item[1][1:]):
        got = f"{name[:100]} at bytes {begin:,} to {end:,}"
        if end - begin != place.num_bytes:
            raise damaged(path, got, f"the {place.num_bytes:,} bytes of its shape and dtype")
        if begin != before:
            raise damaged(path, got, f"arrays without gap or overlap, this one from {before:,} on")
        before = end
    if before != size:
        raise damaged(path, f"{size:,} bytes of arrays", f"the {before:,} that the header describes")


def _read_config(path: Path) -> dict[str, Any]:
    """What config.json beside the file says, with what timm puts in it; nothing where there is none."""
    place = path.with_name("config.json")
    if not place.is_file():
        return {}
    config = read_json(place, "the JSON that timm writes beside its weights", "Download it again, or remove it.")
    if not isinstance(config, dict):
        raise InputError(f"{place}: got {shown(config)}; expected an object. Download it again, or remove it.")
    return {"config": config, "pretrained_cfg": config.get("pretrained_cfg", {})}

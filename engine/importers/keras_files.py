"""Weights that Keras saved: `.h5` of Keras 1 to 3, `.weights.h5` and `.keras`, as `layer/variable` → array.

Names go by the layer's own name, whatever group or model it stands in, and today's names of variables: `conv1/kernel`,
`conv1_bn/moving_mean`. The order in a file means nothing: Keras stores what was frozen last.
"""

import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError, problem
from engine.host.archives import check_directory_size
from engine.host.json_files import parse_json
from engine.importers.hdf5 import Hdf5File, read_hdf5
from engine.importers.weights_file import WeightsFile, damaged, make_weights_file
from engine.text import counted

WHOLE = "model_weights"  # the group of weights in the .h5 of a whole model
OF_KERAS_1 = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "conv2d_transpose": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "layer_normalization": ("gamma", "beta"),
    "group_normalization": ("gamma", "beta"),
    "p_re_lu": ("alpha",),
    "normalization": ("mean", "variance", "count"),
}
"""Names of `vars/0`, `vars/1`, … of a `.weights.h5` by the class in its path."""
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # the latter in Keras 2.12 and 2.13
MOST_JSON_BYTES = 16 * 2**20
LOCAL_HEADER_BYTES = 30
READ_AT_ONCE = 2**20


def read_h5(path: Path) -> WeightsFile:
    """The weights of an `.h5` file: of the format of Keras 1 and 2 (and of `model.save` in 3), or a `.weights.h5`."""
    found = read_hdf5(path)
    if any(re.search(r"(^|/)vars/\d+$", name) for name in found.arrays):
        return _of_weights_h5(path, "keras weights.h5", found, {})
    root = WHOLE if WHOLE in found.attributes or any(name.startswith(f"{WHOLE}/") for name in found.arrays) else ""
    layers = _texts(found.attributes.get(root, {}), "layer_names")
    if not layers:
        rule = "an HDF5 file of Keras, with layer_names or vars"
        raise InputError(problem(str(path), "an HDF5 file of another program", rule, "Save the weights by Keras."))
    about = {name: found.attributes.get("", {}).get(name) for name in ("keras_version", "backend")}
    about["keras_version"] = about["keras_version"] or found.attributes.get(root, {}).get("keras_version")
    if (config := found.attributes.get("", {}).get("model_config")) is not None:
        about["model_config"] = _parse(path, "model_config", config)
    arrays, notes = _of_layers(path, found, root, layers)
    kept = {name: value for name, value in about.items() if value is not None}
    return make_weights_file(path, "keras h5", arrays, kept, notes)


def read_keras(path: Path) -> WeightsFile:
    """The weights of a `.keras` file, and its model_config and keras_version in `about`."""
    check_directory_size(path, "a .keras file")
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            texts = {name: _read_json(path, archive, name) for name in ("config.json", "metadata.json")}
            weights = archive.getinfo("model.weights.h5")
            start, size = _find_part(path, weights, file)
            _check_sum(path, weights, file, start)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, struct.error, EOFError) as error:
        raise damaged(path, f"a .keras file that cannot be read ({str(error)[:100]})") from None
    metadata = texts["metadata.json"] if isinstance(texts["metadata.json"], dict) else {}
    about = {"keras_version": metadata.get("keras_version"), "model_config": texts["config.json"]}
    return _of_weights_h5(path, "keras", read_hdf5(path, start, size), about)


def _read_json(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    entry = archive.getinfo(name)
    if entry.file_size > MOST_JSON_BYTES or entry.flag_bits & 1:
        rule = f"at most {MOST_JSON_BYTES:,}, not encrypted"
        raise damaged(path, f"{name} of {entry.file_size:,} bytes", rule)
    with archive.open(entry) as file:
        return _parse(path, name, file.read(MOST_JSON_BYTES).decode("utf-8", "replace"))


def _parse(path: Path, name: str, text: Any) -> Any:
    try:
        return parse_json(text)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"a {name} that is not JSON ({str(error)[:100]})") from None


def _find_part(path: Path, entry: zipfile.ZipInfo, file: Any) -> tuple[int, int]:
    """(where the bytes of an entry begin, how many there are), of one that is stored as it is (APPNOTE 4.3.7)."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        remedy = "Save it again with Keras, whose entries are not compressed."
        raise InputError(problem(str(path), "compressed weights", "entries stored as they are", remedy))
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    start, size = entry.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes, entry.file_size
    if header[:4] != b"PK\3\4" or size != entry.compress_size or start + size > file.seek(0, 2):
        raise damaged(path, "weights that are not all there")
    return start, size


def _check_sum(path: Path, entry: zipfile.ZipInfo, file: Any, start: int) -> None:
    """Raises InputError unless the bytes of an entry are those that were put into the archive."""
    file.seek(start)
    left, found = entry.file_size, 0
    while left and (part := file.read(min(left, READ_AT_ONCE))):
        left, found = left - len(part), zlib.crc32(part, found)
    if left or found != entry.CRC:
        raise damaged(path, f"{entry.filename} whose checksum is not that of its archive")


def _texts(attributes: dict[str, Any], name: str) -> list[str]:
    """A list of texts, which Keras splits into name0, name1, … beyond 64,512 bytes."""
    whole = attributes.get(name)
    parts = [whole] if whole is not None else []
    while whole is None and (part := attributes.get(f"{name}{len(parts)}")) is not None:
        parts.append(part)
    texts = [text for part in parts for text in (part if isinstance(part, list) else [part])]
    return [text for text in texts if isinstance(text, str)]


def _of_layers(path: Path, found: Hdf5File, root: str, layers: list[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """(arrays by layer and variable, notes) of a file with layer_names and weight_names."""
    arrays: dict[str, np.ndarray] = {}
    used = set()
    for layer in (*layers, "top_level_model_weights"):
        group = f"{root}/{layer}" if root else layer
        for stored in _texts(found.attributes.get(group, {}), "weight_names"):
            where = f"{group}/{stored}"
            if where not in found.arrays:
                raise damaged(path, f"no array {where[:200]}, which its weight_names list")
            name = _name_of(layer, stored, _texts(found.attributes.get(group, {}), "weight_names"))
            name = f"{layer}/{name}" if name in arrays else name  # two models in one with layers of the same name
            if name in arrays:
                raise damaged(path, f"two arrays {name[:200]}", "each once")
            arrays[name] = found.arrays[where]
            used.add(where)
    left = sorted(name for name in found.arrays if name not in used)
    shown = ", ".join(left[:3]) + (" …" if left[3:] else "")
    return arrays, [f"not listed by layer_names and left out: {counted(len(left), 'array')} ({shown})"] if left else []


def _name_of(layer: str, stored: str, beside: list[str]) -> str:
    """Today's name of `conv1_1/kernel:0`, `block1_conv1_W_1:0` or `sequential/conv1/kernel` in a layer's group."""
    *scopes, variable = re.sub(r":\d+$", "", stored).split("/")
    if old := re.fullmatch(rf"{re.escape(layer)}_(\w+?)(_\d+)?", variable):
        variable = old[1]  # Keras 1 put the layer's name before that of the variable
    scope = scopes[-1] if scopes else layer
    is_own = (
        re.fullmatch(rf"{re.escape(layer)}(_\d+)?", scope) and len({name.rpartition("/")[0] for name in beside}) == 1
    )
    return f"{layer if is_own else scope}/{OF_KERAS_1.get(variable, variable)}"


def _of_weights_h5(path: Path, kind: Any, found: Hdf5File, about: dict[str, Any]) -> WeightsFile:
    """The weights of Keras 3's own format, whose groups are numbered within a class: `layers/conv2d_3/vars/0`."""
    arrays: dict[str, np.ndarray] = {}
    places = {name: name.rpartition("/vars/")[0] for name in found.arrays if re.search(r"(^|/)vars/\d+$", name)}
    names = {place: found.attributes.get(f"{place}/vars", {}).get("name") for place in places.values() if place}
    is_by_order = not all(names.values())
    counts = {place: sum(other == place for other in places.values()) for place in names}
    for where, place in places.items():
        if not place:
            continue
        within = "/".join(part for part in place.split("/") if part not in CONTAINERS)  # of a model within one
        variable = _variable_of(place.rpartition("/")[2], counts[place], where)
        name = f"{within if is_by_order else names[place]}/{variable}"
        name = f"{within}/{variable}" if name in arrays else name
        arrays[name] = found.arrays[where]
    if is_by_order:
        note = "the file has no names of layers, but their order within each class"
        return make_weights_file(path, kind, arrays, about, [note], is_by_order=True)
    return make_weights_file(path, kind, arrays, about)


def _variable_of(layer: str, count: int, where: str) -> str:
    """The name of a variable by its number, of the class that the path names; the number where that is not known."""
    number = int(where.rpartition("/")[2][:6])
    kind = re.sub(r"_\d+$", "", layer)
    known = VARIABLES.get(kind, ())
    if kind == "batch_normalization":
        known = known[4 - count :] if 2 <= count <= 4 else ()  # of three, without a scale, as in Inception
    return known[number] if number < len(known) and count <= len(known) else str(number)

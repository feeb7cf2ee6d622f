"""State dicts of torch.save (`.pth`, `.pt`, `.bin`), as the zip of today and in the form before 1.6."""

import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.errors import InputError, problem
from engine.host.archives import check_directory_size
from engine.importers.torch_pickle import read_pickle
from engine.importers.torch_values import Damaged, Storage, Tensor
from engine.importers.weights_file import Place, WeightsFile, check_places, damaged, make_weights_file, widened

READ_AT_ONCE = 2**20
OLD_MAGIC, OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
HOLDERS = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "state_dict_ema", "model_ema")
"""Where training checkpoints keep the weights, best first."""
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and torch.compile, before every name
BFLOAT16 = "bfloat16"


def read_torch(path: Path) -> WeightsFile:
    """The tensors of a state dict by name; of a training checkpoint those of its model, as the notes say.

    Nothing of the file is run. Raises InputError where it names anything but tensors and plain containers, and where
    tensors reach beyond the numbers that are there.
    """
    try:
        arrays, notes, about = _read_zip(path) if zipfile.is_zipfile(path) else _read_old(path)
    except (Damaged, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise damaged(path, str(error)[:200] or type(error).__name__, "a state dict of torch.save") from None
    return make_weights_file(path, "torch", arrays, about, notes)


def _read_zip(path: Path) -> tuple[dict[str, np.ndarray], list[str], dict[str, Any]]:
    check_directory_size(path, "a state dict")
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        root = next((name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")), None)
        if root is None:
            raise Damaged("a zip without data.pkl")
        if f"{root}constants.pkl" in entries:
            remedy = "Load it with torch.jit.load where it was made, and save its state_dict() by torch.save."
            raise InputError(problem(str(path), "a TorchScript program", "a state dict", remedy))
        stored = {name for name, entry in entries.items() if _is_plain(entry)}
        with archive.open(_stored(f"{root}data.pkl", stored)) as file:
            tensors, notes = _find_tensors(path, read_pickle(file, path))
            while file.read(READ_AT_ONCE):  # its checksum is compared at its end
                pass
        order = _read_text(archive, f"{root}byteorder", stored) if f"{root}byteorder" in entries else "little"
        size, found = path.stat().st_size, dict[str, np.ndarray]()
        _check_tensors(path, tensors, size)
        for key, storage in _storages_of(tensors).items():
            content = archive.read(_stored(f"{root}data/{key}", stored))
            size -= len(content)  # entries that share their bytes would take more than the file
            if size < 0 or len(content) < storage.num_values * _dtype_of(storage).itemsize:
                raise Damaged(f"numbers {key[:50]!r} that are not all there")
            found[key] = np.frombuffer(content, _dtype_of(storage, order), storage.num_values)
    return {name: _view(tensor, found[tensor.storage.key]) for name, tensor in tensors.items()}, notes, {}


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is stored as it is, neither compressed nor encrypted."""
    is_same = entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
    return is_same and not entry.flag_bits & 1


def _stored(name: str, stored: set[str]) -> str:
    if name not in stored:
        raise Damaged(f"a part {name[-50:]!r} that is missing or compressed")
    return name


def _read_text(archive: zipfile.ZipFile, name: str, stored: set[str]) -> str:
    with archive.open(_stored(name, stored)) as file:
        return file.read(20).decode("ascii", "replace").strip()


def _read_old(path: Path) -> tuple[dict[str, np.ndarray], list[str], dict[str, Any]]:
    """Five pickles (magic number, version, the system, the value, keys of storages), then each storage's numbers."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if read_pickle(file, path) != OLD_MAGIC or read_pickle(file, path) != OLD_PROTOCOL:
            raise Damaged("a pickle that torch.save did not write")
        read_pickle(file, path)
        known: dict[str, Storage] = {}
        tensors, notes = _find_tensors(path, read_pickle(file, path, known))
        keys = read_pickle(file, path)
        _check_tensors(path, tensors, size - file.tell())
        needed, found = _storages_of(tensors), {}
        if not isinstance(keys, list) or not all(isinstance(key, str) and key in known for key in keys):
            raise Damaged("a list of storages that its tensors do not have")
        for key in keys:
            _check_storage(file, known[key], size)
            if key in needed:
                found[key] = np.fromfile(file, _dtype_of(known[key]), known[key].num_values)
            else:
                file.seek(_dtype_of(known[key]).itemsize * known[key].num_values, 1)
        if missing := set(needed) - set(found):
            raise Damaged(f"numbers {min(missing)[:50]!r} that are not there")
    return {name: _view(tensor, found[tensor.storage.key]) for name, tensor in tensors.items()}, notes, {}


def _check_storage(file: IO[bytes], storage: Storage, size: int) -> None:
    """Reads how many numbers follow; raises Damaged unless there are so many, and as many as tensors say."""
    (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
    if count != storage.num_values or count * _dtype_of(storage).itemsize > size - file.tell():
        raise Damaged(f"{count:,} numbers {storage.key[:50]!r}, of which the file has not as many")


def _find_tensors(path: Path, value: Any) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors by name, notes) of a state dict, or of the model in a training checkpoint."""
    notes: list[str] = []
    while isinstance(value, dict) and not any(isinstance(one, Tensor) for one in value.values()):
        holder = next((name for name in HOLDERS if isinstance(value.get(name), dict)), None)
        if holder is None or len(notes) > 3:
            rule, remedy = "a state dict: tensors by name", "Save model.state_dict() by torch.save."
            raise InputError(problem(str(path), f"a pickle of {_described(value)}", rule, remedy))
        others = ", ".join(sorted(repr(str(name)[:30]) for name in value if name != holder)[:5])
        notes.append(f"weights taken from {holder!r} of a training checkpoint" + (f" (not {others})" if others else ""))
        value = value[holder]
    if not isinstance(value, dict):
        rule, remedy = "a state dict: tensors by name", "Save model.state_dict() by torch.save."
        raise InputError(problem(str(path), f"a pickle of {_described(value)}", rule, remedy))
    left = [str(name)[:50] for name, one in value.items() if not isinstance(one, Tensor) or not isinstance(name, str)]
    notes += [f"no tensors and left out: {', '.join(sorted(left)[:5])}" + (" …" if left[5:] else "")] if left else []
    tensors = {name: one for name, one in value.items() if isinstance(one, Tensor) and isinstance(name, str)}
    if any(tensor.storage.dtype == BFLOAT16 for tensor in tensors.values()):
        notes.append("bfloat16 read as float32")
    return _unwrapped(tensors, notes), notes


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(repr(str(name)[:30]) for name in list(value)[:5]) or 'nothing'}"
    return {list: "a list", tuple: "a tuple", Tensor: "one tensor"}.get(type(value), "something else")


def _unwrapped(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            notes.append(f"{wrapper!r} before every name left out")
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


def _storages_of(tensors: dict[str, Tensor]) -> dict[str, Storage]:
    return {tensor.storage.key: tensor.storage for tensor in tensors.values()}


def _dtype_of(storage: Storage, order: str = "little") -> np.dtype:
    dtype = np.dtype("<u2" if storage.dtype == BFLOAT16 else storage.dtype)
    return dtype.newbyteorder(">") if order == "big" else dtype


def _check_tensors(path: Path, tensors: dict[str, Tensor], size: int) -> None:
    """Raises InputError or Damaged unless each lies within its storage and is no larger, and all fit the file twice."""
    check_places(path, (Place(n, t.shape, _dtype_of(t.storage)) for n, t in tensors.items()), 2 * size)
    for name, tensor in tensors.items():
        last = sum((count - 1) * stride for count, stride in zip(tensor.shape, tensor.strides, strict=True))
        numbers = _num_values(tensor)
        if numbers and (tensor.offset + last >= tensor.storage.num_values or numbers > tensor.storage.num_values):
            raise Damaged(
                f"{name[:100]} of {tensor.shape} from {tensor.offset:,} on in {tensor.storage.num_values:,} numbers"
            )


def _num_values(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape, dtype=object))


def _view(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    """The tensor's part of a storage; bounds are checked before."""
    if not _num_values(tensor):
        return np.zeros(tensor.shape, numbers.dtype)
    steps = tuple(stride * numbers.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)
    return widened(view) if tensor.storage.dtype == BFLOAT16 else view

"""Files by their first bytes: which reader takes one, or what it is instead and what to do with it."""

import zipfile
from pathlib import Path
from typing import NamedTuple

from engine.errors import InputError, problem, remedy_for
from engine.host.archives import check_directory_size
from engine.host.storage import check_regular, names_like

HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\3\4"
OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
START_BYTES = 512
READ = "a file of Keras (.h5, .weights.h5, .keras), torch (.pth), safetensors, or a packed run (.engine)"
SAVE_STATE = "Load it where it was made, and save model.state_dict() by torch.save."


class Foreign(NamedTuple):
    """A kind of file that is not read: where in it stands what, what it is, what to do."""

    at: int
    start: bytes
    name: str
    remedy: str


FOREIGN = (
    Foreign(0, b"GGUF", "a GGUF file of quantized weights", "Get the safetensors that it was made from."),
    Foreign(4, b"TFL3", "a TensorFlow Lite model", "Get the Keras model that it was made from."),
    Foreign(0, b"\x93NUMPY", "a NumPy array (.npy)", "Save a model's weights by Keras, torch or safetensors."),
    Foreign(257, b"ustar", "a tar archive", "Unpack it (tar xf); of a torch before 0.1.10: " + SAVE_STATE),
    Foreign(0, b"\x1f\x8b", "a gzip archive", "Unpack it first (gunzip, tar xzf)."),
    Foreign(0, b"BZh", "a bzip2 archive", "Unpack it first (bunzip2)."),
    Foreign(0, b"\xfd7zXZ", "an xz archive", "Unpack it first (unxz)."),
    Foreign(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first."),
    Foreign(0, b"version https://git-lfs", "a Git LFS pointer", "Fetch the file that it stands for: git lfs pull"),
    Foreign(0, b"<!DOCTYPE", "a web page", "Download the file itself; this page may ask to log in."),
    Foreign(0, b"<!doctype", "a web page", "Download the file itself; this page may ask to log in."),
    Foreign(0, b"<html", "a web page", "Download the file itself; this page may ask to log in."),
    Foreign(0, b"<?xml", "an XML text", "Download the file itself; this may be a server's error."),
    Foreign(0, b"{", "a JSON text", "Give the weights; a config alone holds none."),
    Foreign(0, b"\x7fELF", "a program", "Give a file of weights."),
    Foreign(0, b"\x89PNG", "a picture", "Give a file of weights."),
    Foreign(0, b"\xff\xd8\xff", "a picture", "Give a file of weights."),
)  # fmt: skip
FOLDERS = (
    ("saved_model.pb", "a TensorFlow SavedModel", "Load it by keras.models.load_model, and save it as model.keras."),
    ("pytorch_model.bin", "a folder of a model", "Give the file in it: {}/pytorch_model.bin"),
    ("model.safetensors", "a folder of a model", "Give the file in it: {}/model.safetensors"),
    ("checkpoints", "a run", "Give it by --finetune.init instead, or pack it first: engine pack {}"),
)


def recognise(path: Path) -> str:
    """Which reader takes a file: hdf5, keras, torch, safetensors or engine. Else InputError says what it is."""
    start = _read_start(path)
    if start[6:9] == b"\0\0{":  # behind a length of the header, whose own bytes may be any of those below
        return "safetensors"
    if start.startswith(HDF5):
        return "hdf5"
    if start.startswith(ZIP):
        return _of_zip(path)
    if start[:1] == b"\x80" and start[1:2] <= b"\5" and len(start) > 2:
        if start[2:].startswith(OLD_TORCH):
            return "torch"
        raise _refused(path, "a pickle that torch.save did not write, which could run code", SAVE_STATE)
    for kind in FOREIGN:
        if start[kind.at :].startswith(kind.start):
            raise _refused(path, kind.name, kind.remedy)
    if _is_onnx(start):
        raise _refused(path, "an ONNX model", "Get the weights that it was exported from.")
    raise _refused(path, "a file of another kind" if start else "an empty file", "Download it again, or give another.")


def _read_start(path: Path) -> bytes:
    if path.is_dir():
        for inner, name, remedy in FOLDERS:
            if (path / inner).exists():
                raise _refused(path, name, remedy.format(path))
        raise _refused(path, "a folder", "Give a file in it.")
    try:
        check_regular(path)
        with path.open("rb") as file:
            return file.read(START_BYTES)
    except (OSError, ValueError) as error:
        near = names_like(path)
        remedy = f"Did you mean {near[0]}?" if near else "Give the path of a file that exists."
        got = getattr(error, "strerror", None) or str(error)
        raise _refused(path, f"nothing that can be read ({got})", remedy_for(error, remedy)) from None


def _of_zip(path: Path) -> str:
    check_directory_size(path, "a file of weights")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise _refused(path, f"a damaged archive ({error})", "Download it again, and compare its hash.") from None
    if "model.weights.h5" in names:
        return "keras"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if any(name.startswith("checkpoints/") for name in names):
        return "engine"
    inside = [name for name in names if name.endswith((".h5", ".keras", ".pth", ".pt", ".safetensors", ".npy"))]
    if inside and inside[0].endswith(".npy"):
        raise _refused(path, "NumPy arrays (.npz)", "Save the model's weights by Keras, torch or safetensors.")
    remedy = f"Unpack it, and give the file in it: {inside[0]}" if inside else "Give a file of weights."
    raise _refused(path, "a zip archive of other things", remedy)


def _is_onnx(start: bytes) -> bool:
    """Whether the first fields are an ONNX ModelProto's: its version, then the producer's name or the graph."""
    return start[:1] == b"\x08" and start[1:2] < b"\x20" and start[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42")


def _refused(path: Path, got: str, remedy: str) -> InputError:
    return InputError(problem(str(path), got, READ, remedy))

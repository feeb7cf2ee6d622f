"""What a file is, whatever it is called; and what to do with it."""

import os
import zipfile

import numpy as np
import pytest

from engine import InputError
from engine.importers.read import read_weights
from tests.importers.files import written

FOREIGN = {
    b"": "an empty file",
    b"GGUF\3\0\0\0": "a GGUF file",
    b"\x20\0\0\0TFL3": "a TensorFlow Lite model",
    b"\x93NUMPY\1\0": r"a NumPy array \(\.npy\)",
    b"\0" * 257 + b"ustar": r"a tar archive; .* Unpack it \(tar xf\)",
    b"\x1f\x8b\x08": "a gzip archive",
    b"version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer; .* git lfs pull",
    b"<!DOCTYPE html><html>": "a web page; .* this page may ask to log in",
    b'{"model_type": "vit"}': "a JSON text",
    b"\x08\x07\x12\x07pytorch": "an ONNX model",
    b"\x80\x04\x95\x10": r"a pickle that torch\.save did not write, which could run code",
    b"what is this": "a file of another kind",
    b"\xff\xff\xff\xff\0\0\0\0{": "a safetensors header of 4,294,967,295 bytes",
}


@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_files_are_named(tmp_path, content):
    with pytest.raises(InputError, match=FOREIGN[content]) as caught:
        read_weights(written(tmp_path / "weights.h5", content))
    assert "\n" not in str(caught.value)


def test_folders_archives_and_missing_files(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    with pytest.raises(InputError, match=r"a TensorFlow SavedModel; .* save it as model\.keras"):
        read_weights(tmp_path / "saved")
    with pytest.raises(InputError, match=r"a folder; .* Give a file in it"):
        read_weights(tmp_path)
    np.savez(tmp_path / "a.npz", w=np.ones(2))
    with pytest.raises(InputError, match=r"NumPy arrays \(\.npz\)"):
        read_weights(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("inner/weights.h5", b"")
    with pytest.raises(InputError, match=r"Unpack it, and give the file in it: inner/weights\.h5"):
        read_weights(tmp_path / "b.zip")
    with pytest.raises(InputError, match=r"nothing that can be read .* Did you mean .*a\.npz"):
        read_weights(tmp_path / "aa.npz")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        read_weights(tmp_path / "pipe")

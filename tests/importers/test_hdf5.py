"""HDF5 files are read in a process of their own, which no file can make do more than describe itself."""

import signal
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from engine import InputError
from engine.importers import hdf5, hdf5_child
from engine.importers.hdf5 import read_hdf5
from engine.importers.read import read_weights

HUGE = 2**40


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as found:
        yield found


def test_arrays_of_every_layout_and_attributes_are_read(file, tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    file.create_dataset("g/plain", data=values)
    file.create_dataset("g/packed", data=values, chunks=(8, 8), compression="gzip", shuffle=True, fletcher32=True)
    file.create_dataset("big", data=values.astype(">f8"))
    file.create_dataset("one", data=np.int64(3))
    file.create_dataset("none", data=np.zeros((0, 3), np.float32))
    file.attrs["keras_version"] = "2.1"
    file["g"].attrs["weight_names"] = [b"a:0", b"b:0"]
    file["g"].attrs["other"] = [1, 2, 3]
    file.close()
    found = read_hdf5(tmp_path / "a.h5")
    for name in ("g/plain", "g/packed", "big"):
        np.testing.assert_array_equal(found.arrays[name], values)
    assert found.arrays["one"] == 3
    assert found.arrays["none"].shape == (0, 3)
    assert found.attributes == {"": {"keras_version": "2.1"}, "g": {"weight_names": ["a:0", "b:0"]}}


def test_a_part_of_a_file_is_read_where_it_lies(file, tmp_path):
    file.create_dataset("plain", data=np.arange(6.0))
    file.create_dataset("packed", data=np.arange(6.0), chunks=(3,), compression="gzip")
    file.close()
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.bin").write_bytes(b"x" * 1001 + content + b"y" * 77)
    found = read_hdf5(tmp_path / "b.bin", 1001, len(content))
    for name in ("plain", "packed"):
        np.testing.assert_array_equal(found.arrays[name], np.arange(6.0))


def external_link(file):
    file["w"] = h5py.ExternalLink("/etc/passwd", "/w")


def soft_link(file):
    file["w"] = h5py.SoftLink("/elsewhere")


def external_numbers(file):
    file.create_dataset("w", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "w", (4,))
    file.create_virtual_dataset("w", layout)


def never_written(file):
    file.create_dataset("w", (HUGE,), "f4")


def huge_chunks(file):
    file.create_dataset("w", data=np.zeros(10, "f4"), chunks=(2**20,), maxshape=(None,), compression="gzip")


def bomb(file):
    file.create_dataset("w", data=np.zeros(2**24, "f4"), chunks=(2**22,), compression="gzip", compression_opts=9)


def many_paths_to_one(file):
    file.create_dataset("w0", data=np.zeros(10_000, "f4"))
    for number in range(1, 4):
        file[f"w{number}"] = file["w0"]


def group_within_itself(file):
    file.create_group("g")["g"] = file["/"]


def deep(file):
    file.create_group("/".join("g" * 40))


def texts(file):
    file.create_dataset("w", data=["a", "b"])


def compound(file):
    file.create_dataset("w", data=np.zeros(3, [("a", "f4")]))


def type_of_its_own(file):
    file["t"] = np.dtype("f4")


ATTACKS = {
    external_link: "a link at w to another place or file",
    soft_link: "a link at w to another place or file",
    external_numbers: "w, whose numbers lie in another file",
    virtual: "w, whose numbers lie in another file",
    never_written: "arrays of 4,398,046,511,104 bytes up to w",
    huge_chunks: r"w in pieces of \(1048576,\), larger than itself",
    bomb: "arrays of 67,108,864 bytes up to w, more than",
    many_paths_to_one: "expected at most the .* bytes that the file can hold",
    group_within_itself: "groups more than 12 deep",
    deep: "groups more than 12 deep",
    texts: "w of shape",
    compound: "w of shape",
    type_of_its_own: "t, which is neither group nor array",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.__name__ for attack in ATTACKS])
def test_what_keras_never_writes_is_refused(file, tmp_path, attack):
    attack(file)
    file.close()
    with pytest.raises(InputError, match=ATTACKS[attack]) as caught:
        read_hdf5(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_file_cut_short_is_refused(file, tmp_path, share):
    file.create_dataset("w", data=np.arange(10_000.0))
    file.close()
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="a damaged HDF5 file"):
        read_weights(tmp_path / "cut.h5")


def child_that(tmp_path: Path, monkeypatch, code: str) -> None:
    """Puts a program in place of the one that reads."""
    (tmp_path / "child.py").write_text(f"import os, sys, time\n{code}\n")
    monkeypatch.setattr(hdf5_child, "__file__", str(tmp_path / "child.py"))


DEATHS = {
    "os.kill(os.getpid(), 11)": r"an HDF5 file that ends its reader \(signal 11\)",
    "import signal; os.kill(os.getpid(), signal.SIGXCPU)": "an HDF5 file that keeps its reader busy without end",
    "time.sleep(100)": r"an HDF5 file that ends its reader \(signal 9\)",
    "sys.exit(1)": r"no h5py to read it with \(code 1\); expected h5py installed",
    "sys.stdout.buffer.write(b'\\xff' * 8)": "descriptions of 18,446,744,073,709,551,615 bytes",
    "sys.stdout.buffer.write(b'\\x05' + b'\\0' * 7 + b'hello')": "descriptions that cannot be read",
}


@pytest.mark.parametrize("code", DEATHS)
def test_a_reader_that_crashes_hangs_or_lies_is_an_error_and_no_more(file, tmp_path, monkeypatch, code):
    file.close()
    child_that(tmp_path, monkeypatch, code)
    if "sleep" in code:
        monkeypatch.setattr(hdf5, "MOST_SECONDS", 1.0)
    with pytest.raises(InputError, match=DEATHS[code]):
        read_hdf5(tmp_path / "a.h5")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is bounded on Linux alone")
def test_the_reader_cannot_take_more_memory_than_it_may(tmp_path):
    code = f"import runpy; m = runpy.run_path({hdf5_child.__file__!r}); m['limit'](2**20); bytearray(2**31)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="time is bounded on Linux alone")
def test_the_reader_cannot_take_more_of_the_processor_than_it_may():
    code = f"import runpy; limit = runpy.run_path({hdf5_child.__file__!r})['limit']"
    endless = f"{code}; limit.__globals__['PROCESSOR_SECONDS'] = 0; limit(0)\nwhile True: pass"
    assert subprocess.run([sys.executable, "-c", endless], check=False).returncode == -signal.SIGXCPU


def test_descriptions_beyond_the_file_are_refused(file, tmp_path, monkeypatch):
    file.close()
    answer = b'{"attributes": {}, "arrays": [["w", [2], "<f4", 10000000]]}'
    child_that(tmp_path, monkeypatch, f"sys.stdout.buffer.write({struct.pack('<Q', len(answer)) + answer!r})")
    with pytest.raises(InputError, match="w from byte 10,000,000 on; expected a place within the file"):
        read_hdf5(tmp_path / "a.h5")

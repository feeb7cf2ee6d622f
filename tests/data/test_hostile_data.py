"""Data from strangers that is broken, odd or meant to do harm: one line, soon, and little memory."""

import gzip
import os
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import DataConfig, InputError
from engine.data.kinds import open_source
from engine.data.load import load_splits
from engine.data.sources.csv_text import MOST_LINE
from engine.data.sources.tfds import EMBEDDED, data_directory
from engine.data.sources.tfds_prepared import MOST_BYTES
from engine.data.sources.walk import walk
from engine.host.archives import MOST_DIRECTORY_BYTES, check_directory_size
from engine.host.storage import cache_directory, expanded, private_directory

PREPARED = EMBEDDED / "fashion_mnist_12k" / "1.0.0"
RECORD = next(path.name for path in PREPARED.iterdir() if "array_record" in path.name and "train" in path.name)


def answer(path: Path, cache: Path) -> str:
    """The one line that is said of data, which must be refused."""
    config = DataConfig(path=path, cache_dir=cache, validation_fraction=0.0, test_split=None)
    with pytest.raises(InputError) as raised:
        load_splits(config, 0, lambda text: None)
    (line,) = str(raised.value).splitlines()
    assert ": got " in line
    return line


# Prepared tfds data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data to be changed, its test split smaller than the package's own."""
    return Path(shutil.copytree(PREPARED, tmp_path_factory.mktemp("prepared") / "mine" / "1.0.0"))


BROKEN: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "info is no JSON": ("dataset_info.json", lambda text: b"x"),
    "info is a list": ("dataset_info.json", lambda text: b"[]"),
    "info is empty": ("dataset_info.json", lambda text: b"{}"),
    "info is nested": ("dataset_info.json", lambda text: b"[" * 100_000),
    "info is no text": ("dataset_info.json", lambda text: b"\xff" + text),
    "info is long": ("dataset_info.json", lambda text: text + b" " * MOST_BYTES),
    "splits are a number": ("dataset_info.json", lambda text: b'{"splits": 5}'),
    "more examples than there are": ("dataset_info.json", lambda text: text.replace(b'"10000"', b'"10009"')),
    "features are no JSON": ("features.json", lambda text: b"{"),
    "features are no text": ("features.json", lambda text: b"\xff\xfe"),
    "features are empty": ("features.json", lambda text: b"{}"),
    "features are a list": ("features.json", lambda text: b"[1]"),
    "features are nested": ("features.json", lambda text: b'{"a":' * 100_000),
    "features are cut": ("features.json", lambda text: text[: len(text) // 2]),
    "record is damaged": (RECORD, lambda data: data[:5000] + bytes(100) + data[5100:]),
    "record is cut": (RECORD, lambda data: data[:-70_000]),
    "record is empty": (RECORD, lambda data: b""),
    "record is something else": (RECORD, lambda data: b"hello" * 100),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_prepared_data_is_refused_in_one_line(name, prepared, tmp_path):
    file, change = BROKEN[name]
    before = (prepared / file).read_bytes()
    (prepared / file).write_bytes(change(before))
    try:
        line = answer(prepared.parent, tmp_path)
    finally:
        (prepared / file).write_bytes(before)
    assert str(prepared) in line


def test_class_folder_with_a_file_named_like_those_of_tfds_is_a_class_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (4, 4), 40 * i + ord(name) - 90).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data" / "a" / "dataset_info.json").write_text("mine")
    config = DataConfig(path=tmp_path / "data", cache_dir=tmp_path / "cache", test_split=None)
    assert load_splits(config, 0, lambda text: None).train.class_names == ("a", "b")


# Arrays


def archive(path: Path, header: bytes, data: bytes = bytes(4096)) -> Path:
    array = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", array)
        file.writestr("labels.npy", array)
    return path


HEADERS = {
    "open bracket": b"{'descr': (",
    "indented": b"  if x:\n y\n  z",
    "minus signs": b"{'descr': " + b"-" * 9000 + b"1}",
    "brackets": b"[" * 9000,
    "a tuple of one": b"{'descr': ('a',), 'fortran_order': False, 'shape': (4,), }\n",
    "negative": b"{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -1024), }\n",
    "no numbers": b"{'descr': '|u1', 'fortran_order': False, 'shape': ('4',), }\n",
    "records": b"{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (4096,), }\n",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (512,), }\n",
    "dates": b"{'descr': '<M8[D]', 'fortran_order': False, 'shape': (512,), }\n",
    "huge": b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 4000 + b",), }\n",
    "digits": b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 9000 + b",), }\n",
    "many axes": b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"1, " * 100 + b"4096), }\n",
    "no text": b"\xff\xfe{}",
    "nothing": b"",
}


@pytest.mark.parametrize("name", HEADERS)
def test_archive_with_an_odd_header_is_refused_in_one_line(name, tmp_path):
    answer(archive(tmp_path / "a.npz", HEADERS[name]), tmp_path)


@pytest.mark.parametrize("name", HEADERS)
def test_array_with_an_odd_header_is_refused_in_one_line(name, tmp_path):
    (tmp_path / "set").mkdir()
    array = b"\x93NUMPY\1\0" + struct.pack("<H", len(HEADERS[name])) + HEADERS[name] + bytes(4096)
    for part in ("images", "labels"):
        (tmp_path / "set" / f"{part}.npy").write_bytes(array)
    answer(tmp_path / "set", tmp_path)


@pytest.mark.parametrize("order", "<>")
def test_text_with_letters_that_do_not_exist_is_refused(order, tmp_path):
    labels = np.array(["a", "b"] * 3, f"{order}U2")
    labels.view(f"{order}u4")[3] = 0x110000
    np.savez(tmp_path / "a.npz", images=np.zeros((6, 4, 4), np.uint8), labels=labels)
    assert "letters that do not exist" in answer(tmp_path / "a.npz", tmp_path)


def test_archive_in_place_of_an_array_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    for part in ("images", "labels"):
        shutil.move(archive(tmp_path / "a.npz", HEADERS["dates"]), tmp_path / "set" / f"{part}.npy")
    assert "no NumPy file" in answer(tmp_path / "set", tmp_path)


def test_archive_with_a_list_of_millions_of_files_is_refused_before_it_is_read(tmp_path):
    name = b"x" * 4 + b".npy"
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", len(name)) + bytes(16) + name
    count = MOST_DIRECTORY_BYTES // len(entry) + 1
    listed = entry * count
    short = b"PK\5\6" + struct.pack("<4HIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    zip64 = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(listed), 0)
    zip64 += b"PK\6\7" + struct.pack("<IQI", 0, len(listed), 1)
    for end in (zip64 + short, b"PK\5\6" + struct.pack("<4HIIH", 0, 0, 0xFFFF, 0xFFFF, len(listed), 0, 0)):
        (tmp_path / "a.npz").write_bytes(listed + end)
        assert f"got a list of {len(listed):,} bytes" in answer(tmp_path / "a.npz", tmp_path)


def test_list_of_an_archive_is_measured_as_zipfile_reads_it(tmp_path):
    for comment in (b"", b"hello", b"PK\5\6", b"x" * 65_000):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("a" * 100, b"")
            file.comment = comment
        check_directory_size(tmp_path / "a.zip", "an archive")
    (tmp_path / "a.zip").write_bytes(b"")
    check_directory_size(tmp_path / "a.zip", "an archive")


IDX = {
    "one byte": b"\0",
    "no magic": b"\1\2\3\4" * 10,
    "other type": struct.pack(">HBB3I", 0, 10, 3, 1, 1, 1),
    "too many axes": struct.pack(">HBB", 0, 8, 200) + bytes(800),
    "no axes": struct.pack(">HBB", 0, 8, 0),
    "too large": struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3),
    "one short": struct.pack(">HBB3I", 0, 8, 3, 2, 2, 2) + bytes(7),
    "one more": struct.pack(">HBB3I", 0, 8, 3, 2, 2, 2) + bytes(9),
}


@pytest.mark.parametrize("name", IDX)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_odd_idx_files_are_refused_in_one_line(name, suffix, tmp_path):
    content = gzip.compress(IDX[name]) if suffix else IDX[name]
    for part in ("images-idx3", "labels-idx1"):
        (tmp_path / f"train-{part}-ubyte{suffix}").write_bytes(content)
    answer(tmp_path / f"train-images-idx3-ubyte{suffix}", tmp_path)


def test_packed_idx_that_is_cut_or_no_gzip_is_refused(tmp_path):
    whole = gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2, 2, 2) + bytes(8))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"")
    for content in (whole[:-9], whole[:15], b"no gzip at all", b"", whole[:-8] + bytes(8)):
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
        answer(tmp_path / "train-images-idx3-ubyte.gz", tmp_path)


# Folders


def test_thousand_folders_in_each_other_are_walked(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1000):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(os.open("a.png", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)
    assert [file.name for file in walk(tmp_path).files] == ["d/" * 1000 + "a.png"]
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_folders_linked_to_each_other_a_thousandfold_are_read_once_each(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "a.png").touch()
    for i in range(30):
        for k in range(30):
            (tmp_path / f"{i}" / f"to {k}").symlink_to(tmp_path / f"{k}")
    found = walk(tmp_path)
    assert len(found.files) == 30
    assert sum(found.passed.counts.values()) == 900


def test_name_longer_than_the_system_takes_is_refused_in_one_line(tmp_path):
    answer(tmp_path / ("d" * 300), tmp_path)
    answer(Path("/".join(["d" * 200] * 30)), tmp_path)


@pytest.mark.parametrize(
    "name", ["t.csv", "t.npz", "t.npy", "train-images-idx3-ubyte", "folder/train.csv", "folder/a.npz"]
)
def test_pipes_and_devices_are_refused_and_not_waited_for(name, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / name)
    answer(tmp_path / (name if "/" not in name else "folder"), tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    answer(tmp_path / (name if "/" not in name else "folder"), tmp_path)


def test_link_to_a_folder_above_is_a_loop(tmp_path):
    """And not the way to all files of the machine."""
    for name in ("ds/cat/a.png", "ds/dog/a.png", "beside/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name, target in (("root", "/"), ("above", tmp_path), ("itself", tmp_path / "ds")):
        (tmp_path / "ds" / "cat" / name).symlink_to(target)
    found = walk(tmp_path / "ds")
    assert [file.name for file in found.files] == ["cat/a.png", "dog/a.png"]
    assert found.passed.counts == {"linked folders that are read elsewhere": 3}


@pytest.mark.parametrize(
    ("name", "mode"), [("", 0), ("", 0o444), ("", 0o311), ("cat", 0), ("cat", 0o444), ("a.npz", 0)]
)
def test_what_may_not_be_read_is_refused_in_one_line(name, mode, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    root = tmp_path / "pets"
    for pet in ("cat", "dog"):
        (root / pet).mkdir(parents=True)
        Image.new("L", (2, 2)).save(root / pet / "1.png")
    np.savez(root / "a.npz", x_train=np.zeros((2, 2, 2), np.uint8), y_train=np.arange(2))
    os.chmod(root / name, mode)
    try:
        config = DataConfig(path=root if "." not in name else root / name, cache_dir=tmp_path, test_split=None)
        with pytest.raises(InputError, match="Permission denied"):
            load_splits(config, 0, lambda text: None)
    finally:
        os.chmod(root / name, 0o755)


def test_loops_of_links_among_classes_are_no_folders(tmp_path):
    for pet in ("cat", "dog"):
        (tmp_path / "pets" / pet).mkdir(parents=True)
        Image.new("L", (2, 2)).save(tmp_path / "pets" / pet / "1.png")
    (tmp_path / "pets" / "loop").symlink_to("loop")
    config = DataConfig(path=tmp_path / "pets", cache_dir=tmp_path, validation_fraction=0.0, test_split=None)
    assert load_splits(config, 0, lambda text: None).train.class_names == ("cat", "dog")


# Users without a home


def homeless(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    for name in ("HOME", "ENGINE_CACHE_DIR", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(temporary))


def test_user_without_a_home_has_a_cache_of_their_own(monkeypatch, tmp_path):
    homeless(monkeypatch, tmp_path)
    directory = cache_directory()
    assert directory == tmp_path / f"engine-{os.geteuid()}"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert cache_directory() == directory
    assert data_directory(DataConfig()) == Path("~/tensorflow_datasets")
    assert len(open_source(DataConfig(), lambda text: None).load("train[:9]", "data.split")) == 9


def test_cache_that_others_can_change_is_refused(monkeypatch, tmp_path):
    homeless(monkeypatch, tmp_path)
    (tmp_path / f"engine-{os.geteuid()}").mkdir()
    (tmp_path / f"engine-{os.geteuid()}").chmod(0o777)
    with pytest.raises(
        InputError, match=r"ENGINE_CACHE_DIR: got no home directory, and .* \(which others can change\)"
    ):
        cache_directory()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="ENGINE_CACHE_DIR"):
        private_directory(tmp_path / "link")


def test_home_of_nobody_is_a_path_that_does_not_exist(tmp_path):
    assert expanded("~nobody-of-this-name/data") == Path("~nobody-of-this-name/data")
    assert "expected a folder or file that exists" in answer(Path("~nobody-of-this-name/data"), tmp_path)


# Tables

ROW = b"1," + b",".join([b"7"] * 16) + b"\n"
HEAD = b"label," + b",".join(b"p%d" % i for i in range(16)) + b"\n"
TABLES = {
    "NUL in a path": b"path,label\na\0b.png,1\nc.png,2\n",
    "NUL in a pixel": HEAD + ROW + ROW.replace(b"7", b"\0", 1),
    "long cell": HEAD + ROW + b'"' + b"9" * 200_000 + b'",' + ROW[2:],
    "long label": HEAD + ROW + b'1,"' + b"9" * 200_000 + b'"' + ROW[3:],
    "quote without end": b'path,label\n"' + b"a" * 300_000,
    "number of 5,000 digits": HEAD + ROW + ROW.replace(b"7", b"9" * 5000, 1),
    "zeros": HEAD + ROW + ROW.replace(b"7", b"0" * 5000 + b"300", 1),
    "long line": HEAD + ROW + b"7" * (MOST_LINE + 10),
    "long first line": b"7" * (MOST_LINE + 10),
    "nothing but commas": b"," * 200_000,
}


@pytest.mark.parametrize("name", TABLES)
def test_odd_tables_are_refused_in_one_line(name, tmp_path):
    (tmp_path / "t.csv").write_bytes(TABLES[name])
    config = DataConfig(path=tmp_path / "t.csv", cache_dir=tmp_path, validation_fraction=0.0, test_split=None)
    with pytest.raises(InputError, match=": got ") as raised:
        load_splits(config, 0, lambda text: None)
    assert len(str(raised.value)) < 2000

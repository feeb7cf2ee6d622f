"""Arrays in .npz, .npy and IDX files become datasets, or are refused with a reason; nothing is ever unpickled."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engine
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset
from engine.data.load import load_splits
from engine.data.pictures import ranges as ranges_module
from engine.data.pictures.images import fit_picture
from engine.data.sources.array_files import ArraySource, open_arrays
from engine.errors import InputError
from tests.conftest import TINY

DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (6, 4, 5), dtype=np.uint8)
COLOR = DRAW.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 2, 0, 1])


def opened(path: Path, messages: list[str] | None = None, **config: Any) -> ArraySource:
    return open_arrays(DataConfig(path=path, **config), (messages if messages is not None else []).append)


def train(path: Path, messages: list[str] | None = None, **config: Any) -> Dataset:
    return opened(path, messages, **config).load("train", "data.split")


def npz(path: Path, images: Any = GREY, labels: Any = LABELS, **more: Any) -> Path:
    np.savez(path, images=images, labels=labels, **more)
    return path


# Names and splits


@pytest.mark.parametrize(
    "pair",
    ["x_train y_train", "X_train Y_train", "train_images train_labels", "images labels", "x y", "X y", "data labels"],
)
@pytest.mark.parametrize("kind", ["npz", "packed", "npy"])
def test_arrays_are_found_by_their_names(tmp_path: Path, pair: str, kind: str):
    images, labels = pair.split()
    if kind == "npy":
        np.save(tmp_path / f"{images}.npy", GREY)
        np.save(tmp_path / f"{labels}.npy", LABELS)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(tmp_path / "a.npz", **{images: GREY, labels: LABELS})
    path = tmp_path if kind == "npy" else tmp_path / "a.npz"
    assert opened(path).split_names == ("train",)
    dataset = train(path, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(dataset.images[:], GREY[..., None])
    assert (dataset.labels.tolist(), dataset.labels.dtype) == (LABELS.tolist(), np.int32)
    assert (dataset.class_names, dataset.name) == (("0", "1", "2"), path.name)


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
@pytest.mark.parametrize("pattern", ["x_{} y_{}", "{}_images {}_labels"])
def test_splits_are_found_by_their_names(tmp_path: Path, validation: str, pattern: str):
    named: dict[str, Any] = {}
    for count, split in enumerate(("test", validation, "train"), 1):
        images, labels = pattern.replace("{}", split).split()
        named |= {images: COLOR[:count], labels: np.zeros((count, 1), int)}  # labels (n, 1) as of medmnist
    np.savez(tmp_path / "organs.npz", **named)
    source = opened(tmp_path / "organs.npz")
    assert source.split_names == ("train", "validation", "test")
    assert [len(source.load(split, "data.split")) for split in source.split_names] == [3, 2, 1]
    assert source.load("test", "data.test_split").name == "organs.npz test"
    with pytest.raises(InputError, match=r"data\.test_split: got 'tset'; expected one of train, .*Did you mean 'test'"):
        source.load("tset", "data.test_split")


def test_images_without_labels_are_no_split(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=LABELS, x_test=GREY)
    assert opened(tmp_path / "a.npz").split_names == ("train",)


def test_test_labels_that_train_lacks_are_refused(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=LABELS, x_test=GREY, y_test=LABELS + 1)
    source = opened(tmp_path / "a.npz")
    assert source.load("train", "data.split").num_classes == 3
    with pytest.raises(InputError, match=r"a\.npz test: got classes that a\.npz train lacks \(3\); expected those of"):
        load_splits(DataConfig(path=tmp_path / "a.npz"), 0, lambda text: None)


def test_single_archive_of_a_folder_is_taken_and_two_are_refused(tmp_path: Path):
    (tmp_path / "data").mkdir()
    npz(tmp_path / "data" / "a.npz")
    assert len(train(tmp_path / "data")) == 6
    npz(tmp_path / "data" / "b.npz")
    with pytest.raises(InputError, match=r"data\.path: got .*data with a\.npz, b\.npz; expected one \.npz file\. Give"):
        train(tmp_path / "data")


def test_other_names_are_refused_with_those_there_are(tmp_path: Path):
    np.savez(tmp_path / "a.npz", pictures=GREY, y_train=LABELS)
    with pytest.raises(InputError, match=r"a\.npz with pictures, y_train; expected arrays named x_train .*np\.savez"):
        opened(tmp_path / "a.npz")


def test_single_array_is_refused_with_where_labels_go(tmp_path: Path):
    np.save(tmp_path / "a.npy", GREY)
    with pytest.raises(InputError, match=r"data\.path: got .*a\.npy, a single array; expected .*y_train=labels"):
        opened(tmp_path / "a.npy")


# Images


def test_channels_first_is_turned_and_told(tmp_path: Path):
    messages: list[str] = []
    dataset = train(npz(tmp_path / "a.npz", np.moveaxis(COLOR, -1, 1)), messages)
    np.testing.assert_array_equal(dataset.images[:], COLOR)
    assert messages[0] == "a.npz images: 6×3×4×5 is read as channels first"


@pytest.mark.parametrize("shape", [(6, 3, 4, 3), (6, 1, 5, 3), (6, 3, 3, 1)])
def test_channels_last_is_kept_where_both_are_possible(tmp_path: Path, shape: tuple[int, ...]):
    messages: list[str] = []
    assert train(npz(tmp_path / "a.npz", np.zeros(shape, np.uint8)), messages).images.shape == shape
    assert len(messages) == 1


@pytest.mark.parametrize("dtype", ["int64", ">i4", "uint16", "float32", "float64", "int16"])
def test_other_types_of_whole_levels_are_converted(tmp_path: Path, dtype: str):
    dataset = train(npz(tmp_path / "a.npz", COLOR.astype(dtype)))
    np.testing.assert_array_equal(dataset.images[:], COLOR)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY * np.nan, r"a\.npz images of example 0: got NaN or infinity; expected finite values"),
        (GREY.astype(int) - 300, r"a\.npz images: got int64 images from -3\d\d to -\d+; expected 0 to 1, .*whole"),
        (GREY * 3.3, r"got float64 images from 0 to \d+.*; expected 0 to 1, -1 to 1, 0 to 255, or whole numbers"),
        (GREY.astype("<U3"), r"got <U3 images; expected numbers"),
        (GREY[0], r"got images of 4×5; expected \[n h w\], or \[n h w c\] with 1 to 4 channels"),
        (np.zeros((6, 7, 5, 6), np.uint8), r"got images of 6×7×5×6; expected"),
        (np.zeros((6, 4, 5, 3, 1), np.uint8), r"got images of 6×4×5×3×1; expected"),
        (GREY[:5], r"data\.path: got 5 images in a\.npz images and 6 labels in a\.npz labels; expected as many"),
    ],
)  # fmt: skip
def test_images_are_refused_when_they_are_none(tmp_path: Path, images: np.ndarray, message: str):
    with pytest.raises(InputError, match=message):
        train(npz(tmp_path / "a.npz", images), cache_dir=tmp_path / "cache")


def test_empty_arrays_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"a\.npz: got 0 examples"):
        train(npz(tmp_path / "a.npz", GREY[:0], LABELS[:0]), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("images", [GREY, COLOR])
@pytest.mark.parametrize("config", [{"image_size": "9x7", "resize": "crop"}, {"color": "rgb"}, {"color": "grayscale"}])
def test_size_and_colors_are_made_as_for_pictures(tmp_path: Path, images: np.ndarray, config: dict[str, Any]):
    dataset = train(npz(tmp_path / "a.npz", images), **config)
    color = config.get("color", "rgb" if images.ndim == 4 else "grayscale")
    size = (9, 7) if "image_size" in config else None
    expected = [fit_picture(Image.fromarray(image), color, size, config.get("resize")) for image in images]
    np.testing.assert_array_equal(dataset.images[:], np.stack(expected))


def test_large_images_are_read_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranges_module, "BATCH_BYTES", 100)
    np.testing.assert_array_equal(train(npz(tmp_path / "a.npz", COLOR)).images[:], COLOR)


# Labels


@pytest.mark.parametrize("kind", ["U", "S"])
def test_texts_as_labels_name_the_classes_in_order(tmp_path: Path, kind: str):
    dataset = train(npz(tmp_path / "a.npz", labels=np.array(["cat", "ant", "dog"] * 2).astype(kind)))
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [1, 0, 2] * 2


def test_truth_values_as_labels_are_two_classes(tmp_path: Path):
    assert train(npz(tmp_path / "a.npz", labels=LABELS > 0)).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS - 1, r"a\.npz labels of example 1: got -1; expected 0 or more"),
        (LABELS[:5], r"got 6 images in a\.npz images and 5 labels"),
    ],
)
def test_labels_are_refused_when_they_are_none(tmp_path: Path, labels: np.ndarray, message: str):
    with pytest.raises(InputError, match=message):
        train(npz(tmp_path / "a.npz", labels=labels), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_labels_with_fractions_are_targets_of_a_regression_and_that_is_said(tmp_path: Path, kind: str):
    targets = (LABELS * 1.3).astype(np.float32)
    path = npz(tmp_path / "a.npz", labels=targets)
    if kind == "idx":
        path = tmp_path / "train-images-idx3-ubyte"
        path.write_bytes(b"\0\0\x08\x03" + struct.pack(">III", *GREY.shape[:3]) + GREY.tobytes())
        header = b"\0\0\x0d\x01" + struct.pack(">I", len(targets))
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(header + targets.astype(">f4").tobytes())
    for _ in range(2):  # also on the second start
        messages = list[str]()
        found = train(path, messages, cache_dir=tmp_path / "cache")
        np.testing.assert_array_equal(found.labels, targets[:, None])
        assert found.class_names == ()
        assert any("a regression (--train.loss mean_squared_error)" in line for line in messages)
    run = engine.fit(TINY, str(path), epochs=1, validation=None, loss="mean_squared_error", verbose=False)
    np.testing.assert_array_equal(engine.dataset(GREY, targets).labels, found.labels)
    assert run.classifier.class_names == ()
    with pytest.raises(InputError, match=r"fractions; expected class labels, .*--train\.loss mean_squared_error"):
        engine.fit(TINY, str(path), epochs=1, validation=None, verbose=False)


def test_whole_numbers_are_targets_where_the_loss_or_the_other_split_says_so(tmp_path: Path):
    path = npz(tmp_path / "a.npz", labels=LABELS, x_test=GREY, y_test=LABELS + 0.5)
    splits = load_splits(
        DataConfig(path=path, validation_fraction=0, cache_dir=tmp_path / "cache"), 0, lambda text: None
    )
    np.testing.assert_array_equal(splits.train.labels, LABELS[:, None])
    assert splits.test is not None
    np.testing.assert_array_equal(splits.test.labels, LABELS[:, None] + 0.5)
    path = npz(tmp_path / "b.npz", labels=LABELS)
    assert (
        engine.fit(
            TINY, path, epochs=1, validation=None, loss="mean_squared_error", verbose=False
        ).classifier.class_names
        == ()
    )
    assert train(path).class_names == ("0", "1", "2")


# Files that are damaged or would run code


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_python_objects_are_refused_and_never_unpickled(tmp_path: Path, in_tmp: Path, kind: str):
    labels = np.array([Bomb()] * 6, object)
    if kind == "npz":
        path = npz(tmp_path / "a.npz", labels=labels)
    else:
        path = tmp_path / "data"
        path.mkdir()
        np.save(path / "images.npy", GREY)
        np.save(path / "labels.npy", labels)
    with pytest.raises(
        InputError, match=r"got an array of Python objects.*; expected arrays of numbers or text\. Conv"
    ):
        train(path)
    assert not (tmp_path / "unpickled").exists()


def test_pickle_in_place_of_an_array_is_refused(tmp_path: Path, in_tmp: Path):
    np.save(tmp_path / "images.npy", GREY)
    (tmp_path / "labels.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"labels\.npy: got an array of Python objects, or no NumPy file"):
        train(tmp_path)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("data", [b"", b"not an archive", b"PK\x03\x04 neither"])
def test_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.npz: got .*not a zip file; expected an \.npz file that can be read"):
        train(tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archive_is_refused(tmp_path: Path, save: Any):
    save(tmp_path / "a.npz", images=GREY, labels=LABELS)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[200:230] = bytes(30)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.npz: got .*; expected an \.npz file that can be read\. Make or download"):
        train(tmp_path / "a.npz")


def lying_npy(shape: str) -> bytes:
    """A .npy file whose header promises more than follows."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(10)


@pytest.mark.parametrize("shape", ["(1099511627776, 1, 1)", "(10, 10, 10)", "(2, 2, 2)"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archive_that_promises_more_than_it_holds_is_refused(tmp_path: Path, shape: str, method: int):
    labels = io.BytesIO()
    np.save(labels, LABELS)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("images.npy", lying_npy(shape))
        archive.writestr("labels.npy", labels.getvalue())
    with pytest.raises(
        InputError, match=r"a\.npz: got \d+ bytes; expected [\d,]+ as its header says\. Make or download"
    ):
        train(tmp_path / "a.npz")


@pytest.mark.parametrize("data", [b"", lying_npy("(1099511627776, 1, 1)"), lying_npy("(6, 5, 4)")])
def test_array_file_that_promises_more_than_it_holds_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "images.npy").write_bytes(data)
    np.save(tmp_path / "labels.npy", LABELS)
    with pytest.raises(InputError, match=r"images\.npy: got .*; expected a \.npy file that can be read"):
        train(tmp_path)


def test_array_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.data.sources.idx.free_host_bytes", lambda: 100)
    with pytest.raises(InputError, match=r"a\.npz: got an array of 0\.0 GiB; expected one that fits into memory"):
        train(npz(tmp_path / "a.npz"))


# IDX


def idx(array: np.ndarray, code: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def idx_files(folder: Path, is_packed: bool = False, dot: str = "-") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 6), ("t10k", 4)):
        for name, array in ((f"images{dot}idx3", GREY[:count]), (f"labels{dot}idx1", LABELS[:count].astype(np.uint8))):
            data = idx(array)
            name = f"{split}-{name}-ubyte"
            (folder / (f"{name}.gz" if is_packed else name)).write_bytes(gzip.compress(data) if is_packed else data)
    return folder


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_files_are_read_packed_or_not(tmp_path: Path, is_packed: bool, dot: str):
    source = opened(idx_files(tmp_path / "mnist", is_packed, dot))
    assert source.split_names == ("train", "test")
    dataset = source.load("train", "data.split")
    np.testing.assert_array_equal(dataset.images[:], GREY[..., None])
    assert (dataset.labels.tolist(), dataset.name) == (LABELS.tolist(), "mnist train")
    test = source.load("test", "data.test_split")
    assert (len(test), test.class_names) == (4, ("0", "1", "2"))


def test_single_idx_file_finds_its_labels(tmp_path: Path):
    folder = idx_files(tmp_path / "mnist")
    assert opened(folder / "t10k-images-idx3-ubyte").split_names == ("train",)
    assert len(train(folder / "t10k-images-idx3-ubyte")) == 4
    idx_files(folder, is_packed=True)
    (folder / "train-labels-idx1-ubyte").unlink()
    assert len(train(folder / "train-images-idx3-ubyte")) == 6  # its labels are packed
    assert len(train(folder)) == 6  # both lie there, which are one


def test_idx_labels_alone_or_images_alone_are_refused(tmp_path: Path):
    folder = idx_files(tmp_path / "mnist")
    with pytest.raises(InputError, match=r"data\.path: got .*train-labels-idx1-ubyte; expected the file of images"):
        opened(folder / "train-labels-idx1-ubyte")
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte alone; expected its labels in train-labels-idx1-"):
        opened(folder)


def test_several_idx_files_for_a_split_are_refused(tmp_path: Path):
    folder = idx_files(tmp_path / "emnist")
    (folder / "letters-train-images-idx3-ubyte").write_bytes(idx(GREY))
    with pytest.raises(
        InputError, match=r"got .*letters-train-.*, train-.*; expected one file of images for the train"
    ):
        opened(folder)


def test_folder_without_arrays_is_refused(tmp_path: Path):
    (tmp_path / "t-ubyte").touch()
    with pytest.raises(InputError, match=r"data\.path: got .* without any; expected arrays named like x_train\.npy"):
        opened(tmp_path)


HUGE = struct.pack(">HBB3I", 0, 8, 3, 10**9, 1000, 1)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a truncated file; expected a complete IDX file"),
        (idx(GREY)[:9], "a truncated file"),
        (idx(GREY)[:-1], r"\d+ bytes; expected \d+ as its header says"),
        (idx(GREY) + b"x", r"\d+ bytes; expected \d+ as its header says"),
        (HUGE + bytes(100), r"\d+ bytes; expected 1,000,000,000,0\d\d as its header says"),
        (b"\x89PNG" + bytes(99), "no IDX magic number at its start; expected an IDX file"),
        (idx(GREY, 77), "no IDX magic number"),
        (idx(GREY[0]), r"images of 4×5; expected \[n h w\]"),
    ],
)
def test_damaged_idx_file_is_refused(tmp_path: Path, is_packed: bool, data: bytes, message: str):
    folder = idx_files(tmp_path / "mnist", is_packed)
    file = folder / ("train-images-idx3-ubyte.gz" if is_packed else "train-images-idx3-ubyte")
    file.write_bytes(gzip.compress(data) if is_packed else data)
    with pytest.raises(InputError, match=rf"train-images-idx3-ubyte(\.gz)?: got {message}"):
        train(folder)


def test_truncated_or_wrong_gzip_is_refused(tmp_path: Path):
    folder = idx_files(tmp_path / "mnist", is_packed=True)
    file = folder / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: got a truncated file; expected a complete IDX"):
        train(folder)
    file.write_bytes(idx(GREY))
    with pytest.raises(InputError, match=r"ubyte\.gz: got Not a gzipped file .*; expected a complete IDX file"):
        train(folder)
    file.write_bytes(whole[:40] + bytes(20) + whole[60:])
    with pytest.raises(InputError, match=r"ubyte\.gz: got "):
        train(folder)


# The cache


def test_second_start_reads_no_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    messages: list[str] = []
    path = npz(tmp_path / "a.npz")
    first = train(path, messages, cache_dir=tmp_path)
    monkeypatch.setattr(ArraySource, "_decode", None)
    assert train(path, messages, cache_dir=tmp_path).fingerprint == first.fingerprint
    monkeypatch.undo()
    assert messages == ["decoding a.npz: 6 images, once"]
    train(path, messages, cache_dir=tmp_path, image_size="3x3")
    npz(path, GREY[::-1])
    os.utime(path, ns=(1, 1))
    assert train(path, messages, cache_dir=tmp_path).fingerprint != first.fingerprint
    assert len(messages) == 3


def test_splits_of_one_archive_do_not_share_an_entry(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=LABELS, x_test=GREY[::-1], y_test=LABELS[::-1])
    source = opened(tmp_path / "a.npz")
    for _ in range(2):
        np.testing.assert_array_equal(source.load("train", "data.split").images[:], GREY[..., None])
        np.testing.assert_array_equal(source.load("test", "data.test_split").images[:], GREY[::-1][..., None])


@pytest.mark.parametrize("shape", [(6, 0, 4, 1), (6, 4, 0)])
def test_images_without_a_pixel_are_refused(tmp_path, shape):
    np.savez(tmp_path / "d.npz", images=np.zeros(shape, np.uint8), labels=np.arange(6) % 2)
    with pytest.raises(InputError, match=r"expected .* at least a pixel"):
        load_splits(DataConfig(path=tmp_path / "d.npz", image_size="8x8", cache_dir=tmp_path / "cache"), 0)


def test_small_file_of_ten_thousand_million_labels_is_refused(tmp_path):
    header, images = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<U0", "fortran_order": False, "shape": (10**10,)})
    np.save(images, np.zeros((3, 4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x_train.npy", images.getvalue())
        archive.writestr("y_train.npy", header.getvalue())
    with pytest.raises(InputError, match="10,000,000,000 values of no bytes"):
        load_splits(DataConfig(path=tmp_path / "d.npz", cache_dir=tmp_path / "cache"), 0)

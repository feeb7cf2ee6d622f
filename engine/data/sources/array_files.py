"""Arrays in files → Source: .npz archives, folders of .npy, and IDX files as MNIST comes in.

Nothing is unpickled, so that opening data never runs code; and what a header says of the size is held against the
size of the file before memory is taken for it.
"""

import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from engine.config.data import DataConfig
from engine.config.decoding import ValueRange
from engine.data.arrays.axes import channels_last, check_pictures
from engine.data.arrays.given import plain_array
from engine.data.classes.labels import are_targets, read_classes, read_targets
from engine.data.classes.names import Names
from engine.data.classes.reading import classes_of
from engine.data.classes.several import read_several
from engine.data.decoded.cache import Decoded, DecodedBatch, Findings, cached
from engine.data.decoded.dataset import Dataset, names_text
from engine.data.pictures.images import fit_images, fitted_shape
from engine.data.pictures.ranges import as_uint8, levels_range, parts_of, range_text
from engine.data.sources.class_folders import name_of
from engine.data.sources.class_order import in_listed_order
from engine.data.sources.files import cache_entry, file_key
from engine.data.sources.idx import (
    MOST_DEFLATED,
    check_memory,
    check_size,
    idx_splits,
    labels_beside,
    read_idx,
    reading,
)
from engine.data.sources.source import Source, split_title, visible_entries
from engine.data.sources.split_names import SPLIT_ORDER, SPLITS
from engine.errors import InputError, Say, problem
from engine.host.archives import check_directory_size
from engine.host.storage import expanded
from engine.text import counted

MOST_HEADER_BYTES = 10_000  # NumPy itself writes some 118 and trusts no more than this
PAIRS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))
ARRAY_ENDINGS = (".npy", ".npz", "-ubyte", "-ubyte.gz")
UNDIVIDED_PAIRS = (("images", "labels"), ("x", "y"), ("data", "labels"))
SAVE_BOTH = "Save images and labels together: np.savez('data.npz', x_train=images, y_train=labels)."
Read = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Images and labels of a split, read on access; `names` are what errors call the two."""

    images: Read
    labels: Read
    names: tuple[str, str]


@dataclass(frozen=True)
class ArraySource(Source):
    """Arrays by split; `files` hold them."""

    name: str
    pairs: dict[str, Pair]
    files: tuple[Path, ...]
    config: DataConfig
    tell: Say

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it has; "train" where it is not divided."""
        return tuple(self.pairs)

    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field` if there is no such split, or why the arrays cannot be used."""
        name = split_title(self.name, self.pairs, split, field)
        entry = cache_entry(self.config, name, file_key(self.files, self.config, split, self.config.layout))
        dataset = cached(entry, name, lambda: self._decode(split), self.tell)
        if dataset.class_names:
            given = plain_array(self.pairs[split].labels(), name)
            dataset = replace(dataset, targets=read_targets(given, name) if given.dtype.kind in "biuf" else None)
        return in_listed_order(dataset, self.config.class_names, split != self.config.split, self.tell)

    def _decode(self, split: str) -> Decoded:
        pair = self.pairs[split]
        labels, class_names, notes = _targets_of(pair.labels(), pair.names[1])
        images, value_range = self._images(pair, self.pairs.get("train", pair))
        if len(images) != len(labels):
            counts = counted(len(images), "image"), counted(len(labels), "label")
            got = " and ".join(f"{count} in {name}" for count, name in zip(counts, pair.names, strict=True))
            raise InputError(problem("data.path", got, "as many of each", "Check how they were made."))
        decoded = decode_arrays(images, labels, class_names, self.config, value_range)
        return replace(decoded, findings=Findings(notes))

    def _images(self, pair: Pair, known: Pair) -> tuple[np.ndarray, ValueRange | None]:
        """[n h w c] of some type of number, and what stands for black and white unless they are uint8."""
        images = self._pictures(pair, self.tell)
        usual = self.config.levels if isinstance(self.config.levels, tuple) else None
        if images.dtype == np.uint8 and (usual is None or usual[1] > 255):
            return images, None
        if usual is None and known is not pair:
            train = self._pictures(known, lambda text: None)
            usual = (0.0, 255.0) if train.dtype == np.uint8 else levels_range(train, known.names[0], None)
        value_range = levels_range(images, pair.names[0], usual)
        if value_range != (0, 255):
            self.tell(f"{pair.names[0]}: {images.dtype} is read as levels, {range_text(value_range)}")
        return images, value_range

    def _pictures(self, pair: Pair, tell: Say) -> np.ndarray:
        images = channels_last(pair.images(), pair.names[0], self.config.layout, tell)
        check_pictures(images, pair.names[0])
        return images


def _targets_of(given: np.ndarray, field: str) -> tuple[np.ndarray, Names, list[str]]:
    """(int32[n] indices, class names, nothing), or (uint8[n k] several labels a picture, their names, a line), or
    (float32[n d] targets, no names, what a line says of that)."""
    if several := read_several(given, field, None):
        return *several, [f"{field} has several labels a picture (--train.loss binary_cross_entropy)"]
    if not are_targets(given, field) or np.isin(given, (0, 1)).all():  # several labels a picture are no amounts
        read = read_classes(given, field)
        return *classes_of(read.values, field, read.names), []
    targets = read_targets(given, field)
    low, high = targets.min(), targets.max()
    note = f"{field} has numbers from {low:g} to {high:g}: a regression (--train.loss mean_squared_error)"
    return targets, (), [note]


def holds_arrays(folder: Path) -> bool:
    """Whether a folder holds files of arrays and no folders."""
    inside = visible_entries(folder)
    return any(path.name.lower().endswith(ARRAY_ENDINGS) for path in inside) and not any(map(Path.is_dir, inside))


def open_arrays(config: DataConfig, tell: Say) -> ArraySource:
    """The arrays at `config.path`, not yet read; raises InputError if there are none that go together."""
    assert config.path is not None
    path = expanded(config.path)
    if path.suffix.lower() == ".npy":
        rule = "images with their labels"
        raise InputError(problem("data.path", f"{path}, a single array", rule, SAVE_BOTH))
    if path.is_dir():
        pairs, files = _of_folder(path)
    elif path.suffix.lower() == ".npz":
        pairs, files = _pairs(_archive(path), path), [path]
    else:
        pairs, files = _of_idx({"train": path})
    return ArraySource(name_of(path), pairs, tuple(files), config, tell)


def _of_folder(folder: Path) -> tuple[dict[str, Pair], list[Path]]:
    """Splits and files of a folder of one .npz, of .npy files, or of IDX files."""
    inside = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    archives = [path for path in inside if path.suffix.lower() == ".npz"]
    arrays = [path for path in inside if path.suffix.lower() == ".npy"]
    if len(archives) == 1:
        return _pairs(_archive(archives[0]), archives[0]), archives
    if archives:
        names = ", ".join(path.name for path in archives[:4])
        raise InputError(problem("data.path", f"{folder} with {names}", "one .npz file", "Give the path of one."))
    if arrays:
        return _pairs({path.stem: partial(_read_npy, path) for path in arrays}, folder), arrays
    return _of_idx(idx_splits(folder, inside))


def _pairs(arrays: dict[str, Read], path: Path) -> dict[str, Pair]:
    """The splits among named arrays; those without labels are left out, unless it is the training split."""
    read = {name.lower(): (name, reader) for name, reader in arrays.items()}
    found: dict[str, Pair] = {}
    for word, split in sorted(SPLITS.items(), key=lambda item: SPLIT_ORDER.index(item[1])):
        for images, labels in ((images.format(word), labels.format(word)) for images, labels in PAIRS):
            if images in read and labels in read:
                found.setdefault(split, _pair(read[images], read[labels], path))
    for images, labels in UNDIVIDED_PAIRS:
        if "train" not in found and images in read and labels in read:
            found["train"] = _pair(read[images], read[labels], path)
    if not found:
        rule = "x_train and y_train (and x_test, y_test), train_images and train_labels, or images and labels"
        got = f"{path} with {names_text(tuple(arrays)) or 'no arrays'}"
        raise InputError(problem("data.path", got, f"arrays named {rule}", SAVE_BOTH))
    return {split: found[split] for split in SPLIT_ORDER if split in found}


def _pair(images: tuple[str, Read], labels: tuple[str, Read], path: Path) -> Pair:
    return Pair(images[1], labels[1], (f"{path.name} {images[0]}", f"{path.name} {labels[0]}"))


def _archive(path: Path) -> dict[str, Read]:
    with reading(path, "an .npz file that can be read"):
        check_directory_size(path, "an .npz file")
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
    return {name.removesuffix(".npy"): partial(_read_member, path, name) for name in names}


def _read_member(path: Path, name: str) -> np.ndarray:
    with reading(path, "an .npz file that can be read"), zipfile.ZipFile(path) as archive:
        about = archive.getinfo(name)
        with archive.open(name) as file:
            version = np.lib.format.read_magic(file)
            _check_header(path, version, archive, name)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            check_size(path, file.tell() + prod(shape) * dtype.itemsize, about.file_size, dtype.hasobject)
        packed = about.compress_size * (1 if about.compress_type == zipfile.ZIP_STORED else MOST_DEFLATED) + 1024
        check_size(path, min(about.file_size, packed), about.file_size)
        check_memory(path, about.file_size)
        with archive.open(name) as file:
            return _checked_text(np.lib.format.read_array(file, allow_pickle=False))


def _check_header(path: Path, version: tuple[int, int], archive: zipfile.ZipFile, name: str) -> None:
    """Refuses a header that promises more than any has, before it is read."""
    with archive.open(name) as file:
        start = file.read(12)
    length = int.from_bytes(start[8:10] if version == (1, 0) else start[8:12], "little")
    if length > MOST_HEADER_BYTES:
        rule = f"one of at most {MOST_HEADER_BYTES:,}"
        raise InputError(problem(str(path), f"a header of {length:,} bytes", rule, "Make or download it again."))


def _read_npy(path: Path) -> np.ndarray:
    with reading(path, "a .npy file that can be read"):
        if path.stat().st_size == 0:
            raise EOFError
        # Mapped, which fails where the header promises more than there is, and takes no memory.
        return _checked_text(np.lib.format.open_memmap(path, mode="r"))


def _checked_text(array: np.ndarray) -> np.ndarray:
    """The array, if what is text in it can be: NumPy takes any 32 bits for a letter, and Python then fails.

    Values of no bytes are refused: any number of them fits into a small file, and takes memory once it is looked at.
    """
    if array.size and not array.dtype.itemsize:
        raise ValueError(f"{array.size:,} values of no bytes")
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        letters = np.ascontiguousarray(array).reshape(-1).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if letters.max() > sys.maxunicode:
            raise ValueError("text with letters that do not exist")
    return array


def _of_idx(images: dict[str, Path]) -> tuple[dict[str, Pair], list[Path]]:
    """Splits and files, for the file of images of each split."""
    pairs: dict[str, Pair] = {}
    files: list[Path] = []
    for split, path in images.items():
        labels = labels_beside(path)
        pairs[split] = Pair(partial(read_idx, path), partial(read_idx, labels), (path.name, labels.name))
        files += [path, labels]
    return pairs, files


def decode_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    config: DataConfig,
    value_range: ValueRange | None = None,
) -> Decoded:
    """Images [n h w c] and their labels, in the size and colours of the config.

    value_range: what is black and what white in images other than uint8.
    """

    def levels(part: slice) -> np.ndarray:
        return images[part] if value_range is None else as_uint8(images[part], value_range)

    batches = (DecodedBatch(fit_images(levels(part), config), labels[part]) for part in parts_of(images))
    shape = fitted_shape(images.shape[1:], config)
    return Decoded(len(images), shape, class_names, batches, value_range=value_range)

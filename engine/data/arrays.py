"""Arrays in files → Source: .npz archives, folders of .npy, and IDX files as MNIST comes in.

Nothing is unpickled, so that opening data never runs code; and what a header says of the size is held against the
size of the file before memory is taken for it.
"""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from engine.archives import check_directory_size
from engine.data.cache import Decoded, DecodedBatch, cached
from engine.data.class_folders import name_of
from engine.data.class_order import in_listed_order
from engine.data.classes import classes_of
from engine.data.config import DataConfig
from engine.data.dataset import Dataset, names_text
from engine.data.decoding import NUM_CHANNELS, USUAL_COLORS
from engine.data.files import cache_entry, file_key
from engine.data.idx import MOST_DEFLATED, check_memory, check_size, idx_splits, labels_beside, read_idx, reading
from engine.data.images import fit_levels
from engine.data.labels import checked_labels
from engine.data.source import split_title
from engine.data.split_names import SPLIT_ORDER, SPLITS
from engine.errors import InputError, problem, shape_text
from engine.storage import expanded

MOST_HEADER_BYTES = 10_000  # NumPy itself writes some 118 and trusts no more than this
BATCH_EXAMPLES = 1024
BATCH_BYTES = 64 * 2**20
PAIRS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))
UNDIVIDED_PAIRS = (("images", "labels"), ("x", "y"), ("data", "labels"))
SAVE_BOTH = "Save images and labels together: np.savez('data.npz', x_train=images, y_train=labels)."
Tell = Callable[[str], None]
Read = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Images and labels of a split, read when asked for; `names` are what errors call the two."""

    images: Read
    labels: Read
    names: tuple[str, str]


@dataclass(frozen=True)
class ArraySource:
    """Arrays by split; `files` hold them."""

    name: str
    pairs: dict[str, Pair]
    files: tuple[Path, ...]
    config: DataConfig
    tell: Tell

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it has; "train" where it is not divided."""
        return tuple(self.pairs)

    @property
    def passed_over(self) -> dict[str, int]:
        """Nothing: there is no folder to walk."""
        return {}

    def load(self, split: str, field: str) -> Dataset:
        """One split; raises InputError naming `field` if there is no such split, or why the arrays cannot be used."""
        name = split_title(self.name, self.pairs, split, field)
        entry = cache_entry(self.config, name, file_key(self.files, self.config, split))
        dataset = cached(entry, name, lambda: self._decode(split), self.tell)
        return in_listed_order(dataset, self.config.class_names, split != self.config.split, self.tell)

    def _decode(self, split: str) -> Decoded:
        pair = self.pairs[split]
        labels, class_names = classes_of(checked_labels(pair.labels(), pair.names[1]), pair.names[1])
        images = _checked_images(pair.images(), pair.names[0], self.tell)
        if len(images) != len(labels):
            got = f"{len(images):,} images in {pair.names[0]} and {len(labels):,} labels in {pair.names[1]}"
            raise InputError(problem("data.path", got, "as many of each", "Check how they were made."))
        return decode_arrays(images, labels, class_names, self.config)


def open_arrays(config: DataConfig, tell: Tell) -> ArraySource:
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
    check_directory_size(path, "an .npz file")
    with reading(path, "an .npz file that can be read"), zipfile.ZipFile(path) as archive:
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
            return np.lib.format.read_array(file, allow_pickle=False)


def _check_header(path: Path, version: tuple[int, int], archive: zipfile.ZipFile, name: str) -> None:
    """Refuses a header that promises more than any has, before it is read."""
    with archive.open(name) as file:
        start = file.read(12)
    length = int.from_bytes(start[8:10] if version == (1, 0) else start[8:12], "little")
    if length > MOST_HEADER_BYTES:
        rule = f"one of at most {MOST_HEADER_BYTES:,}"
        raise InputError(problem(str(path), f"a header of {length:,} bytes", rule, "Make or download it anew."))


def _read_npy(path: Path) -> np.ndarray:
    with reading(path, "a .npy file that can be read"):
        if path.stat().st_size == 0:
            raise EOFError
        # Mapped, which fails where the header promises more than there is, and takes no memory.
        return np.lib.format.open_memmap(path, mode="r")


def _of_idx(images: dict[str, Path]) -> tuple[dict[str, Pair], list[Path]]:
    """Splits and files, for the file of images of each split."""
    pairs: dict[str, Pair] = {}
    files: list[Path] = []
    for split, path in images.items():
        labels = labels_beside(path)
        pairs[split] = Pair(partial(read_idx, path), partial(read_idx, labels), (path.name, labels.name))
        files += [path, labels]
    return pairs, files


def _checked_images(images: np.ndarray, name: str, tell: Tell) -> np.ndarray:
    """[n h w c] with levels from 0 to 255 in some type of number; raises InputError if they are anything else."""
    if images.ndim == 3:
        images = images[..., None]  # [n h w] → [n h w 1]
    elif images.ndim == 4 and images.shape[-1] not in USUAL_COLORS and images.shape[1] in USUAL_COLORS:
        tell(f"{name}: {shape_text(images.shape)} is read as channels first")
        images = np.moveaxis(images, 1, -1)  # [n c h w] → [n h w c]
    if images.ndim != 4 or images.shape[-1] not in USUAL_COLORS:
        rule = "[n h w], or [n h w c] with 1 to 4 channels"
        raise InputError(problem(name, f"images of {shape_text(images.shape)}", rule, "Reshape or convert them."))
    if images.dtype != np.uint8 and len(images):
        _check_levels(images, name)
    return images


def _check_levels(images: np.ndarray, name: str) -> None:
    """Raises InputError unless an array that is not uint8 holds nothing but whole numbers from 0 to 255."""
    kind, rule = images.dtype.kind, "levels from 0 to 255, uint8"
    if kind not in "iuf":
        raise InputError(problem(name, f"{images.dtype} images", rule, "Convert them with astype."))
    parts = [images[part] for part in _parts(images)]
    low, high = float(np.min([part.min() for part in parts])), float(np.max([part.max() for part in parts]))
    if kind == "f" and low >= 0 and high <= 1:
        remedy = "Multiply by 255, round and convert to uint8; or train with engine.fit, which takes floats."
        raise InputError(problem(name, f"{images.dtype} images from {low:g} to {high:g}", rule, remedy))
    if not (low >= 0 and high <= 255):  # so written that NaN is refused
        remedy = "Scale them to 0 to 255 and convert to uint8; or train with engine.fit, which takes floats."
        raise InputError(problem(name, f"{images.dtype} images from {low:g} to {high:g}", rule, remedy))
    if kind == "f" and any((part != np.floor(part)).any() for part in parts):
        raise InputError(problem(name, f"{images.dtype} images with fractions", rule, "Round and convert to uint8."))


def _parts(images: np.ndarray) -> Iterator[slice]:
    size = max(1, min(BATCH_EXAMPLES, BATCH_BYTES // max(1, prod(images.shape[1:]))))
    return (slice(start, start + size) for start in range(0, len(images), size))


def decode_arrays(images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], config: DataConfig) -> Decoded:
    """Images [n h w c] with levels from 0 to 255 and their labels, in the size and colours of the config."""
    batches = (DecodedBatch(fit_images(images[part].astype(np.uint8), config), labels[part]) for part in _parts(images))
    return Decoded(len(images), fitted_shape(images.shape[1:], config), class_names, batches)


def fitted_shape(shape: tuple[int, ...], config: DataConfig) -> tuple[int, int, int]:
    """(h, w, c) that an image of a shape has under a config."""
    height, width = config.height_width or (shape[0], shape[1])
    return height, width, NUM_CHANNELS[config.color] if config.color else shape[2]


def fit_images(images: np.ndarray, config: DataConfig) -> np.ndarray:
    """uint8[b h w c] in the size and colours of the config; their own where it has none."""
    if images.shape[1:] == fitted_shape(images.shape[1:], config):
        return images
    color = config.color or USUAL_COLORS[images.shape[-1]]
    size, resize, decoding = config.height_width, config.resize, config.decoding
    return np.stack([fit_levels(image, color, size, resize, decoding) for image in images])

"""IDX files, the format of MNIST, gzipped or not; and the wording of errors for damaged array files.

What a header says of the size is held against the size of the file before memory is taken for it.
"""

import gzip
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from engine.data.decoded.dataset import names_text
from engine.data.sources.split_names import SPLIT_ORDER
from engine.errors import InputError, problem, remedy_for
from engine.host.memory import free_host_bytes

# The most that deflate can shrink anything.
MOST_DEFLATED = 1032
IMAGES = re.compile(r"(.*images[-.])idx[34]-ubyte(\.gz)?", re.IGNORECASE)
DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def idx_splits(folder: Path, inside: list[Path]) -> dict[str, Path]:
    """The file of images of each split among IDX files, which are named train-images-…, t10k-images-… and the like."""
    found: dict[str, dict[str, Path]] = {}
    for path in inside:
        if named := IMAGES.fullmatch(path.name):
            kind = named[1].lower()
            split = "test" if "t10k" in kind or "test" in kind else "validation" if "val" in kind else "train"
            found.setdefault(split, {}).setdefault(kind, path)  # sorted, so the one that is not packed
    for split, paths in found.items():
        if len(paths) > 1:
            names = names_text(tuple(path.name for path in paths.values()))
            rule = f"one file of images for the {split} split"
            raise InputError(problem("data.path", f"{folder} with {names}", rule, "Give the path of one of them."))
    if not found:
        rule = "arrays named like x_train.npy and y_train.npy, or files named like train-images-idx3-ubyte"
        raise InputError(problem("data.path", f"{folder} without any", rule, "Rename them, or give another folder."))
    return {split: next(iter(found[split].values())) for split in SPLIT_ORDER if split in found}


def labels_beside(images: Path) -> Path:
    """The file of labels that goes with one of images, by its name."""
    if not IMAGES.fullmatch(images.name):
        rule = "the file of images, named like train-images-idx3-ubyte"
        raise InputError(problem("data.path", images, rule, "Give that; the labels are found beside it."))
    name = re.sub("idx[34]", "idx1", re.sub("images", "labels", images.name, flags=re.I), flags=re.I)
    plain = name.removesuffix(".gz")
    for labels in (images.with_name(name), images.with_name(plain), images.with_name(f"{plain}.gz")):
        if labels.is_file():
            return labels
    raise InputError(problem("data.path", f"{images} alone", f"its labels in {name} beside it", "Add that file."))


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, packed with gzip or not."""
    is_packed = path.suffix.lower() == ".gz"
    with reading(path, "a complete IDX file"), gzip.open(path) if is_packed else path.open("rb") as file:
        zeros, code, rank = struct.unpack(">HBB", _exactly(file, 4))
        if zeros or code not in DTYPES or not 1 <= rank <= 4:
            remedy = "Check that it is the file that its name says."
            raise InputError(problem(str(path), "no IDX magic number at its start", "an IDX file", remedy))
        shape = struct.unpack(f">{rank}I", _exactly(file, 4 * rank))
        size, there = prod(shape) * np.dtype(DTYPES[code]).itemsize, path.stat().st_size
        if not is_packed or size > there * MOST_DEFLATED:
            check_size(path, file.tell() + size, there)
        check_memory(path, size)
        data = file.read(size + 1)
        if len(data) != size:
            check_size(path, size, len(data))
        return np.frombuffer(data, DTYPES[code]).reshape(shape)


def _exactly(file: IO[bytes] | gzip.GzipFile, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


@contextmanager
def reading(path: Path, kind: str, remedy: str = "Make or download it again.") -> Iterator[None]:
    """Turns what damaged files raise into one sentence."""
    try:
        yield
    except InputError:
        raise
    except EOFError:
        raise InputError(problem(str(path), "a truncated file", kind, remedy)) from None
    except Exception as error:  # of nearly every kind, where headers are damaged; NumPy's go through Python's parser
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        if any(word in reason for word in ("pickle", "Python objects", "magic string")):
            remedy = "Convert them: numbers as uint8, class names as text with astype(str)."
            reason, kind = "an array of Python objects, or no NumPy file", "arrays of numbers or text"
        raise InputError(problem(str(path), reason.splitlines()[0], kind, remedy_for(error, remedy))) from None


def check_size(path: Path, promised: int, there: int, is_object: bool = False) -> None:
    """Raises InputError unless there are as many bytes as promised; of Python objects the number is unknown."""
    if promised != there and not is_object:
        rule = f"{promised:,} as its header says"
        raise InputError(problem(str(path), f"{there:,} bytes", rule, "Make or download it again."))


def check_memory(path: Path, needed: int) -> None:
    """Raises InputError if an array does not fit into memory."""
    if needed > free_host_bytes():
        got = f"an array of {needed / 2**30:.1f} GiB"
        remedy = "Save it as .npy files in a folder, which are read in parts."
        raise InputError(problem(str(path), got, "one that fits into memory", remedy))

"""What a file of weights holds: arrays by name, and what the file says of itself. Checked before anyone uses it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import InputError, problem, shape_text
from engine.host.memory import free_host_bytes

Format = Literal["keras h5", "keras weights.h5", "keras", "torch", "safetensors", "engine"]
MOST_ARRAYS = 100_000
MOST_AXES = 8
LONGEST_NAME = 500
MOST_NAMES_SHOWN = 3
CHECKED_AT_ONCE = 2**20  # values, so that the check for NaN takes no memory
FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True)
class WeightsFile:
    """The arrays of a file by name: `conv1/kernel` of Keras (layer, variable), `layer1.0.conv1.weight` of torch.

    arrays: floats are float32, finite and native; integers (such as torch's num_batches_tracked) as they are. They
    may be read-only. about: what the file says of itself, such as keras_version, model_config, pretrained_cfg (parsed
    JSON). notes: what was converted or left out, for the user.
    is_by_order: the file has no names of layers; `conv2d_3/kernel` is of the fourth Conv2D in the model's order.
    """

    path: Path
    format: Format
    arrays: Mapping[str, np.ndarray]
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_by_order: bool = False

    @property
    def is_of_torch(self) -> bool:
        """Whether its arrays have torch's names."""
        return self.format in ("torch", "safetensors")


@dataclass(frozen=True)
class Place:
    """An array as a file describes it, before its bytes are read."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def damaged(path: Path, got: str, rule: str = "a whole file of weights") -> InputError:
    """The error for a file that is not what its beginning says."""
    return InputError(problem(str(path), got, rule, "Download or save it again, and compare its size and hash."))


def check_places(path: Path, places: Iterable[Place], most_bytes: int) -> None:
    """Raises InputError if arrays as described are too many, have too many axes, or are larger than `most_bytes`."""
    total = 0
    for number, place in enumerate(places, 1):
        shape = place.shape
        if number > MOST_ARRAYS:
            raise damaged(path, f"more than {MOST_ARRAYS:,} arrays")
        if len(place.name) > LONGEST_NAME:
            raise damaged(path, f"a name of {len(place.name):,} characters", f"names of at most {LONGEST_NAME}")
        if len(shape) > MOST_AXES or any(not 0 <= size < 2**40 for size in shape):
            got = f"{place.name} with the shape {str(shape)[:100]}"
            raise damaged(path, got, f"at most {MOST_AXES} axes, none below 0")
        total += place.num_bytes
        if total > most_bytes:
            got = f"{place.name} of {shape_text(shape)}, which with those before it takes {total:,} bytes"
            raise damaged(path, got, f"at most the {most_bytes:,} bytes that the file can hold")
    if total > (free := free_host_bytes()):
        rule = f"at most the {free:,} bytes of memory that are free"
        raise InputError(problem(str(path), f"arrays of {total:,} bytes", rule, "Free some, or use a larger machine."))


def make_weights_file(
    path: Path, kind: Format, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], notes: Iterable[str] = (),
    is_by_order: bool = False,
) -> WeightsFile:  # fmt: skip
    """The file with its arrays converted to float32; raises InputError if there are none, or one is not finite."""
    if not arrays:
        rule, remedy = "arrays of weights", "Save the model's weights again; this file holds none."
        raise InputError(problem(str(path), "no arrays", rule, remedy))
    converted = {name: _as_float32(array) for name, array in arrays.items()}
    others = sorted({str(a.dtype) for a in arrays.values() if a.dtype.kind == "f" and a.dtype != np.float32})
    _check_finite(path, converted)
    told = (f"{', '.join(others)} read as float32",) if others else ()
    return WeightsFile(path, kind, converted, dict(about), (*notes, *told), is_by_order)


def widened(bits: np.ndarray) -> np.ndarray:
    """float32 from the bits of bfloat16 (uint16), which are its upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _as_float32(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        return array.astype(np.float32, copy=False)


def _check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    bad = [name for name, array in arrays.items() if array.dtype.kind == "f" and not _is_finite(array)]
    if bad:
        shown = ", ".join(bad[:MOST_NAMES_SHOWN]) + (f" and {len(bad) - MOST_NAMES_SHOWN} more" if bad[3:] else "")
        rule = "weights that are finite in float32"
        raise InputError(problem(str(path), f"NaN or infinity in {shown}", rule, "Use weights from an earlier epoch."))


def _is_finite(array: np.ndarray) -> bool:
    flat = array.reshape(-1)
    return all(np.isfinite(flat[at : at + CHECKED_AT_ONCE]).all() for at in range(0, flat.size, CHECKED_AT_ONCE))

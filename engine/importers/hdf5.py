"""HDF5 files as {path: array} and {path: {attribute: text}}, whatever is in them."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import numpy as np

from engine.errors import InputError, problem
from engine.host.json_files import parse_json
from engine.importers import hdf5_child
from engine.importers.weights_file import Place, check_places, damaged

MOST_SECONDS = 300.0  # until it is stopped, on the slowest machine
LARGER_THAN_FILE, SPARE_BYTES = 16, 2**20  # arrays may be compressed: 1/16 of their size, as zeros and few floats are
ENDLESS = {getattr(signal, "SIGXCPU", None)}
MOST_ANSWER_BYTES = 64 * 2**20


class Hdf5File(NamedTuple):
    """arrays: by path, as they were stored; attributes: those that Keras writes, by the path of what has them."""

    arrays: dict[str, np.ndarray]
    attributes: dict[str, dict[str, Any]]


def read_hdf5(path: Path, start: int = 0, size: int | None = None) -> Hdf5File:
    """All arrays of an HDF5 file, or of the part of one from `start` on. What optimizers keep there is left out.

    Raises InputError if it is damaged, holds links, or arrays in other files; if arrays are larger than 16 times the
    file; if the library crashes on it, or takes more than
    3 seconds of the processor and one for each 10 MB: a few damaged bytes can keep it in a loop for ever.
    """
    size = path.stat().st_size - start if size is None else size
    most_bytes = LARGER_THAN_FILE * size + SPARE_BYTES
    with _asked(path, start, size, most_bytes) as child, path.open("rb") as file:
        answer = _read_answer(path, child)
        places = [(Place(name, tuple(shape), np.dtype(dtype)), at) for name, shape, dtype, at in answer["arrays"]]
        check_places(path, (place for place, _ in places), most_bytes)
        check_places(path, (place for place, at in places if at is not None), size)  # none twice
        arrays = {}
        for place, at in places:
            if at is None:
                arrays[place.name] = _read_piped(path, child, place)
                continue
            if at + place.num_bytes > size:
                raise damaged(path, f"{place.name} from byte {at:,} on", f"a place within the file's {size:,} bytes")
            file.seek(start + at)
            count = place.num_bytes // place.dtype.itemsize
            arrays[place.name] = np.fromfile(file, place.dtype, count).reshape(place.shape)
    return Hdf5File(arrays, answer["attributes"])


@contextlib.contextmanager
def _asked(path: Path, start: int, size: int, most_bytes: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process that looks into the file; it is gone after the block, and after MOST_SECONDS."""
    command = [sys.executable, "-P", hdf5_child.__file__, str(path.absolute()), str(start), str(size), str(most_bytes)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each of its threads would take memory
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as child:
        timer = Timer(MOST_SECONDS, child.kill)
        timer.start()
        try:
            yield child
        finally:
            timer.cancel()
            child.kill()


def _read_answer(path: Path, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    length = _read_bytes(path, child, struct.calcsize("<Q"))
    (count,) = struct.unpack("<Q", length)
    if count > MOST_ANSWER_BYTES:
        raise damaged(path, f"descriptions of {count:,} bytes", f"at most {MOST_ANSWER_BYTES:,}")
    try:
        answer = parse_json(_read_bytes(path, child, count).decode())
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"descriptions that cannot be read ({str(error)[:100]})") from None
    if "refused" in answer:
        raise damaged(path, str(answer["refused"]), "arrays and groups as Keras writes them")
    return answer


def _read_piped(path: Path, child: subprocess.Popen[bytes], place: Place) -> np.ndarray:
    return np.frombuffer(_read_bytes(path, child, place.num_bytes), place.dtype).reshape(place.shape)


def _read_bytes(path: Path, child: subprocess.Popen[bytes], count: int) -> bytes:
    """What the process says next; raises InputError if it has died."""
    assert child.stdout is not None
    found = child.stdout.read(count)
    if len(found) == count:
        return found
    code = child.wait()
    if code > 0:
        remedy = f"Look at what this says: {sys.executable} -c 'import h5py'"
        raise InputError(problem(str(path), f"no h5py to read it with (code {code})", "h5py installed", remedy))
    way = "keeps its reader busy without end" if -code in ENDLESS else f"ends its reader (signal {-code})"
    raise damaged(path, f"an HDF5 file that {way}", "a file that HDF5 can read")

"""`read_weights`: any file of weights → its arrays by name, whatever wrote it."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from engine.errors import InputError, problem, remedy_for
from engine.host.storage import expanded
from engine.importers.keras_files import read_h5, read_keras
from engine.importers.packed_run import read_packed_run
from engine.importers.recognise import recognise
from engine.importers.safetensors import read_safetensors
from engine.importers.torch_file import read_torch
from engine.importers.weights_file import WeightsFile

READERS: dict[str, Callable[[Path], WeightsFile]] = {
    "hdf5": read_h5,
    "keras": read_keras,
    "torch": read_torch,
    "safetensors": read_safetensors,
    "engine": read_packed_run,
}
"""By what `recognise` answers."""


def read_weights(path: str | PathLike[str]) -> WeightsFile:
    """The arrays of a file of Keras, torch, safetensors or of ours, known by its first bytes and not by its name.

    Nothing of the file is run. Memory is at most twice the file. Raises InputError, in one line that says what the file
    is and what to do, if it is another kind, damaged, larger inside than it can be, or holds NaN or infinity.
    """
    place = expanded(path)
    reader = READERS[recognise(place)]
    try:
        return reader(place)
    except OSError as error:
        got, rule = f"a file that cannot be read ({error.strerror or error})", "one that can"
        raise InputError(problem(str(place), got, rule, remedy_for(error, "Check its disk."))) from None
    except MemoryError:
        rule = "as much memory as its arrays take"
        raise InputError(
            problem(str(place), "too little memory", rule, "Free some, or use a larger machine.")
        ) from None

"""What is fed: one entry a kind of file. Each is read as the commands do that take it."""

import contextlib
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine import DataConfig, InputError
from engine.checkpoints.packing import unpack
from engine.commands.summary import summary
from engine.data.kinds import open_source
from engine.data.load import load_splits
from engine.data.sources.table import read_unlabelled_table
from engine.importers.keras_models import keras_model
from engine.importers.read import read_weights
from engine.importers.weights_file import WeightsFile
from engine.records import to_json
from engine.report.survey import survey, with_one_size
from engine.runs.plan_search import read_plan
from tests.fuzz.mutations import Mutation, header_changed, json_changed, zip_changed

CORPUS = Path(__file__).parent / "corpus"
PICTURES = ("jpg", "png", "gif", "bmp", "webp", "tif", "ppm")
STEP = 7
MOST_PIXELS = 2**24  # of a picture; memory follows from it, eight bytes a pixel of a deep one


@dataclass(frozen=True)
class Target:
    """A kind of file.

    read: reads the file put at a path of a new directory. name: what the file is called there; "" for its own name.
    structure: a damage that leaves the rest of such a file whole, checksums too. share: how often it is fed, by what
      it costs. identify: what `read` returned as a text, the same for the same model; None for kinds that hold none.
    has_checksums: of all that a model is made of, so that no damage of bytes may go unnoticed.
    """

    read: Callable[[Path], Any]
    name: str = ""
    structure: Mutation | None = None
    share: int = 10
    identify: Callable[[Any], str] | None = None
    has_checksums: bool = False


def read_record(path: Path) -> None:
    """A run's record, in the second format, which has no checksums: shown as `engine summary` does."""
    place = path.parent / "run" / "checkpoints" / str(STEP) / "record"
    place.mkdir(parents=True)
    path.rename(place / "metadata")
    summary(str(path.parent / "run"))


def read_packed(path: Path) -> None:
    """A packed run: unpacked, and shown."""
    unpack(path, path.parent / "out")
    summary(str(path))


def read_data(path: Path, **settings: object) -> None:
    """Data at a path, as `engine data` looks at it."""
    config = replace(
        DataConfig(path=path, cache_dir=path.parent / "cache", validation_fraction=0.0, test_split=None), **settings
    )
    source = open_source(config, lambda text: None)
    found = survey(file for files in source.image_files().values() for file in files)
    sized, _ = with_one_size(config, source, found)
    np.asarray(load_splits(sized, 0, lambda text: None).train.images[:2])


def read_prepared(path: Path) -> None:
    """Prepared tfds data, of which one file is damaged."""
    directory = path.parent / "data" / "1.0.0"
    shutil.copytree(CORPUS / "tfds", directory)
    path.rename(directory / path.name)
    read_data(directory.parent)


def read_table(path: Path) -> None:
    """A CSV table, to be trained on and to be predicted; pictures lie beside it."""
    Image.new("L", (4, 4)).save(path.with_name("a.png"))
    with contextlib.suppress(InputError):
        read_unlabelled_table(path, (4, 4, 1))
    read_data(path)


def read_arrays(path: Path) -> None:
    """A folder of two arrays, of which one is damaged."""
    path.with_name("set").mkdir()
    np.save(path.parent / "set" / "labels.npy", np.arange(6) % 2)
    path.rename(path.parent / "set" / "images.npy")
    read_data(path.parent / "set")


def read_idx(path: Path) -> None:
    """A file of images with its labels, of which one is damaged."""
    if "labels" in path.name:
        pictures = path.with_name("train-images-idx3-ubyte")
        pictures.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 6, 4, 4) + bytes(96))
        path.rename(path.with_name("train-labels-idx1-ubyte" + path.suffix))
    else:
        pictures = path.rename(path.with_name("train-images-idx3-ubyte" + path.suffix))
        pictures.with_name("train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 6) + bytes(range(6)))
    read_data(pictures)


def read_picture(path: Path) -> None:
    """A folder of two classes, of which one holds the file: its header, its pixels, and its size with another's."""
    for name in ("a", "b"):
        (path.parent / "set" / name).mkdir(parents=True)
    Image.effect_noise((9, 9), 50).save(path.parent / "set" / "b" / "1.png")
    path.rename(path.parent / "set" / "a" / path.name)
    read_data(path.parent / "set", max_pixels=MOST_PIXELS)


def read_model(path: Path) -> tuple[WeightsFile, str]:
    """Weights of Keras, and the model that they are of where the file says it."""
    file = read_weights(path)
    if "model_config" not in file.about:
        return file, ""
    model = keras_model(path, (8, 8))
    return file, json.dumps(
        [to_json(model.spec), to_json(model.input_spec), model.gives, model.is_scaled, model.num_outputs]
    )


def read_alone(path: Path) -> tuple[WeightsFile, str]:
    """Weights without a model."""
    return read_weights(path), ""


def identify(read: tuple[WeightsFile, str]) -> str:
    """A hash of the names, shapes and numbers of all arrays, and of the model."""
    file, model = read
    digest = hashlib.sha256(model.encode())
    for name, array in sorted(file.arrays.items()):
        digest.update(f"{name!r} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


TARGETS = {
    "record": Target(read_record, structure=json_changed),
    "plan": Target(lambda path: read_plan(path, {"device": "cpu"}), structure=json_changed, share=5),
    "packed": Target(read_packed, "run.engine", zip_changed),
    "tfds": Target(read_prepared, "", json_changed, 3),
    "csv": Target(read_table, "table.csv", share=20),
    "npz": Target(read_data, "arrays.npz", zip_changed, 15),
    "npy": Target(read_arrays, share=5),
    "idx": Target(read_idx, share=5),
    "jpeg": Target(read_picture, share=10),
    "picture": Target(read_picture, share=20),
    # The next three read in a process each.
    "h5": Target(read_model, share=2, identify=identify),
    "weights.h5": Target(read_model, share=1, identify=identify),
    "keras": Target(read_model, "model.keras", zip_changed, 2, identify, has_checksums=True),
    "torch": Target(read_alone, "weights.pth", zip_changed, 10, identify, has_checksums=True),
    "torch before 1.6": Target(read_alone, "weights.pth", share=10, identify=identify),
    "safetensors": Target(read_alone, "model.safetensors", header_changed, 10, identify),
    "engine": Target(read_alone, "run.engine", zip_changed, 1, identify, has_checksums=True),
}


def clear(directory: Path) -> None:
    """Removes what reading left, folders that may not be read too."""
    for root, folders, _ in os.walk(directory):
        for folder in folders:
            os.chmod(os.path.join(root, folder), 0o700)
    shutil.rmtree(directory)

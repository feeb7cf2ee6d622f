"""python -m tests.fuzz.seeds: writes the corpus again, but for files named found-…, which were faults."""

import gzip
import io
import json
import os
import re
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

import engine
from engine.checkpoints.packing import pack
from engine.config.plan import Alternative, Plan, PlanFile
from engine.data.sources.tfds import EMBEDDED
from engine.models import Conv, Dense, Flatten, MaxPool, Sequential
from engine.records import to_json
from tests.fuzz.targets import CORPUS, STEP
from tests.importers.files import safetensors, torch_of

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)


def write(target: str, name: str, content: bytes) -> None:
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    (CORPUS / target / name).write_bytes(content)


def write_runs() -> None:
    model = Sequential((Conv(2, 3, activation="relu"), MaxPool(2), Flatten(), Dense()))
    with tempfile.TemporaryDirectory() as scratch:
        data = engine.dataset(PIXELS, np.arange(6) % 3)
        engine.fit(model, data, epochs=1, batch_size=3, validation=0, verbose=False).save(f"{scratch}/run")
        pack(Path(scratch) / "run", Path(scratch) / "run.engine", inference_only=True)
        write("engine", "run.engine", Path(f"{scratch}/run.engine").read_bytes())
        with zipfile.ZipFile(f"{scratch}/run.engine") as archive:
            kept = [name for name in archive.namelist() if re.search(r"record/|SUMS|config|history", name)]
            record = json.loads(next(archive.read(name) for name in kept if name.endswith("record/metadata")))
            small = io.BytesIO()
            with zipfile.ZipFile(small, "w") as new:
                for name in kept:
                    new.writestr(name, archive.read(name))
    write("packed", "run.engine", small.getvalue())
    record |= {"format_version": 2, "step": STEP, "versions": {}}
    write("record", "record.json", json.dumps(record).encode())
    plan = PlanFile({"device": "cpu"}, Plan("eigen"), (Alternative(Plan("matrix"), 5.0),))  # type: ignore[arg-type]
    write("plan", "plan.json", json.dumps(to_json(plan)).encode())


def write_prepared() -> None:
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    source = EMBEDDED / "fashion_mnist_12k" / "1.0.0"
    record = next(path for path in source.iterdir() if "array_record" in path.name and "test" in path.name)
    reader = ArrayRecordReader(str(record))
    (CORPUS / "tfds").mkdir(parents=True, exist_ok=True)
    name = re.sub("-test", "-train", record.name)
    writer = ArrayRecordWriter(str(CORPUS / "tfds" / name), "group_size:1")
    for example in reader.read(range(6)):
        writer.write(example)
    writer.close()
    about = json.loads((source / "dataset_info.json").read_text())
    (train,) = [split for split in about["splits"] if split["name"] == "train"]
    about["splits"] = [{**train, "shardLengths": ["6"], "numBytes": "3000"}]
    write("tfds", "dataset_info.json", json.dumps(about).encode())
    for path in source.iterdir():
        if path.name == "features.json" or path.suffix == ".txt":
            write("tfds", path.name, path.read_bytes())


def write_arrays() -> None:
    labels = np.arange(6) % 2
    for name, more in (("plain", {}), ("splits", {"x_test": PIXELS, "y_test": labels})):
        file = io.BytesIO()
        np.savez(file, x_train=PIXELS[..., 0], y_train=labels, **more)
        write("npz", f"{name}.npz", file.getvalue())
    file = io.BytesIO()
    np.savez_compressed(file, images=PIXELS.astype(np.float32), labels=np.array(["a", "é", "b"] * 2))
    write("npz", "text.npz", file.getvalue())
    for name, array in (
        ("bytes", PIXELS),
        ("floats", PIXELS.astype(np.float16)),
        ("fortran", np.asfortranarray(PIXELS)),
    ):
        file = io.BytesIO()
        np.save(file, array)
        write("npy", f"{name}.npy", file.getvalue())
    images = struct.pack(">HBB3I", 0, 8, 3, 6, 4, 4) + PIXELS.tobytes()
    write("idx", "images", images)
    write("idx", "images.gz", gzip.compress(images, mtime=0))
    write("idx", "labels", struct.pack(">HBBI", 0, 8, 1, 6) + bytes(range(6)))


def write_tables() -> None:
    rows = "\n".join(f"{k % 2}," + ",".join(map(str, row.ravel())) for k, row in enumerate(PIXELS))
    header = "label," + ",".join(f"pixel{k}" for k in range(16))
    write("csv", "pixels.csv", f"{header}\n{rows}\n".encode())
    write("csv", "bare.csv", rows.replace("\n", "\r\n").encode())
    files = 'path,label\na.png,cat\n"a.png","dog, brown"\n'
    write("csv", "files.csv", files.encode())
    write("csv", "utf16.csv", files.replace("cat", "кот").encode("utf-16"))
    write("csv", "western.csv", files.replace("cat", "café").encode("cp1252"))
    write("csv", "splits.csv", b"image;species;split\na.png;x;train\na.png;y;test\na.png;x;valid\n")


def write_pictures() -> None:
    picture = Image.effect_noise((20, 14), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    ways = {
        "jpeg/plain.jpg": {}, "jpeg/turned.jpg": {"exif": exif}, "jpeg/progressive.jpg": {"progressive": True},
        "jpeg/cmyk.jpg": {"mode": "CMYK"}, "jpeg/grey.jpg": {"mode": "L"},
        "picture/a.png": {}, "picture/palette.png": {"mode": "P"}, "picture/deep.png": {"mode": "I;16"},
        "picture/alpha.png": {"mode": "RGBA"}, "picture/a.gif": {"mode": "P"}, "picture/a.bmp": {},
        "picture/a.webp": {"lossless": True}, "picture/a.ppm": {}, "picture/a.tif": {}, "picture/lzw.tif":
        {"compression": "tiff_lzw"}, "picture/float.tif": {"mode": "F"}, "picture/deep.tif": {"mode": "I;16"},
    }  # fmt: skip
    for place, options in ways.items():
        options = dict(options)
        mode, file = options.pop("mode", "RGB"), io.BytesIO()
        shown = picture.convert("L").convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
        shown.save(file, Image.registered_extensions()[Path(place).suffix], **options)
        write(*place.split("/"), file.getvalue())
    write("picture", "plain.ppm", b"P3\n# note\n2 2\n255\n" + b"1 2 3 " * 4)


def write_weights() -> None:
    """Small models of Keras in its three formats, state dicts of torch in both, and safetensors."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import h5py
    import keras

    kinds = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = kinds.BatchNormalization(name="norm")(
        kinds.Conv2D(2, 3, padding="same", name="conv")(kinds.Rescaling(0.5)(inputs))
    )
    x = kinds.Add(name="sum")([x, kinds.DepthwiseConv2D(3, padding="same", name="each")(x)])
    x = kinds.Dense(2, activation="softmax", name="out")(kinds.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(inputs, x)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for name in ("whole.h5", "new.weights.h5", "model.keras"):
            (model.save_weights if "weights" in name else model.save)(place / name)
        with h5py.File(place / "whole.h5") as whole, h5py.File(place / "legacy.h5", "w") as legacy:
            legacy.attrs.update(whole["model_weights"].attrs)
            for name in whole["model_weights"]:
                whole.copy(whole["model_weights"][name], legacy)
            legacy.create_dataset("conv/packed", data=np.zeros((8, 8), np.float32), chunks=(4, 4), compression="gzip")
        for name in ("whole.h5", "new.weights.h5", "legacy.h5", "model.keras"):
            kind = "keras" if name.endswith("keras") else "weights.h5" if "weights" in name else "h5"
            write(kind, name, (place / name).read_bytes())
    arrays = {"conv.weight": np.ones((2, 3, 2, 2), np.float32), "half": np.ones(3, np.float16), "count": np.array(7)}
    write("torch", "new.pth", torch_of(arrays))
    write("torch before 1.6", "old.pth", torch_of(arrays, is_old=True))
    header = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": {"format": "pt"},
              "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]}}  # fmt: skip
    write("safetensors", "model.safetensors", safetensors(header, np.ones(11, np.float16).tobytes()))


def main() -> None:
    """Writes all."""
    for path in CORPUS.glob("*/*"):
        if not path.name.startswith("found-"):
            path.unlink()
    for step in (write_runs, write_prepared, write_arrays, write_tables, write_pictures, write_weights):
        step()


if __name__ == "__main__":
    main()

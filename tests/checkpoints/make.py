"""Makes a stored run of the present format: `python tests/checkpoints/make.py version_3` (`--members 2`).

Each run here was made by the engine of its time, so that `tests/checkpoints/test_formats.py` can tell whether
today's still opens it: before the format changes, and never again. This script uses only what engines of all times
have; to make a run with an older one, let PYTHONPATH lead to that, and pack the directory it leaves with today's
`engine pack`.

`NAME.engine` is the run after one epoch, without its pictures. `NAME.npz` holds the data and what the engine of the
time said: `outputs` of the run as it is, `later` of the run that went on to two epochs.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

import engine
from engine.checkpoints.steps import choose_step, read_record
from engine.data.decoded.dataset import Dataset, Splits, fingerprint_of
from engine.host.clock import Clock
from engine.models import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Sequential
from engine.report.progress import Silent
from engine.runs.loop import train

MODEL = Sequential(
    (
        Conv(3, 3, activation="relu"),
        BatchNorm(),
        MaxPool(2),
        Flatten(),
        Dense(5, activation="relu"),
        Dropout(0.2),
        Dense(),
    )
)


def drawn(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8[n 8 8 1] images, brighter in the rows of their class, and int32[n] labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, num).astype(np.int32)
    images = draw.integers(0, 150, (num, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 3] += 100
    return images, labels


def dataset(images: np.ndarray, labels: np.ndarray) -> Dataset:
    """The stored arrays as data of a run."""
    return Dataset(images, labels, ("top", "middle", "bottom"), "rows", fingerprint_of(images, labels))


def main() -> None:
    """Trains an epoch, keeps the run, trains another, keeps what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--members", type=int)
    options = parser.parse_args()
    members = {"members": options.members} if options.members else {}
    config = engine.RunConfig(options.name, MODEL, train=engine.TrainConfig(epochs=1, batch_size=10, **members))
    (images, labels), (held_images, held_labels) = drawn(25, 0), drawn(10, 1)
    splits = Splits(dataset(images, labels), dataset(held_images, held_labels))
    directory = Path(options.name)
    directory.mkdir()
    train(config, splits, directory, Clock(), Silent())
    kept = shutil.copytree(directory, f"{options.name}.kept")
    outputs = engine.restore(directory).outputs(held_images)
    record = read_record(directory, choose_step(directory, "last"))
    train(replace(config, train=replace(config.train, epochs=2)), splits, directory, Clock(), Silent(), record)
    later = engine.restore(directory, step="last").outputs(held_images)
    shutil.rmtree(directory)
    Path(kept).rename(directory)
    for file in (*directory.glob("*.png"), directory / "log.txt"):
        file.unlink(missing_ok=True)
    np.savez_compressed(
        f"{options.name}.npz",
        images=images,
        labels=labels,
        held_images=held_images,
        held_labels=held_labels,
        outputs=outputs,
        later=later,
    )


if __name__ == "__main__":
    main()

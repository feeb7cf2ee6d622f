"""Draws fashion_mnist_12k from the official Fashion-MNIST files: `python -m engine.data.embedded.draw SOURCE_DIR`.

10,000 training and 2,000 test images, the same number of each class, chosen by a fixed seed and written as a prepared
tfds dataset (ArrayRecord) beside this file. Needs no TensorFlow. Fashion-MNIST is © Zalando SE, MIT licence
(LICENSE.fashion_mnist); https://github.com/zalandoresearch/fashion-mnist.
"""

import gzip
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

HERE = Path(__file__).parent
SEED = 2017
COUNTS = {"train": 10_000, "test": 2_000}
PREFIXES = {"train": "train", "test": "t10k"}
CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def read_official(source: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """(uint8[n 28 28], uint8[n]) of one pair of official IDX files."""
    with gzip.open(source / f"{prefix}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(source / f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices of `count` examples, the same number of each class, in the order of the source."""
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(labels)), kind="stable")
    per_class = count // len(CLASS_NAMES)
    chosen = [order[labels[order] == k][:per_class] for k in range(len(CLASS_NAMES))]
    return np.sort(np.concatenate(chosen))


def png(image: np.ndarray) -> io.BytesIO:
    """The image as an optimised PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", optimize=True)
    file.seek(0)
    return file


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the drawn examples in the layout of any prepared tfds dataset."""

    name = "fashion_mnist_12k"
    VERSION = tfds.core.Version("1.0.0")
    source: Path

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=CLASS_NAMES),
            }
        )
        description = (
            "10,000 training and 2,000 test images of Fashion-MNIST, stratified by class. MIT licence, © Zalando SE."
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=features,
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            license="MIT",
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split: str) -> Iterator:
        images, labels = read_official(self.source, PREFIXES[split])
        for index in stratified(labels, COUNTS[split], SEED):
            yield int(index), {"image": png(images[index]), "label": int(labels[index])}


def draw(source: Path, target: Path = HERE) -> Path:
    """Writes the dataset below `target` and returns its directory."""
    Builder.source = source
    with tempfile.TemporaryDirectory() as scratch:
        builder = Builder(data_dir=scratch, file_format="array_record")
        builder.download_and_prepare()
        directory = target / "fashion_mnist_12k" / "1.0.0"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(builder.data_path, directory)
    return directory


if __name__ == "__main__":
    print(draw(Path(sys.argv[1])))

"""tfds builders → Dataset, read as random-access sources without TensorFlow.

A prepared dataset is found and keyed without importing tfds at all, so that a warm start only maps the cache.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.config import DataConfig
from engine.data.cache import Decoded, cache_directory, cached, content_key
from engine.data.dataset import Dataset
from engine.data.images import fit_picture
from engine.errors import InputError, problem, shape_text, unknown

EMBEDDED = Path(__file__).parent / "embedded"
BATCH_EXAMPLES = 1024


def load_tfds(config: DataConfig, split: str, tell: Callable[[str], None], field: str = "data.split") -> Dataset:
    """One split of a tfds dataset, from the decoded cache where it was read before.

    `field` is what errors about the split name. Prepares the dataset first, in a process of its own which
    needs TensorFlow, if that was not done yet.
    """
    directory = _prepared_directory(config) or _prepare(config, tell)
    records = [path for path in directory.iterdir() if path.is_file()]
    key = content_key(records, split, config.image_size, config.resize, config.color)
    name = f"{config.name} {split}"
    plain = re.sub(r"[^\w.\-]+", "-", name).strip("-")
    entry = cache_directory(config.cache_dir) / "decoded" / f"{plain}-{key}"
    return cached(entry, name, lambda: _decode(directory, config, split, field), tell)


def data_directory(config: DataConfig) -> Path:
    """Where tfds keeps prepared data."""
    default = os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"
    return (config.data_dir or Path(default)).expanduser()


def known_names() -> list[str]:
    """The datasets that need no preparation and those that tfds can prepare."""
    import tensorflow_datasets as tfds

    embedded = [path.name for path in EMBEDDED.iterdir() if path.is_dir() and not path.name.startswith("_")]
    return sorted(embedded) + tfds.list_builders(with_community_datasets=False)


def _prepared_directory(config: DataConfig) -> Path | None:
    """The newest prepared version of a dataset, or the one named as `name:1.2.3`."""
    base, _, version = config.name.partition(":")
    for root in (EMBEDDED, data_directory(config)):
        found = [path.parent for path in (root / base).glob("*/dataset_info.json")]
        chosen = [path for path in found if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
        if version and root == EMBEDDED and chosen and version not in {path.name for path in chosen}:
            raise InputError(unknown("data.name", config.name, [f"{base}:{path.name}" for path in chosen]))
        if version:
            chosen = [path for path in chosen if path.name == version]
        if chosen:
            return max(chosen, key=lambda path: tuple(map(int, path.name.split("."))))
    return None


def _prepare(config: DataConfig, tell: Callable[[str], None]) -> Path:
    builder = _builder(config)
    directory = Path(builder.data_path)
    if (directory / "dataset_info.json").exists():
        return directory
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            problem(
                "data.name",
                f"{config.name!r}, which is not prepared in {data_directory(config)}",
                "prepared data, or TensorFlow to prepare it",
                "Run `pip install tensorflow-cpu` (or install the extra: engine-jax[prepare]) and start again; "
                "it is needed only this once.",
            )
        )
    tell(f"preparing {config.name} in {directory}, once")
    # A process of its own keeps TensorFlow, its threads and its grip on the GPU out of the training process.
    command = [sys.executable, "-m", "engine.data.prepare", config.name, str(data_directory(config))]
    command += [str(config.manual_dir.expanduser().resolve())] if config.manual_dir else []
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        remedy = "Give the directory that holds the downloaded files with --data.manual-dir, or connect and try again."
        raise InputError(problem("data.name", repr(config.name), f"data that can be prepared ({reason})", remedy))
    return directory


def _builder(config: DataConfig) -> Any:
    import tensorflow_datasets as tfds

    if config.manual_dir is not None and not config.manual_dir.expanduser().is_dir():
        raise InputError(problem("data.manual_dir", config.manual_dir, "an existing directory", "Correct the path."))
    try:
        return tfds.builder(config.name, data_dir=data_directory(config), file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        raise InputError(_unknown_dataset(config.name)) from None
    except (ValueError, AssertionError, ImportError) as error:  # an unknown version, configuration or namespace
        reason = str(error).splitlines()[0]
        raise InputError(problem("data.name", repr(config.name), reason, "Correct the version or config.")) from None


def _unknown_dataset(name: str) -> str:
    import difflib

    names = known_names()
    nearest = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or [
        "fashion_mnist_12k",
        "mnist",
        "cifar10",
    ]
    rule = f"fashion_mnist_12k (comes with the package) or one of the {len(names) - 1} builders of tfds"
    return problem("data.name", repr(name), rule, f"Did you mean {', '.join(nearest)}?")


def _decode(directory: Path, config: DataConfig, split: str, field: str) -> Decoded:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(directory)
    base_names = re.findall(r"(?:^|\+)\s*([^\[\]+]+)", split)
    for base in base_names:
        if base not in builder.info.splits and base != "all":
            raise InputError(unknown(field, base, builder.info.splits))
    try:
        source = builder.as_data_source(split=split)
        count = source.__len__()  # len() refuses the negative number of a slice that ends before it starts
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            problem(field, repr(split), f"tfds notation ({reason})", "Write it like train[:80%].")
        ) from None
    except NotImplementedError:
        raise InputError(
            problem(
                "data.data_dir",
                f"{config.name} in a format without random access",
                "ArrayRecord files",
                "Prepare it anew in another --data.data-dir.",
            )
        ) from None
    image_key, label_key = _feature_keys(builder.info.features, config.name)
    if count <= 0:
        raise InputError(problem(field, repr(split), "at least one example", "Widen the slice."))
    class_names = tuple(builder.info.features[label_key].names)
    first = _picture(source[0][image_key], config)
    batches = _batches(source, image_key, label_key, config, first.shape)
    return Decoded(count, first.shape, class_names, batches)


def _feature_keys(features: Any, name: str) -> tuple[str, str]:
    """The names of the image and the class label among a builder's features."""
    import tensorflow_datasets as tfds

    images = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, tfds.features.ClassLabel)]
    if not images or not labels:
        got = ", ".join(f"{key} ({type(kind).__name__})" for key, kind in features.items())
        rule = "an Image and a ClassLabel among its features"
        raise InputError(problem("data.name", f"{name!r} with {got}", rule, "Use an image-classification builder."))
    return images[0], "label" if "label" in labels else labels[0]


def _batches(
    source: Any, image_key: str, label_key: str, config: DataConfig, shape: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(source), BATCH_EXAMPLES):
        examples = source.__getitems__(list(range(start, min(start + BATCH_EXAMPLES, len(source)))))
        images = [_picture(example[image_key], config) for example in examples]
        for i, image in enumerate(images):
            if image.shape != shape:
                got, expected = shape_text(image.shape), f"{shape_text(shape)} like the first"
                remedy = "Set one size with --data.image-size, like 180x180."
                raise InputError(problem(f"{config.name} example {start + i}", got, expected, remedy))
        yield np.stack(images), np.array([example[label_key] for example in examples], np.int32)


def _picture(pixels: np.ndarray, config: DataConfig) -> np.ndarray:
    """uint8[h w c] in the size and colours of the config; the picture's own where it has none."""
    if pixels.dtype != np.uint8:
        got = f"{config.name!r} with {pixels.dtype} images"
        raise InputError(problem("data.name", got, "uint8 images", "Convert them, and use engine.fit on arrays."))
    if config.height_width is None and config.color is None:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    color = config.color or ("grayscale" if pixels.shape[-1] == 1 else "rgb")
    return fit_picture(image, color, config.height_width or pixels.shape[:2], config.resize)

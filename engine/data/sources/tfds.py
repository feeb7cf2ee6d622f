"""tfds builders → Dataset, read as random-access sources without TensorFlow.

A prepared dataset is found and keyed without importing tfds at all, so that a warm start only maps the cache.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engine.config.data import DataConfig
from engine.config.decoding import USUAL_COLORS
from engine.data.decoded.cache import Decoded, DecodedBatch, Findings, cached, content_key
from engine.data.decoded.dataset import Dataset
from engine.data.pictures.deep_ranges import Ranges
from engine.data.pictures.frames import SeveralFrames
from engine.data.pictures.images import decode_picture
from engine.data.sources.class_order import in_listed_order
from engine.data.sources.files import DECODER, pixel_settings
from engine.data.sources.source import Source
from engine.data.sources.tfds_features import no_foreign_features
from engine.data.sources.tfds_prepared import (
    FEATURES,
    check_descriptions,
    damage_as_errors,
    has_open_sizes,
    name_in,
    newest,
    split_names,
    versions_in,
)
from engine.errors import InputError, problem, shape_text, unknown
from engine.host.cores import num_cores
from engine.host.storage import cache_directory, expanded, names_like

PACKAGE, EMBEDDED = Path(__file__).parents[2], Path(__file__).parents[1] / "embedded"
BATCH_EXAMPLES, BATCH_BYTES = 1024, 32 * 2**20


class TfdsSource(Source):
    """A prepared tfds dataset: one of the package's own, of tfds's data directory, or at `config.path`.

    Opening it prepares the dataset, in a process of its own which needs TensorFlow, if that was not done yet.
    """

    def __init__(self, config: DataConfig, tell: Callable[[str], None]):
        self._config, self._tell = config, tell
        self.directory = _prepared_directory(config) or _prepare(config, tell)
        self.name = config.name if config.path is None else name_in(self.directory) or config.path.name

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it has, which tfds's notation slices and adds."""
        return split_names(self.directory)

    @property
    def has_open_sizes(self) -> bool:
        """Whether pictures are declared without a height or width of their own."""
        return has_open_sizes(self.directory)

    def load(self, split: str, field: str = "data.split") -> Dataset:
        """One split, from the decoded cache where it was read before; `field` is what errors about its name."""
        config = self._config
        records = [path for path in self.directory.iterdir() if path.is_file()]
        features = (config.image_feature, config.label_feature)
        settings = (DECODER, split, *pixel_settings(config), *features)
        name = f"{self.name} {split}"
        plain = re.sub(r"[^\w.\-]+", "-", name).strip("-")
        entry = cache_directory(config.cache_dir) / "decoded" / f"{plain}-{content_key(records, *settings)}"
        dataset = cached(entry, name, lambda: _decode(self.directory, config, split, field), self._tell)
        return in_listed_order(dataset, config.class_names, split != config.split, self._tell)


def data_directory(config: DataConfig) -> Path:
    """Where tfds keeps prepared data."""
    return expanded(config.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def known_names() -> list[str]:
    """The datasets that need no preparation and those that tfds can prepare."""
    import tensorflow_datasets as tfds

    embedded = [path.name for path in EMBEDDED.iterdir() if path.is_dir() and not path.name.startswith("_")]
    return sorted(embedded) + tfds.list_builders(with_community_datasets=False)


def _prepared_directory(config: DataConfig) -> Path | None:
    """The newest prepared version of a dataset, or the one named as `name:1.2.3`, or the one at `config.path`."""
    if config.path is not None:
        return newest(versions_in(expanded(config.path)))
    base, _, version = config.name.partition(":")
    for root in (EMBEDDED, data_directory(config)):
        chosen = [path for path in versions_in(root / base) if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
        if version and root == EMBEDDED and chosen and version not in {path.name for path in chosen}:
            raise InputError(unknown("data.name", config.name, [f"{base}:{path.name}" for path in chosen]))
        if version:
            chosen = [path for path in chosen if path.name == version]
        if chosen:
            return newest(chosen)
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
                "it is needed only this once. Or name data of your own with --data.path.",
            )
        )
    tell(f"preparing {config.name} in {directory}, once")
    # A process of its own keeps TensorFlow, its threads and its grip on the GPU out of the training process.
    # Nothing is imported from the working directory (-P), which may hold what was downloaded.
    command = [sys.executable, "-P", "-m", "engine.data.sources.tfds_prepare", config.name, str(data_directory(config))]
    command += [str(expanded(config.manual_dir).resolve())] if config.manual_dir else []
    ours = [] if PACKAGE.parent.name in ("site-packages", "dist-packages") else [str(PACKAGE.parent)]
    paths = [*ours, *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, errors="replace", check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        remedy = "Give the directory that holds the downloaded files with --data.manual-dir, or connect and try again."
        raise InputError(problem("data.name", repr(config.name), f"data that can be prepared ({reason})", remedy))
    return directory


def _builder(config: DataConfig) -> Any:
    import tensorflow_datasets as tfds

    if config.manual_dir is not None and not expanded(config.manual_dir).is_dir():
        raise InputError(problem("data.manual_dir", config.manual_dir, "an existing directory", "Correct the path."))
    try:
        with no_foreign_features(data_directory(config) / config.name.partition(":")[0]):
            return tfds.builder(config.name, data_dir=data_directory(config), file_format="array_record")
    except InputError:
        raise
    except tfds.core.DatasetNotFoundError:
        raise InputError(_unknown_dataset(config.name)) from None
    except (ValueError, AssertionError, ImportError) as error:  # an unknown version, configuration or namespace
        if re.split("[/:]", config.name)[0] not in known_names():  # or a name with blanks or the like
            raise InputError(_unknown_dataset(config.name)) from None
        reason = str(error).splitlines()[0]
        raise InputError(problem("data.name", repr(config.name), reason, "Correct the version or config.")) from None


def _unknown_dataset(name: str) -> str:
    import difflib

    names = known_names()
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.6) or [
        "fashion_mnist_12k",
        "mnist",
        "cifar10",
    ]
    rule = f"fashion_mnist_12k (comes with the package) or one of the {len(names) - 1} builders of tfds"
    own = [_written(path) for path in names_like(expanded(name))] if name else []
    if own:
        kinds = f"{own[0]} (data of your own: --data.path {own[0]}, or that path where a name or a path is taken)"
        remedy = (
            f"Did you mean {', or '.join([kinds, *own[1:]])}? Or the dataset {nearest[0]} (--data.name {nearest[0]})?"
        )
    else:
        own_data = f"Data of your own is given by its path: --data.path, in Python ./{name} or the like."
        remedy = f"Did you mean {', '.join(nearest)} (--data.name)? {own_data}"
    return problem("data.name", repr(name), rule, remedy)


def _written(path: Path) -> str:
    """A path in such a form that it is taken for one, even if what lies there is removed."""
    return shlex.quote(f"{path}/" if path.is_dir() else str(path))


def _decode(directory: Path, config: DataConfig, split: str, field: str) -> Decoded:
    with damage_as_errors(directory):
        return _opened(directory, config, split, field)


def _opened(directory: Path, config: DataConfig, split: str, field: str) -> Decoded:
    import tensorflow_datasets as tfds

    check_descriptions(directory)
    with no_foreign_features(directory / FEATURES):
        builder: Any = tfds.builder_from_directory(directory)
        known = list(builder.info.splits)
    base_names = re.findall(r"(?:^|\+)\s*([^\[\]+]+)", split)
    for base in base_names:
        if base not in known and base != "all":
            raise InputError(unknown(field, base, known))
    image_key, label_key = _feature_keys(builder.info.features, config)
    # Read as they are stored and decoded by us: on all cores, and with the same pixels as a file given to `predict`.
    decoders = {image_key: tfds.decode.SkipDecoding()}
    try:
        source = builder.as_data_source(split=split, decoders=decoders)
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
                "Prepare it again in another --data.data-dir.",
            )
        ) from None
    if count <= 0:
        raise InputError(problem(field, repr(split), "at least one example", "Widen the slice."))
    class_names = tuple(builder.info.features[label_key].names)
    ranges = Ranges(lambda: (source[i][image_key] for i in range(count)), config.decoding)
    seen, several = list[str](), SeveralFrames()
    decode = _decoder(builder.info.features[image_key], config, ranges, seen)
    first = decode(source[0][image_key])
    ranges.recount()
    seen.clear()
    findings = Findings()

    def batches() -> Iterator[DecodedBatch]:
        yield from _batches(source, image_key, label_key, directory, decode, first.shape)
        for kind in seen:
            several.add(kind, "")
        findings.notes, findings.levels = [*ranges.notes(), *several.notes(count)], ranges.untagged
        findings.several_frames = several.total

    return Decoded(count, first.shape, class_names, batches(), findings=findings)


def _feature_keys(features: Any, config: DataConfig) -> tuple[str, str]:
    """The names of the image and the class label among a builder's features."""
    import tensorflow_datasets as tfds

    def chosen(field: str, wanted: str | None, usual: str, kind: Any) -> str:
        fitting = [key for key, feature in features.items() if isinstance(feature, kind)]
        if wanted is not None and wanted not in fitting:
            raise InputError(unknown(field, wanted, fitting))
        if not fitting:
            got = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
            rule = "an Image and a ClassLabel among its features"
            raise InputError(
                problem("data.name", f"{config.name!r} with {got}", rule, "Use an image-classification builder.")
            )
        return wanted or (usual if usual in fitting else fitting[0])

    image_key = chosen("data.image_feature", config.image_feature, "image", tfds.features.Image)
    return image_key, chosen("data.label_feature", config.label_feature, "label", tfds.features.ClassLabel)


def _decoder(feature: Any, config: DataConfig, ranges: Ranges, several: list[str]) -> Callable[[bytes], np.ndarray]:
    """A function from a stored picture to uint8[h w c], in the size and colours of the config or in its own.

    several: gets the kind of each that holds several frames.
    """
    if np.dtype(feature.np_dtype).kind != "u":
        got = f"{config.name!r} with {np.dtype(feature.np_dtype)} images"
        raise InputError(problem("data.name", got, "uint8 images", "Convert them, and use engine.fit on arrays."))
    color = config.color or USUAL_COLORS.get(feature.shape[-1], "rgb")
    size, resize, background, how = config.height_width, config.resize, config.background, config.decoding
    return lambda stored: decode_picture(stored, color, size, resize, background, how, ranges, several)


def _batches(
    source: Any,
    image_key: str,
    label_key: str,
    directory: Path,
    decode: Callable[[bytes], np.ndarray],
    shape: tuple[int, ...],
) -> Iterator[DecodedBatch]:
    with ThreadPoolExecutor(num_cores()) as pool:
        size = max(1, min(BATCH_EXAMPLES, BATCH_BYTES // int(np.prod(shape))))
        for start in range(0, len(source), size):
            with damage_as_errors(directory):
                examples = source.__getitems__(list(range(start, min(start + size, len(source)))))
                images = list(pool.map(decode, (example[image_key] for example in examples)))
                labels = np.array([example[label_key] for example in examples], np.int32)
            for i, image in enumerate(images):
                if image.shape != shape:
                    got, expected = shape_text(image.shape), f"{shape_text(shape)} like the first"
                    where = f"{name_in(directory) or directory.name} example {start + i}"
                    remedy = "Set one size with --data.image-size, like 180x180."
                    raise InputError(problem(where, got, expected, remedy))
            yield DecodedBatch(np.stack(images), labels)

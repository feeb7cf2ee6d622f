"""What grows in benchmarks/scaling.py: each series' values, the work at each, and what one process does there.

Nets are so small that it is the engine that is measured, and not the products of a net: reading, shuffling, steps,
validation, saving, reports, scores by class.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from benchmarks.throughput import Training
from benchmarks.workloads import random_images, workload_of
from engine.config import PlanConfig, RunConfig, TrainConfig
from engine.config.data import DataConfig
from engine.data.arrays.stored import StoredImages
from engine.data.decoded.dataset import Dataset, Splits
from engine.data.load import load_splits
from engine.models import Dense, Flatten, GlobalAveragePool, Sequential
from engine.models.layer import Layer
from engine.report.progress import Silent
from engine.runs.loop import run

SIDE = 4  # pixels, of the images whose number grows
DRAWN = 2**22  # bytes that are drawn at random, again and again
PICTURES = 100  # different ones among any number of files
MOST_LINKS = 20_000  # of a file; ext4 allows 65,000


@dataclass(frozen=True)
class Series:
    """Something that grows: its values, the work at each up to a factor, and the seconds that a value takes.

    prepare: makes what a value needs in a directory, in a process of its own, which is not measured.
    """

    values: tuple[int, ...]
    work: Callable[[int], float]
    measure: Callable[[int, Path], float]
    prepare: Callable[[int, Path], object] = lambda value, directory: None


def _fit(splits: Splits, layer: Layer, train: TrainConfig, directory: Path, plan: PlanConfig | None = None) -> float:
    """Seconds of a whole run with its saving and report, and of the scores by class on what it validated on."""
    config = RunConfig("scaling", Sequential((layer, Dense())), train=train, plan=plan or PlanConfig())
    start = time.perf_counter()
    result = run(config, Path(tempfile.mkdtemp(dir=directory)) / "run", splits=splits, reporter=Silent())
    if splits.validation is not None:
        _ = result.classifier.class_scores(splits.validation).most_confused
    return time.perf_counter() - start


def _write_images(count: int, directory: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, DRAWN, dtype=np.uint8).tobytes()
    with (directory / "images.raw").open("wb") as file:
        for start in range(0, count * SIDE**2, DRAWN):
            file.write(drawn[: count * SIDE**2 - start])


def _stream_images(count: int, directory: Path) -> float:
    images = StoredImages(directory / "images.raw", (count, SIDE, SIDE, 1)).hold()
    data = Dataset(images, np.arange(count, dtype=np.int32) % 2, ("a", "b"), "stored", "stored")
    return _fit(Splits(data), Flatten(), TrainConfig(1, 250), directory, PlanConfig(placement="streamed"))


def _write_folder(count: int, directory: Path) -> None:
    """A folder of so many PNGs, links to a few, in 100 classes."""
    from PIL import Image

    drawn = np.random.default_rng(0).integers(0, 256, (PICTURES, 8, 8), dtype=np.uint8)
    for k in range(PICTURES):
        (directory / "data" / f"{k:02}").mkdir(parents=True)
    for first in range(0, count, PICTURES * MOST_LINKS):
        for k in range(PICTURES):
            Image.fromarray(drawn[k]).save(source := directory / f"{first}_{k}.png")
            for number in range(first + k, min(count, first + PICTURES * MOST_LINKS), PICTURES):
                (directory / "data" / f"{number // PICTURES % PICTURES:02}" / f"{number}.png").hardlink_to(source)
    _open_folder(count, directory)  # decoded once: what is measured is every start after the first


def _open_folder(count: int, directory: Path) -> float:
    start = time.perf_counter()
    splits = load_splits(DataConfig(path=directory / "data", cache_dir=directory / "cache"), 0, lambda text: None)
    assert splits.validation is not None
    assert len(splits.train) + len(splits.validation) == count
    return time.perf_counter() - start


def _train_classes(count: int, directory: Path) -> float:
    held = random_images(10_000, (8, 8, 1), count)
    return _fit(Splits(held, held), GlobalAveragePool(), TrainConfig(1), directory)


def _train_pixels(side: int, directory: Path) -> float:
    held = random_images(256, (side, side, 1), 2)
    return _fit(Splits(held, held), GlobalAveragePool(), TrainConfig(1), directory)


def _train_members(count: int, directory: Path) -> float:
    held = random_images(1_000, (8, 8, 1), 2)
    return _fit(Splits(held, held), Flatten(), TrainConfig(1, members=count), directory)


def _train_on_devices(count: int, directory: Path) -> float:
    """Each device brings as many images and as large a batch as the first: an epoch of the convnet, the best of 3."""
    workload = workload_of("convnet")
    config = replace(workload.config(), plan=PlanConfig(mesh=f"data={count}"))
    config = replace(config, train=replace(config.train, batch_size=workload.batch_size * count))
    training = Training(config, workload.images(2_000 * count))
    rates = [training.rate() for _ in range(4)]
    return 2_000 * count / max(rates[1:])


SERIES = {
    "images": Series((1_000, 10_000, 100_000, 1_000_000, 10_000_000), float, _stream_images, _write_images),
    "files": Series((1_000, 10_000, 100_000, 1_000_000), float, _open_folder, _write_folder),
    "classes": Series((2, 10, 100, 1_000, 10_000), float, _train_classes),
    "pixels": Series((8, 32, 128, 512), lambda side: float(side**2), _train_pixels),
    "members": Series((1, 10, 100, 1_000), float, _train_members),
    "devices": Series((1, 2, 4, 8), float, _train_on_devices),
}


def measure_point(name: str, value: int, directory: Path) -> dict[str, float]:
    """Of a value in this process: seconds, processor_seconds, and bytes: the most memory beyond what was there before.

    Seconds are those that the series counts; the processor's are of all that it does, its compiling among them.
    """
    jax.block_until_ready(jax.numpy.zeros(1))  # the backend's own memory is there before
    before, start = _peak_bytes(), time.process_time()
    seconds = SERIES[name].measure(value, directory)
    used = time.process_time() - start
    return {"seconds": seconds, "processor_seconds": used, "bytes": _peak_bytes() - before}


def _peak_bytes() -> int:
    """The most memory taken so far, of the device or, on a CPU, of the process."""
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats:
        return stats["peak_bytes_in_use"]
    # Not ru_maxrss, which starts at what the parent took when it forked.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024

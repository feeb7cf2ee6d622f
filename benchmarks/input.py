"""How fast do images get in? Cold decoding of a folder against tf.data and torch, the second start, and streaming.

    python -m benchmarks.input --checks-only      # what comparing images with their hashes takes
    python -m benchmarks.input          # peers that are not installed are left out; the extra `peers` has them

Decoding: a folder of JPEGs of 500×375, cut from photographs of scikit-image, to 180×180 uint8. Every variant is
a process of its own and the clock starts after its imports; the variants take turns. Ours decodes, hashes and writes
the cache; theirs only decode. tf.data is measured as its users call it (bilinear, four pixels read for one made) and
with `antialias=True`, which is what Pillow, and so torch's users and we, do.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from rich.console import Console

from benchmarks.measure import Measuring, interleaved, median_and_spread, ratio, show_circumstances, write_json
from benchmarks.throughput import Training
from benchmarks.workloads import random_images
from engine.config import PlanConfig
from engine.config.data import DataConfig
from engine.data.arrays.stored import StoredImages, image_hashes
from engine.data.decoded.dataset import Dataset
from engine.data.load import load_splits
from experiments import convnet, mlp

SIZE = (180, 180)
PEERS = {"tf.data": "tensorflow", "tf.data antialias": "tensorflow", "torch DataLoader": "torch"}


@dataclass(frozen=True)
class Options(Measuring):
    """How much to measure."""

    images: int = 10_000
    """JPEG files in the folder."""
    rounds: int = 5
    """Rounds in which the variants take turns."""
    steps: int = 1500
    """Steps of 64 images that the convnet trains, resident and streamed, in each round: three chunks of the stream."""
    checks_only: bool = False
    """Measure only what comparing images with their hashes takes while a run reads them."""


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = replace(options, images=8, rounds=1, steps=4)
    console = Console(highlight=False, soft_wrap=True)
    show_circumstances(console)
    if options.checks_only:
        with tempfile.TemporaryDirectory() as scratch:
            write_json(options.json, {"checks": measure_checks(options, Path(scratch), console)})
        return
    with tempfile.TemporaryDirectory() as scratch:
        decoding = measure_decoding(options, Path(scratch), console)
        placements = measure_placements(options, Path(scratch), console)
        checks = measure_checks(options, Path(scratch), console)
    found = {"images": options.images, "decoding": decoding, "placements": placements, "checks": checks}
    write_json(options.json, found)


def measure_decoding(options: Options, scratch: Path, console: Console) -> dict[str, list[float]]:
    """Images a second of each variant, and seconds of the second start."""
    folder = scratch / "photographs"
    write_photographs(folder, options.images)
    peers = {name: module for name, module in PEERS.items() if not options.smoke}
    missing = [name for name, module in peers.items() if importlib.util.find_spec(module) is None]
    for name in missing:
        console.print(f"{name}: left out, {PEERS[name]} is not installed")
    names = ["engine", *(name for name in peers if name not in missing)]
    rates = interleaved({name: lambda name=name: _in_process(name, folder) for name in names}, options.rounds)
    console.print(f"cold: {options.images:,} JPEGs of 500×375 to 180×180, medians of {options.rounds} rounds")
    for name, values in rates.items():
        median, spread = median_and_spread(values)
        middle, low, high = ratio(rates["engine"], values)
        against = "" if name == "engine" else f"; engine is {middle:.2f} times as fast ({low:.2f} to {high:.2f})"
        console.print(f"  {name}: {median:,.0f} images/s ±{spread:.0%}{against}")
    _in_process("engine", folder, keep=True)
    seconds = [_in_process("second start", folder) for _ in range(options.rounds)]
    median, spread = median_and_spread(seconds)
    console.print(f"second start: {median:.3f} s ±{spread:.0%} to find, check and map the {options.images:,} images")
    return {**rates, "second start": seconds}


def measure_placements(options: Options, scratch: Path, console: Console) -> dict[str, list[float]]:
    """The convnet's training rate with its images on the device and streamed from a file."""
    config, num = convnet.config(), options.steps * 64
    noise = random_images(num)
    path = scratch / "noise.raw"
    path.write_bytes(np.asarray(noise.images).tobytes())
    stored = Dataset(StoredImages(path, noise.images.shape), noise.labels, noise.class_names, "noise", "noise")
    plans = {"resident": PlanConfig(placement="resident"), "streamed": PlanConfig(placement="streamed")}
    trainings = {name: Training(replace(config, plan=plan), stored) for name, plan in plans.items()}
    rates = interleaved({name: training.rate for name, training in trainings.items()}, options.rounds)
    for training in trainings.values():
        training.session.close()
    for name, values in rates.items():
        median, spread = median_and_spread(values)
        console.print(f"convnet, {name}: {median:,.0f} images/s ±{spread:.0%}")
    middle, low, high = ratio(rates["streamed"], rates["resident"])
    console.print(f"streamed / resident: {middle:.3f} ({low:.3f} to {high:.3f})")
    return rates


def measure_checks(options: Options, scratch: Path, console: Console) -> dict[str, list[float]]:
    """The share of the processor's time in training that comparing streamed images with hashes takes, by model."""
    num, spent = options.steps * 64, [0.0]
    noise = random_images(num)
    images = np.asarray(noise.images)
    path = scratch / "checked.raw"
    path.write_bytes(images.tobytes())
    shares: dict[str, list[float]] = {}
    for name, config in {"mlp": mlp.config(), "convnet": convnet.config()}.items():
        stored = StoredImages(path, images.shape, hashes=image_hashes(images))
        data = Dataset(stored, noise.labels, noise.class_names, "noise", "noise")
        training = Training(replace(config, plan=PlanConfig(placement="streamed")), data)
        with unittest.mock.patch.object(StoredImages, "_check_some", _timed(StoredImages._check_some, spent)):
            shares[name] = [_share_of(spent, training) for _ in range(options.rounds)]
        training.session.close()
        median, spread = median_and_spread(shares[name])
        console.print(f"checks while reading, {name}: {median:.4%} of the processor's time ±{spread:.0%}")
    return shares


def _timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The function, whose processor time is added to `spent`."""

    def timed(*arguments: Any) -> Any:
        start = time.thread_time()
        try:
            return function(*arguments)
        finally:
            spent[0] += time.thread_time() - start

    return timed


def _share_of(spent: list[float], training: Training) -> float:
    """What was added to `spent` in an epoch, as a share of the process's time, which others' work does not lengthen."""
    before, start = spent[0], time.process_time()
    training.rate()
    return (spent[0] - before) / (time.process_time() - start)


def write_photographs(folder: Path, count: int) -> None:
    """JPEGs of 500×375 at quality 90: boxes of random size and place in four photographs, one class each."""
    from skimage import data

    draw = np.random.default_rng(0)
    for k, name in enumerate(("astronaut", "chelsea", "coffee", "rocket")):
        (folder / name).mkdir(parents=True)
        photograph = Image.fromarray(getattr(data, name)())
        for number in range(k, count, 4):
            height = int(min(photograph.height, photograph.width * 0.75) * draw.uniform(0.5, 0.95))
            width = int(height / 0.75)
            left, top = draw.integers(0, photograph.width - width + 1), draw.integers(0, photograph.height - height + 1)
            box = (left, top, left + width, top + height)
            cut = photograph.resize((500, 375), Image.Resampling.BICUBIC, tuple(map(float, box)))  # type: ignore[arg-type]
            cut.save(folder / name / f"{number:05d}.jpg", quality=90)


def decode_with_engine(folder: Path) -> float:
    """Images a second, decoded, hashed and written to the cache."""
    config = DataConfig(path=folder, image_size="180x180", cache_dir=folder.parent / "cache", test_split=None)
    start = time.perf_counter()
    splits = load_splits(config, 0, lambda text: None)
    assert splits.validation is not None
    return (len(splits.train) + len(splits.validation)) / (time.perf_counter() - start)


def second_start(folder: Path) -> float:
    """Seconds to have the splits of a folder that was decoded before."""
    config = DataConfig(path=folder, image_size="180x180", cache_dir=folder.parent / "cache", test_split=None)
    start = time.perf_counter()
    load_splits(config, 0, lambda text: None)
    return time.perf_counter() - start


def decode_with_tensorflow(folder: Path, antialias: bool = False) -> float:
    """Images a second of tf.data's parallel map, as in TensorFlow's guide."""
    import tensorflow as tf

    def decode(path: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        resized = tf.image.resize(image, SIZE, antialias=antialias)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    files = sorted(str(path) for path in folder.rglob("*.jpg"))
    start = time.perf_counter()
    data = tf.data.Dataset.from_tensor_slices(files).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    count = sum(len(batch) for batch in data.batch(32).prefetch(tf.data.AUTOTUNE))
    return count / (time.perf_counter() - start)


class TorchFolder:
    """The pictures of a folder as torch's users read them: Pillow, bilinear, RGB, uint8."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        import torch

        with Image.open(self.files[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR)))


def decode_with_torch(folder: Path) -> float:
    """Images a second of a DataLoader with two workers."""
    from torch.utils.data import DataLoader

    start = time.perf_counter()
    loader: Any = DataLoader(TorchFolder(folder), batch_size=32, num_workers=2)  # type: ignore[arg-type]
    return sum(len(batch) for batch in loader) / (time.perf_counter() - start)


VARIANTS: dict[str, Callable[[Path], float]] = {
    "engine": decode_with_engine,
    "second start": second_start,
    "tf.data": decode_with_tensorflow,
    "tf.data antialias": lambda folder: decode_with_tensorflow(folder, antialias=True),
    "torch DataLoader": decode_with_torch,
}


def _in_process(variant: str, folder: Path, keep: bool = False) -> float:
    """What a variant measures in a process of its own, with a cold cache unless it is the second start."""
    program = "import sys; from pathlib import Path; from benchmarks.input import VARIANTS\n"
    program += "print(VARIANTS[sys.argv[1]](Path(sys.argv[2])))"
    command = [sys.executable, "-c", program, variant, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    if variant == "engine" and not keep:
        shutil.rmtree(folder.parent / "cache")
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""Tests are stricter than users: warnings are errors (pyproject), silent rank promotion raises."""

import gc
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import engine
from engine.data.decoded.dataset import Dataset, Splits, fingerprint_of
from engine.devices.executables import COMPILER_OPTIONS
from engine.host.clock import Clock
from engine.models import Conv, Dense, Dropout, Flatten, MaxPool, Sequential
from engine.runs.session import Session
from tests import further, kept_compiler
from tests.kept_compiler import COMPILER

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_traceback_in_locations_limit", 0)  # in lowered programs, for which each call's stack is read


# Tests compile much and compute little. The old emitters, and one module in place of 32, take half the time.
QUICK_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
# What users have.
USUAL_OPTIONS: dict[str, str | bool] = {"xla_backend_optimization_level": "3"}
if jax.__version_info__ < (0, 11):  # later versions have one kind of emitters, and end the process at an unknown flag
    QUICK_FLAGS += " --xla_cpu_use_fusion_emitters=false"
    USUAL_OPTIONS["xla_cpu_use_fusion_emitters"] = True


def _compile_quickly() -> None:
    """Lets XLA optimize little in this process, but in none that it starts."""
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{QUICK_FLAGS} {before or ''}"
    jax.devices()  # which reads the flags
    if before is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = before


_compile_quickly()


def pytest_configure(config: pytest.Config) -> None:
    """Tells the tests, before they are read, whether those marked `long` run."""
    further.is_all = not config.option.markexpr


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Has the garbage collector pass over what stays to the end, and look less often, as traces make many objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


# After which a process that a test started is taken to hang. No measure of speed: the machine may be busy with others.
HANG_SECONDS = 1800.0

OFFICIAL_FILES = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist"


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of decoded images that all tests of a worker share, and no user's."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras on the JAX backend."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    found = pytest.importorskip("keras", reason="Keras comes with the dev extra")
    assert found.backend.backend() == "jax"
    return found


@pytest.fixture(scope="session")
def generator(keras: Any) -> Any:
    """The class ImageDataGenerator, which Keras 3 keeps where it is not documented."""
    return pytest.importorskip("keras.src.legacy.preprocessing.image").ImageDataGenerator


@pytest.fixture(scope="session", autouse=True)
def shared_programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lets the tests of all workers share what XLA compiled: many train the same tiny model."""
    shared = tmp_path_factory.getbasetemp().parent / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(shared))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="session", autouse=True)
def shared_kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets all tests, and the processes they start, share what the C++ compiler made, whatever cache they have."""
    kept = tmp_path_factory.getbasetemp().parent / "libraries"
    kept.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        if COMPILER and "CXX" not in os.environ:
            patch.setenv("CXX", shlex.join([sys.executable, str(Path(kept_compiler.__file__))]))
            patch.setenv("KEPT_LIBRARIES", str(kept))
        yield


@pytest.fixture
def optimized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles the engine's programs as users do: for tests of bits, which depend on it."""
    for name, value in USUAL_OPTIONS.items():
        monkeypatch.setitem(COMPILER_OPTIONS, name, value)


@pytest.fixture(autouse=True)
def own_cache(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps every test, and every process it starts, away from the user's caches."""
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(cache_dir))
    monkeypatch.setenv("TFDS_DATA_DIR", str(cache_dir / "tfds"))


@pytest.fixture(autouse=True)
def plain_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel in place of the diagrams of a run, which take as long as a tiny run; not in tests marked `pictures`."""
    if "pictures" not in request.keywords:
        for module, name in (
            ("runs.messages", "curves"),
            ("runs.messages", "predictions"),
            ("runs.messages", "confusion"),
            ("report.members", "reliability"),
        ):
            monkeypatch.setattr(f"engine.{module}.draw_{name}", _save_pixel)


def _save_pixel(*arguments: Any, **named: Any) -> None:
    """In place of whatever would be drawn, at the one path among the arguments."""
    (path,) = (argument for argument in arguments if isinstance(argument, Path))
    Image.new("L", (1, 1)).save(path)


@pytest.fixture
def official_files() -> Path:
    """The official Fashion-MNIST files; skips where they are not at hand."""
    if not OFFICIAL_FILES.is_dir():
        pytest.skip("needs the official Fashion-MNIST files beside the repository")
    return OFFICIAL_FILES


def make_dataset(num: int = 200, seed: int = 0, size: int = 8, num_classes: int = 3, name: str = "stripes") -> Dataset:
    """Images that a small net can learn: class k is brighter in column band k, under noise."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, num_classes, num).astype(np.int32)
    images = draw.integers(0, 120, (num, size, size, 1), dtype=np.uint8)
    width = size // num_classes
    for image, label in zip(images, labels, strict=True):
        image[:, label * width : (label + 1) * width] += 100
    return Dataset(images, labels, tuple(f"band {k}" for k in range(num_classes)), name, fingerprint_of(images, labels))


@pytest.fixture
def splits() -> Splits:
    """200 training examples (a padded last batch at 64), 50 for validation and 70 for test."""
    return Splits(make_dataset(200), make_dataset(50, 1, name="held out"), make_dataset(70, 2, name="test"))


def trained(config: engine.RunConfig, splits: Splits) -> Session:
    """The session after all epochs, with nothing written."""
    session = Session(config, splits, Clock(), Path("unused"))
    while not session.is_done:
        end = (session.epoch + 1) * session.steps_per_epoch
        while session.step < end:
            session.train_chunk()
        session.finish_epoch()
    session.close()
    return session


TINY = Sequential((Conv(4, 3, activation="relu"), MaxPool(2), Dropout(0.2), Flatten(), Dense()))


@pytest.fixture
def tiny_config() -> engine.RunConfig:
    """A run of two epochs on 64 examples a step that takes a second."""
    return engine.RunConfig("tiny", TINY, train=engine.TrainConfig(epochs=2, batch_size=64))


@pytest.fixture
def in_tmp(tmp_path: Path) -> Iterator[Path]:
    """The working directory moved to an empty one."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)

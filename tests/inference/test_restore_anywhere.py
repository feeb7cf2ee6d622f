"""A checkpoint opens from any place, in any number of devices' presence, and nothing is written where it lies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.checkpoints.packing import pack, unpack
from tests.conftest import HANG_SECONDS, QUICK_FLAGS

STORED = Path(__file__).parents[1] / "checkpoints"
NAMES = ("version_2", "version_2_ensemble")

ON_EIGHT_DEVICES = """
import sys
from pathlib import Path
import jax, numpy as np
import engine
from engine.host.clock import Clock
from engine.data.decoded.dataset import Splits
from engine.runs.loop import train
from engine.report.progress import Silent
from tests.conftest import TINY, make_dataset

assert jax.device_count() == 8
place, *runs = map(Path, sys.argv[1:])
images = np.load(place / "images.npy")
for number, run in enumerate(runs):
    np.save(place / f"outputs_{number}.npy", engine.restore(run).outputs(images))
config = engine.RunConfig("p", TINY, train=engine.TrainConfig(1, 64), plan=engine.PlanConfig(mesh="data=8"))
(place / "trained").mkdir()
train(config, Splits(make_dataset(), make_dataset(50, 1)), place / "trained", Clock(), Silent())
np.save(place / "trained.npy", engine.restore(place / "trained").outputs(images))
"""


@pytest.fixture(params=NAMES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The directory of a run, and beside it the same packed."""
    unpack(STORED / f"{request.param}.engine", tmp_path / "run")
    pack(tmp_path / "run", tmp_path / "run.engine")
    return tmp_path / "run"


IMAGES = np.load(STORED / "version_2.npz")["held_images"]


def traces(directory: Path) -> dict[str, tuple[int, int]]:
    """When each file and folder was last changed: a file that came and went changes its folder."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in [directory, *directory.rglob("*")]
    }


def test_opening_writes_nothing_where_the_run_lies(run):
    for path in (run, *run.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = traces(run.parent)
    for path in (run, run / "checkpoints", run.with_name("run.engine")):
        for step in ("best", "last", 3):
            engine.restore(path, step=step).outputs(IMAGES)
    assert traces(run.parent) == before
    for path in (run, *run.rglob("*")):
        path.chmod(0o755)  # or pytest cannot clear up


@pytest.mark.parametrize("name", ["with space", "größe", "a[b]", "{a}", "a*?", "a%20b", "a:b", "#a&b=c"])
def test_run_opens_from_a_path_of_any_name(tmp_path, name):
    unpack(STORED / "version_2.engine", tmp_path / "run")
    expected = engine.restore(tmp_path / "run").outputs(IMAGES)
    moved = tmp_path / name / "run"
    moved.parent.mkdir()
    shutil.move(tmp_path / "run", moved)
    np.testing.assert_array_equal(engine.restore(moved).outputs(IMAGES), expected)
    shutil.copy(STORED / "version_2.engine", moved.parent / f"{name}.engine")
    np.testing.assert_array_equal(engine.restore(moved.parent / f"{name}.engine").outputs(IMAGES), expected)


def test_run_opens_by_a_relative_path_and_through_a_link(run, monkeypatch):
    expected = engine.restore(run).outputs(IMAGES)
    monkeypatch.chdir(run)
    (run.parent / "link").symlink_to(run)
    for path in (".", "checkpoints", "../run.engine", "../link"):
        np.testing.assert_array_equal(engine.restore(path).outputs(IMAGES), expected)


def test_run_opens_on_another_number_of_devices_either_way(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    runs = [STORED / f"{name}.engine" for name in NAMES]
    flags = f"{QUICK_FLAGS} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_EIGHT_DEVICES, str(tmp_path), *map(str, runs)]
    done = subprocess.run(
        command,
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for number, run in enumerate(runs):
        theirs = np.load(tmp_path / f"outputs_{number}.npy")
        np.testing.assert_allclose(engine.restore(run).outputs(IMAGES), theirs, rtol=1e-5, atol=1e-6)
    # and what eight devices trained together opens here, on one
    classifier = engine.restore(tmp_path / "trained")
    assert classifier.record.plan.mesh == "data=8"
    np.testing.assert_allclose(classifier.outputs(IMAGES), np.load(tmp_path / "trained.npy"), rtol=1e-5, atol=1e-6)

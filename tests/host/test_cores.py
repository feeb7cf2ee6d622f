"""Cores: a run uses those that it is given, by its affinity and its cgroups, and has no more threads that compute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.host import cores

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
needs_two = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores, and a system that says which may be used")


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000"}, 1),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "900000 100000"}, 3),
        ("0::/../../a\n", {"a/cpu.max": "100000 50000"}, 2),
        ("0::/\n", {"unified/cpu.max": "100000 50000"}, 2),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("1:cpu:/gone\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        (
            "4:cpu,acct:/x\n0::/\n",
            {"cpu,acct/x/cpu.cfs_quota_us": "9", "cpu,acct/x/cpu.cfs_period_us": "3"},
            3,
        ),
        ("4:cpuset,memory:/\n", {"cpuset,memory/cpu.cfs_quota_us": "1", "cpuset,memory/cpu.cfs_period_us": "1"}, None),
        ("what\n0::/\n", {"cpu.max": "much"}, None),
    ],
)
def test_limit_is_that_of_the_tightest_cgroup(
    tmp_path: Path, membership: str, files: dict[str, str], limit: int | None
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "membership").write_text(membership)
    assert cores._limit_of_cgroups(tmp_path, tmp_path / "membership") == limit


def test_there_is_no_limit_without_cgroups(tmp_path: Path):
    assert cores._limit_of_cgroups(tmp_path, tmp_path / "none") is None


# Trains and predicts from files, then prints the cores counted, the threads of XLA's pool and the most that decoded.
PROGRAM = """
import json, os, sys
from pathlib import Path
if not sys.argv[1]:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
from engine.host import cores
if sys.argv[1]:
    cores.CGROUPS, cores.MEMBERSHIP = Path(sys.argv[1]), Path(sys.argv[1], "membership")
import engine, numpy as np
from PIL import Image
from engine.data.sources import files
images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
result = engine.fit(engine.mlp(()), (images, np.arange(64) % 2), epochs=1, verbose=False)
decoders, read = set(), files.ThreadPoolExecutor
class Pool(read):
    def submit(self, *work):
        decoders.add(self._max_workers)
        return super().submit(*work)
files.ThreadPoolExecutor = Pool
paths = [Path(sys.argv[2], f"{i}.png") for i in range(32)]
for path, image in zip(paths, images):
    Image.fromarray(image[..., 0]).save(path)
result.classifier.predict(paths)
names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
print(json.dumps([cores.num_cores(), sum("XLAEigen" in name for name in names), sorted(decoders)]))
"""


@needs_two
@pytest.mark.parametrize("limited_by", ["cgroup", pytest.param("affinity", marks=pytest.mark.long)])
def test_run_has_no_more_threads_than_it_is_given_cores(limited_by: str, tmp_path: Path):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "membership").write_text("0::/\n")
    environment = {name: value for name, value in os.environ.items() if name not in (*cores.XLA_VARIABLES, "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "" if limited_by == "affinity" else str(tmp_path), str(tmp_path)],
        env={**environment, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == [1, 1, [1]]

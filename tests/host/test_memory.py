"""What the C library does with memory that is freed."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.host import memory
from engine.host.memory import _of_library, give_back_freed_memory

FAULTS = """
import resource, threading
import numpy as np
from engine.host import memory

def faults_of_another_allocation():
    np.ones(2**24)  # 128 MB: 32,768 pages
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

found = []
if {is_kept}:
    memory.keep_freed_memory()
thread = threading.Thread(target=faults_of_another_allocation)  # XLA allocates in threads of its own
thread.start(), thread.join()
print(found[0])
"""


def count_faults(is_kept: bool) -> int:
    made = subprocess.run([sys.executable, "-c", FAULTS.format(is_kept=is_kept)], capture_output=True, check=True)
    return int(made.stdout)


@pytest.mark.skipif(not _of_library("mallopt"), reason="needs glibc")
def test_memory_that_is_freed_is_used_again_without_asking_the_system():
    assert count_faults(is_kept=False) > 60  # huge pages are 64
    assert count_faults(is_kept=True) < 50


LARGE = """
import re
from pathlib import Path
import numpy as np
from engine.host import memory

memory.keep_freed_memory()
values = np.ones(2**22)
middle = values.ctypes.data + values.nbytes // 2
regions = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M)[1:]
bounds = [[int(bound, 16) for bound in region.split()[0].split("-")] for region in regions]
around = [region for region, (first, end) in zip(regions, bounds) if first <= middle < end]
print(" hg" in around[0].split("VmFlags:")[1])
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists() or not _of_library("mallopt"),
    reason="needs Linux with huge pages, and glibc",
)
def test_large_arrays_lie_where_the_system_was_asked_for_large_pages():
    made = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, check=True, text=True)
    assert made.stdout == "True\n"


def test_giving_back_does_no_harm():
    give_back_freed_memory()


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "1000", "memory.current": "600", "memory.stat": "anon 5\nfile 100\n"}, 500),
        ({"memory.max": "max", "memory.current": "600", "memory.stat": "file 100\n"}, 2**62),
        (
            {
                "memory/memory.limit_in_bytes": "9000",
                "memory/memory.usage_in_bytes": "6000",
                "memory/memory.stat": "cache 7\ntotal_cache 1000\n",
            },
            4000,
        ),
        ({"memory.max": "many", "memory.current": "0", "memory.stat": "file 0\n"}, 2**62),
        ({}, 2**62),
    ],
)
def test_container_leaves_what_its_cgroup_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], left: int
):
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory._cgroup_bytes() == left

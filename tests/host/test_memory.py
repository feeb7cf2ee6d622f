"""What the C library does with memory that is freed."""

import subprocess
import sys

import pytest

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


def test_giving_back_does_no_harm():
    give_back_freed_memory()

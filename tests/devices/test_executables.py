"""Executables: compiled once, called by many threads at the same time."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.devices.executables import Executables
from engine.host.clock import Clock


def double(x):
    return 2 * x


@pytest.mark.parametrize("name", ["double", ("double", None, 3)])
def test_a_compiled_function_is_called_while_another_is_being_compiled(name):
    executables, x = Executables(Clock()), np.arange(3.0, dtype=np.float32)
    executables.call(name, double, x)
    with ThreadPoolExecutor(1) as pool, executables._lock:  # as held by a thread that compiles
        np.testing.assert_array_equal(pool.submit(executables.call, name, double, x).result(60), [0, 2, 4])


def test_names_of_one_task_are_counted_together():
    executables = Executables(Clock())
    for name, x in (("double", np.zeros(2)), (("double", 3), np.zeros(3)), (("other", 3), np.zeros(3))):
        executables.call(name, double, x.astype(np.float32))
        executables.call(name, double, x.astype(np.float32))
    assert (executables.num_compiled("double"), executables.num_compiled("other")) == (2, 1)

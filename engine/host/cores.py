"""How many cores this process may use: the one place that says so, for threads of Python, of XLA and of our kernels.

It imports nothing of the package: `hatch_build.py` reads it where nothing is installed.
"""

import functools
import math
import os
from pathlib import Path, PurePosixPath

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
XLA_VARIABLES = ("PJRT_NPROC", "NPROC")  # that XLA takes the number of its threads from; the first that is set counts

BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # the same of OpenBLAS


def num_cores() -> int:
    """The least of the cores that this thread may run on, the limits of its cgroups and $PJRT_NPROC; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [_limit_of_cgroups(CGROUPS, MEMBERSHIP), _number(os.environ.get(XLA_VARIABLES[0]))]
    return max(1, min([allowed, *(limit for limit in limits if limit)]))


@functools.cache
def limit_threads() -> None:
    """Lets XLA, whose threads our kernels share, and OpenBLAS start no more of them than there are cores.

    They know of `taskset` but not of cgroups. It has to be called before JAX's backend starts; OpenBLAS, of NumPy, has
    its threads from when it is imported. What XLA compiles with (at most 32 threads) has no setting, and follows
    `taskset` alone.
    """
    found = next((os.environ[name] for name in XLA_VARIABLES if name in os.environ), None)
    allowed = _number(found) or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0)
    if allowed > num_cores():
        os.environ[XLA_VARIABLES[0]] = str(num_cores())
        if not any(name in os.environ for name in BLAS_VARIABLES):
            os.environ[BLAS_VARIABLES[0]] = str(num_cores())


@functools.cache
def _limit_of_cgroups(root: Path, membership: Path) -> int | None:
    """The cores that the tightest of this process's cgroups allows, a part of one as a whole; None without a limit.

    As in Go, Java and .NET 1.5 cores are 2 threads: with one, a third of what is given would be left unused.
    """
    try:
        lines = membership.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    limits = []
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ("cpu", controllers) if controllers else ("", "unified")  # version 1, and version 2
        path = PurePosixPath(*(part for part in group.split("/") if part not in ("", "..")))
        limits += [_limit_of(root / mount / place) for mount in mounts for place in (path, *path.parents)]
    return min((limit for limit in limits if limit), default=None)


def _limit_of(directory: Path) -> int | None:
    """That of one cgroup: the time it gets in a period over that period, rounded up."""
    try:
        if (both := directory / "cpu.max").exists():
            quota, period = both.read_text(encoding="ascii").split()[:2]
        else:
            files = (directory / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            quota, period = (file.read_text(encoding="ascii") for file in files)
        return math.ceil(int(quota) / int(period)) if int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # the latter of "max"
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None

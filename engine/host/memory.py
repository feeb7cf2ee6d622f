"""Free memory of the host and of a device, and what the C library does with memory that is freed."""

import ctypes
import functools
import mmap
import os
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")
# Of glibc's mallopt. Largest block that stays with the process at the end of its memory; number of blocks that lie
# outside of it, as large ones usually do; number of such memories, where threads have their own.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
MOST_KEPT = 2**31 - 1
# Addresses that memory grows into, less than what is kept. Nothing of them is taken before it is used.
IN_LARGE_PAGES, LARGE_PAGE = 2**31 - 2**26, 2**21


def free_host_bytes() -> int:
    """Bytes that this process can still allocate: those available by the system, within the container's limit."""
    return max(0, min(_available_bytes(), _cgroup_bytes()))


def free_device_bytes() -> int:
    """Bytes free on the first device; on a CPU those of the host."""
    import jax  # not needed for host memory

    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return free_host_bytes()
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


@functools.cache
def keep_freed_memory() -> None:
    """Lets the process keep memory that is freed for what is allocated next, where its C library is glibc.

    XLA allocates the intermediate arrays of each call again, by default from the system, which clears every page: of a
    training step of MobileNetV2 that took a third of the time. It has to be called before XLA's threads start.

    The first 2 GB come in pages of 2 MB where Linux has them: a core reads and writes arrays half as fast again as in
    pages of 4 KB.
    """
    if mallopt := _of_library("mallopt"):
        for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, MOST_KEPT)):
            mallopt(option, value)
        _ask_for_large_pages()


def _ask_for_large_pages() -> None:
    """Asks for them where the process's memory will grow; what asks too much of the system is left out."""
    allocate, free, advise = map(_of_library, ("malloc", "free", "madvise"))
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or not allocate or not free or not advise:
        return
    allocate.restype, allocate.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    free.argtypes, advise.argtypes = (ctypes.c_void_p,), (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if start := allocate(IN_LARGE_PAGES):
        first = -(-start // LARGE_PAGE) * LARGE_PAGE
        advise(first, IN_LARGE_PAGES - LARGE_PAGE, advice)  # its failure changes nothing
        free(start)  # it stays with the process as the end of its memory


def give_back_freed_memory() -> None:
    """Returns to the system what is free in the process."""
    if trim := _of_library("malloc_trim"):
        trim(0)


def _of_library(function: str) -> Any:
    """A function of glibc, or None: other C libraries have none that does the same."""
    try:
        library = ctypes.CDLL(None)
        return getattr(library, function) if hasattr(library, "gnu_get_libc_version") else None
    except (OSError, AttributeError, TypeError):  # the last on Windows
        return None


def _available_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30


def _cgroup_bytes() -> int:
    """Bytes left below the container's limit, or more than any machine has."""
    versions = (  # of cgroups: 2, then 1
        (CGROUP, "memory.max", "memory.current", "file"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
    )
    return min(_bytes_below(*version) for version in versions)


def _bytes_below(directory: Path, limit: str, used: str, cached: str) -> int:
    """What one cgroup leaves, with what it has cached of files: by its files that say so, and a line of its counts."""
    try:
        most, taken = ((directory / name).read_text(encoding="ascii").strip() for name in (limit, used))
        counts = dict(line.split() for line in (directory / "memory.stat").read_text(encoding="ascii").splitlines())
        return int(most) - int(taken) + int(counts[cached]) if most != "max" else 2**62
    except (OSError, ValueError, KeyError):
        return 2**62

"""Free memory of the host and of a device."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


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
    """Bytes left below the container's limit (cgroup version 2), or more than any machine has."""
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        cached = next(
            int(line.split()[1])
            for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
            if line.startswith("file ")
        )
        return int(limit) - used + cached if limit != "max" else 2**62
    except (OSError, ValueError, StopIteration):
        return 2**62

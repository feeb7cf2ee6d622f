"""Versions and device of a run, for its record and for quoted figures."""

import functools
import platform
from importlib import metadata

import jax

from engine.host.cores import num_cores

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, of this package and of those that affect results."""
    from engine import __version__

    return {
        "python": platform.python_version(),
        "engine-jax": __version__,
        **{name: metadata.version(name) for name in PACKAGES},
    }


def device_text() -> str:
    """`cpu: AMD EPYC, 2 cores` or the kind and number of accelerators."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.platform}: {jax.device_count()} × {device.device_kind}"
    return f"cpu: {_processor()}, {num_cores()} cores"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()

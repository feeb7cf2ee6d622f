"""What this processor computes, the levels of processors that libraries are shipped for, and the compiler's options.

It imports nothing of the package: `hatch_build.py` reads the levels where nothing is installed.
"""

import platform
import sys
from pathlib import Path
from typing import NamedTuple

FLAGS = ("-O3", "-ffp-contract=fast", "-std=c++17", "-fPIC", "-shared")


class Level(NamedTuple):
    """A kind of processor: its machine, the compiler's options for it, and what it must have, in Linux's words."""

    machine: str
    options: tuple[str, ...]
    needs: frozenset[str]


_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS = {
    "x86-64-v4": Level("x86_64", ("-march=x86-64-v4", "-mprefer-vector-width=512"), _V4),
    "x86-64-v3": Level("x86_64", ("-march=x86-64-v3",), _V3),
    "aarch64": Level("aarch64", ("-march=armv8-a",), frozenset({"asimd"})),
}
"""The best first. The levels of x86-64 are those of its psABI."""


def find_parts(source: Path) -> list[Path]:
    """The files of a library: `name.cc` and each `name_….cc` beside it, which can be compiled side by side."""
    return [source, *sorted(source.parent.glob(f"{source.stem}_*.cc"))]


def find_sources(directory: Path) -> list[Path]:
    """The sources of libraries anywhere in a directory, which are not a part of another one's."""
    paths = sorted(directory.rglob("*.cc"))
    parts = {part for path in paths for part in find_parts(path)[1:]}
    return [path for path in paths if path not in parts]


def instructions() -> bytes:
    """The instruction sets of this processor, as far as the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return next(line for line in lines if line.startswith((b"flags", b"Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}".encode()


def find_level() -> str | None:
    """The best level that this processor has; None if it has none, or the system is not Linux."""
    if sys.platform != "linux":
        return None
    machine, has = platform.machine(), set(instructions().decode("ascii", "replace").split())
    return next((name for name, level in LEVELS.items() if machine == level.machine and level.needs <= has), None)

"""Our own code for the CPU, in `cpu/`: compiled for this processor when first asked for, and kept in the cache.

Nothing depends on it but time: without a C++ compiler there is no library, and its callers have another way.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from engine.data.cache import cache_directory

SOURCES = Path(__file__).parent / "cpu"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-fPIC", "-shared")
MOST_SECONDS = 120  # that compiling may take


def library(name: str, include_directory: str = "") -> ctypes.CDLL | None:
    """The library of `cpu/<name>.cc`, compiled or from the cache; None where it cannot be had, until the next process.

    include_directory: of other headers, those of jaxlib.
    """
    if not hasattr(os, "getuid"):  # on Windows
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):  # the last of quotes in $CXX
        compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(None, map(shutil.which, COMPILERS)), "")]
        file = _own_directory() / f"{name}-{_key(compiler)}.so"
        if file.exists():
            with contextlib.suppress(OSError):  # damaged
                return ctypes.CDLL(str(file))
        _compile(compiler, SOURCES / f"{name}.cc", include_directory, file)
        return ctypes.CDLL(str(file))
    return None


def _own_directory() -> Path:
    """Where libraries are kept that this user may load: nobody else may have written there, for they are code."""
    directory = cache_directory() / f"native-{os.getuid()}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{directory} can be written by others")
    if os.statvfs(directory).f_flag & getattr(os, "ST_NOEXEC", 0):  # else each process would compile in vain
        raise PermissionError(f"nothing in {directory} can be executed")
    return directory


def _key(compiler: list[str]) -> str:
    """Of all that decides what is compiled: a cache may be shared by machines of several kinds."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, timeout=MOST_SECONDS).stdout
    parts = (
        *(file.read_bytes() for file in sorted(SOURCES.iterdir()) if file.suffix in (".cc", ".h")),
        version,
        " ".join(FLAGS).encode(),
        _instructions(),
        metadata.version("jaxlib").encode(),
    )
    return hashlib.blake2b(b"\0".join(parts), digest_size=10).hexdigest()


def _instructions() -> bytes:
    """What this processor can do, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return next(line for line in lines if line.startswith((b"flags", b"Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}".encode()


def _compile(compiler: list[str], source: Path, include_directory: str, file: Path) -> None:
    """Compiles beside the place and renames: another process, or one after a crash, sees all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        made = Path(scratch) / file.name
        include = [f"-I{include_directory}"] if include_directory else []
        command = [*compiler, *FLAGS, *include, str(source), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=MOST_SECONDS)
        with made.open("rb") as written:
            os.fsync(written.fileno())
        made.replace(file)

"""Our own C++ for the CPU, compiled for this processor on first use and cached.

Only speed depends on it: without a C++ compiler there is no library, and callers use a fallback.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from engine.host.code_cache import CAN_CHECK, find_code_directory

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-fPIC", "-shared")
MOST_SECONDS = 120  # time limit of a compilation
# Other environment variables from which compilers and their wrapper scripts take options and files.
VARIABLES = (
    "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "COMPILER_PATH",
    "GCC_EXEC_PREFIX", "CCC_OVERRIDE_OPTIONS", "SDKROOT", "MACOSX_DEPLOYMENT_TARGET", "CONDA_BUILD_SYSROOT",
    "NIX_CFLAGS_COMPILE", "NIX_LDFLAGS",
)  # fmt: skip


def library(source: Path, include_directory: str = "") -> ctypes.CDLL | None:
    """The library of a C++ source, compiled or from the cache; None, for the rest of the process, if that fails.

    source: its file; the headers that it includes are in the same directory.
    include_directory: of other headers, those of jaxlib.
    """
    if not CAN_CHECK:  # on Windows
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):  # the last of quotes in $CXX
        compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(None, map(shutil.which, COMPILERS)), "")]
        file = f"{source.stem}-{_key(source, compiler, include_directory)}.so"
        directory = find_code_directory(f"native-{os.geteuid()}", is_executed=True)
        if directory is None:
            return None
        with directory:
            found = directory.load(file)
            if found is None:
                with directory.scratch() as scratch:
                    made = _compile(compiler, source, include_directory, scratch)
                directory.write(file, made)
                found = directory.load(file)
            return found
    return None


def _key(source: Path, compiler: list[str], include_directory: str = "") -> str:
    """Hash of everything that affects the binary; the cache may be shared by different machines."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, timeout=MOST_SECONDS).stdout
    headers = Path(include_directory).rglob("*.h") if include_directory else ()
    sources = [source, *sorted(source.parent.glob("*.h")), *sorted(headers)]
    settings = (compiler, FLAGS, [(name, os.environ.get(name)) for name in VARIABLES], metadata.version("jaxlib"))
    parts = (repr(settings).encode(), version, _program(compiler[0]), instructions(), *map(Path.read_bytes, sources))
    digest = hashlib.blake2b(digest_size=10)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _program(name: str) -> bytes:
    """The path, size and time of a compiler: two of the same version may differ."""
    path = os.path.realpath(shutil.which(name) or name)
    status = os.stat(path)
    return repr((path, status.st_size, status.st_mtime_ns)).encode()


def instructions() -> bytes:
    """The instruction sets of this processor, as far as the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return next(line for line in lines if line.startswith((b"flags", b"Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}".encode()


def _compile(compiler: list[str], source: Path, include_directory: str, scratch: Path) -> bytes:
    """The compiled library of a source. The compiler writes to `scratch` only, also if it is killed."""
    made = scratch / "library.so"
    include = [f"-I{include_directory}"] if include_directory else []
    command = [*compiler, *FLAGS, *include, str(source), "-o", str(made)]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    subprocess.run(command, check=True, capture_output=True, timeout=MOST_SECONDS, env=environment)
    return made.read_bytes()

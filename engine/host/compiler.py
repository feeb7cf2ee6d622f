"""Our own C++ for the CPU, compiled for this processor and cached."""

import contextlib
import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import weakref
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.host.code_cache import CAN_CHECK, CodeDirectory, find_code_directory
from engine.host.processor import FLAGS, find_parts, instructions

COMPILERS = ("c++", "g++", "clang++")
NATIVE = ("-march=native",)
MOST_SECONDS = 600  # time limit of a compilation: beside fifteen other busy processes on two cores 120 were too few
# Other environment variables from which compilers and their wrapper scripts take options and files.
VARIABLES = (
    "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "COMPILER_PATH",
    "GCC_EXEC_PREFIX", "CCC_OVERRIDE_OPTIONS", "SDKROOT", "MACOSX_DEPLOYMENT_TARGET", "CONDA_BUILD_SYSROOT",
    "NIX_CFLAGS_COMPILE", "NIX_LDFLAGS",
)  # fmt: skip
_SILENT: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
FAILURES = (OSError, subprocess.SubprocessError, ValueError)  # the last of quotes in $CXX


def find_compiler() -> list[str] | None:
    """The command of the C++ compiler: $CXX, or the first of COMPILERS; None if there is none that answers."""
    if not CAN_CHECK:  # on Windows
        return None
    with contextlib.suppress(*FAILURES):
        compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(None, map(shutil.which, COMPILERS)), "")]
        _program(compiler[0])
        _version(tuple(compiler))
        return compiler
    return None


class Compilation:
    """A library for this processor: from the cache, or in the making, by other processes, since this was created.

    source: its file; others of it, and the headers that they include, are in the same directory.
    include_directory: of other headers, those of jaxlib.
    failure: why there is no library, if `finish` returns None.
    """

    failure = "cannot be compiled"

    def __init__(self, compiler: list[str], source: Path, include_directory: str = ""):
        self._found: ctypes.CDLL | None = None
        self._running: tuple[list[subprocess.Popen[Any]], CodeDirectory, Path] | None = None
        self._stop: weakref.finalize | None = None
        self._compiler = compiler
        with contextlib.suppress(*FAILURES):
            self._file = f"{source.stem}-{_key(source, compiler, include_directory)}.so"
            directory = find_code_directory(f"native-{os.geteuid()}", is_executed=True)
            self._found = directory.load(self._file) if directory else None
            if directory and self._found is None:
                self._begin(source, include_directory, directory)

    @property
    def is_running(self) -> bool:
        """Whether it has yet to be waited for."""
        return self._running is not None

    def finish(self) -> ctypes.CDLL | None:
        """The library, loaded until the process ends; None if it cannot be compiled or kept."""
        if self._running and self._stop:
            processes, directory, scratch = self._running
            try:
                if not any(process.wait(MOST_SECONDS) for process in processes):
                    made = _link(self._compiler, scratch)
                    directory.write(self._file, made.read_bytes())
                    self._found = directory.load(self._file)
            except subprocess.TimeoutExpired:
                self.failure = f"took more than {MOST_SECONDS} s to compile; the next process tries again"
            except FAILURES:
                pass
            self._running = None
            self._stop()
        return self._found

    def _begin(self, source: Path, include_directory: str, directory: CodeDirectory) -> None:
        stack, processes = contextlib.ExitStack(), list[subprocess.Popen[Any]]()
        self._stop = weakref.finalize(self, _stop, processes, stack)  # also where the interpreter ends earlier
        stack.enter_context(directory)
        scratch = stack.enter_context(directory.scratch())
        for part in find_parts(source):
            processes.append(_compile(self._compiler, part, include_directory, scratch))
        self._running = processes, directory, scratch


def _key(source: Path, compiler: list[str], include_directory: str = "") -> str:
    """Hash of everything that affects the binary; the cache may be shared by different machines."""
    headers = Path(include_directory).rglob("*.h") if include_directory else ()
    sources = [*find_parts(source), *sorted(source.parent.glob("*.h")), *sorted(headers)]
    settings = (
        compiler,
        FLAGS,
        NATIVE,
        [(name, os.environ.get(name)) for name in VARIABLES],
        metadata.version("jaxlib"),
    )
    of_compiler = _version(tuple(compiler)), _program(compiler[0])
    parts = (repr(settings).encode(), *of_compiler, instructions(), *map(Path.read_bytes, sources))
    digest = hashlib.blake2b(digest_size=10)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


@functools.cache
def _version(compiler: tuple[str, ...]) -> bytes:
    return subprocess.run([*compiler, "--version"], check=True, capture_output=True, timeout=MOST_SECONDS).stdout


def _program(name: str) -> bytes:
    """The path, size and time of a compiler: two of the same version may differ."""
    path = os.path.realpath(shutil.which(name) or name)
    status = os.stat(path)
    return repr((path, status.st_size, status.st_mtime_ns)).encode()


def _compile(compiler: list[str], part: Path, include_directory: str, scratch: Path) -> "subprocess.Popen[Any]":
    """The process that compiles a file of a library. It writes to `scratch` only, also if it is killed."""
    include = [f"-I{include_directory}"] if include_directory else []
    command = [*compiler, *FLAGS, *NATIVE, *include, "-c", str(part), "-o", str(scratch / f"{part.stem}.o")]
    return subprocess.Popen(command, env=_environment(scratch), process_group=0, **_SILENT)


def _link(compiler: list[str], scratch: Path) -> Path:
    """The library of what was compiled."""
    made = scratch / "library.so"
    command = [*compiler, *FLAGS, *NATIVE, *map(str, sorted(scratch.glob("*.o"))), "-o", str(made)]
    subprocess.run(command, env=_environment(scratch), check=True, timeout=MOST_SECONDS, **_SILENT)
    return made


def _environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch)}


def _stop(processes: "list[subprocess.Popen[Any]]", stack: contextlib.ExitStack) -> None:
    """Ends compilers that are still running, with the processes that they started, and removes what they wrote."""
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    stack.close()

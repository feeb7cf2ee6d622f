"""Libraries of our own C++: as the package ships them for processors like this one, or compiled for it.

Only speed depends on them: without a library, callers use a fallback.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from threading import RLock

from engine.errors import InputError, problem
from engine.host.compiler import COMPILERS, Compilation, find_compiler
from engine.host.console import tell
from engine.host.processor import find_level

VARIABLE = "ENGINE_KERNELS"


class Library:
    """The library of one C++ source. Nothing is looked for, loaded or compiled until a method is called.

    purpose: what it is for, in a message. accepts: called with what was loaded, returns whether it can be used.
    include_directory: of headers beside the source's own.
    """

    def __init__(
        self,
        source: Path,
        purpose: str,
        accepts: Callable[[ctypes.CDLL], bool] = lambda library: True,
        include_directory: Callable[[], str] = str,
    ):
        self._source, self._purpose, self._accepts, self._include = source, purpose, accepts, include_directory
        self._lock = RLock()
        self._compilation: Compilation | None = None
        self._loaded: ctypes.CDLL | None = None
        self._is_known = self._is_refused = False

    def is_available(self) -> bool:
        """Whether there is one to load, or a compiler to make it; does neither."""
        with self._lock:
            if self._is_known:
                return self._loaded is not None
            return self._shipped() is not None or self._compilation is not None or find_compiler() is not None

    def begin(self) -> None:
        """Begins to compile it, in a process beside this one, if it will be needed and must be compiled."""
        with self._lock:
            if not self._is_known and self._shipped() is None:
                self._begin()
                if self._compilation is None:
                    self.load()  # in vain, which is reported

    def load(self) -> ctypes.CDLL | None:
        """The library, loaded until the process ends; None, which is reported once, if there is none."""
        with self._lock:  # of several threads one compiles, and the others wait
            if not self._is_known:
                self._loaded = self._load_shipped() or self._load_compiled()
                self._is_known = True
                if self._loaded is None:
                    tell(f"slower here: {self._purpose}, without our C++ code, which {self._reason()}")
            return self._loaded

    def _shipped(self) -> Path | None:
        """The file that the package has for this processor."""
        level = None if compiles_always() else find_level()
        file = shipped_file(self._source, level) if level else None
        return file if file and file.is_file() else None

    def _load_shipped(self) -> ctypes.CDLL | None:
        file = self._shipped()
        if file is None:
            return None
        try:
            library = ctypes.CDLL(str(file))
        except OSError:  # as of an older C library
            return None
        self._is_refused = not self._accepts(library)
        return None if self._is_refused else library

    def _load_compiled(self) -> ctypes.CDLL | None:
        self._begin()
        library = self._compilation.finish() if self._compilation else None
        return library if library and self._accepts(library) else None

    def _begin(self) -> None:
        compiler = None if self._compilation else find_compiler()
        if compiler is not None:
            self._compilation = Compilation(compiler, self._source, self._include())
            if self._compilation.is_running:
                tell(
                    f"compiling our C++ code for {self._purpose} with {compiler[0]}: once on this machine, some seconds"
                )

    def _reason(self) -> str:
        if self._compilation:
            return self._compilation.failure
        if self._is_refused:
            return f"was built for a newer jaxlib: update jaxlib, or install a C++ compiler ({', '.join(COMPILERS)})"
        return "needs a C++ compiler (c++, g++ or clang++) here"


def shipped_file(source: Path, level: str) -> Path:
    """Where a package has the library of a source for a level of processors."""
    return source.with_name(f"{source.stem}-{level}.so")


def compiles_always() -> bool:
    """Whether shipped libraries are left aside for ones compiled for exactly this processor."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen not in ("", "native"):
        rule = "native, to compile for exactly this processor, or nothing"
        raise InputError(problem(VARIABLE, repr(chosen), rule, f"Unset {VARIABLE}."))
    return chosen == "native"

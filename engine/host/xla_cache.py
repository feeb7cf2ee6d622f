"""What XLA compiled, kept from one process to the next under the rule of all code in caches, see `code_cache`.

JAX's own cache reads whatever lies in its directory. It takes another in its place through one function, which is none
of its public ones; where that is gone, programs are not kept.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface

from engine.host.code_cache import CodeDirectory, find_code_directory, say_once
from engine.host.compiler import instructions


class CheckedCache(CacheInterface):
    """JAX's compiled programs in a directory of code. They are this processor's, which JAX leaves out of its keys."""

    def __init__(self, directory: CodeDirectory):
        self._path, self._directory = directory.path, directory
        self._processor = hashlib.blake2b(instructions(), digest_size=6).hexdigest()

    def get(self, key: str) -> Any:  # bytes | None, but JAX's interface declares no type
        """The program of a key; None if there is none that can be trusted."""
        return self._directory.read(self._name(key))

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program."""
        try:
            self._directory.write(self._name(key), value)
        except OSError as error:
            say_once(f"compiled programs cannot be kept in {self._path} ({error.strerror})")

    def _name(self, key: str) -> str:
        return f"{key}-{self._processor}-cache"


def keep_programs(cache_dir: Path | None = None) -> None:
    """Lets this process keep what XLA compiles, and take what is there; not where that cannot be done safely."""
    directory = find_code_directory("xla", cache_dir) if hasattr(compilation_cache, "get_file_cache") else None
    jax.config.update("jax_compilation_cache_dir", None if directory is None else str(directory.path))
    # XLA writes and reads these files itself, and asks for nobody's name.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if directory is not None:
        opened: Any = directory
        compilation_cache.reset_cache()
        compilation_cache.get_file_cache = lambda path: (CheckedCache(opened), path)

"""XLA's compiled programs, cached across processes under the rule for all cached code, see `code_cache`.

JAX's own cache reads anything in its directory. One function of JAX, not a public one, replaces that cache; if a
version of JAX lacks it, programs are not cached.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface

from engine.host.code_cache import CodeDirectory, find_code_directory, say_once
from engine.host.processor import instructions

LEAST_SECONDS = 0.1  # of a compilation whose program is kept


class CheckedCache(CacheInterface):
    """JAX's compiled programs in a directory of code. Keys include the processor, which JAX leaves out."""

    def __init__(self, directory: CodeDirectory):
        self._path, self._directory = directory.path, directory
        self._processor = hashlib.blake2b(instructions(), digest_size=6).hexdigest()

    def get(self, key: str) -> Any:  # bytes | None, but JAX's interface declares no type
        """The program of a key; None if there is no trusted one."""
        return self._directory.read(self._name(key))

    def put(self, key: str, value: bytes) -> None:
        """Stores a program."""
        try:
            self._directory.write(self._name(key), value)
        except OSError as error:
            say_once(f"compiled programs cannot be kept in {self._path} ({error.strerror})")

    def _name(self, key: str) -> str:
        return f"{key}-{self._processor}-cache"


def keep_programs(cache_dir: Path | None = None) -> None:
    """Lets this process store and reuse what XLA compiles; does nothing if that is not safe."""
    directory = find_code_directory("xla", cache_dir) if hasattr(compilation_cache, "get_file_cache") else None
    jax.config.update("jax_compilation_cache_dir", None if directory is None else str(directory.path))
    # XLA writes and reads these files itself, without checking their owner.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if directory is not None:
        opened: Any = directory
        compilation_cache.reset_cache()
        compilation_cache.get_file_cache = lambda path: (CheckedCache(opened), path)


def keep_programs_unless_set(cache_dir: Path | None = None) -> None:
    """The same in a program of a user's own, unless it has set a place where JAX keeps programs, or none."""
    is_set = jax.config.values["jax_compilation_cache_dir"] is not None
    if not is_set and jax.config.values["jax_enable_compilation_cache"]:
        keep_programs(cache_dir)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)

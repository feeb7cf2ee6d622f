"""Functions compiled ahead of time, shared by the runs of a process."""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.capacity import check_call_fits, memory_errors
from engine.clock import Clock
from engine.convolution import compiler_options
from engine.precision import computes

MOST_SHARED = 64  # programs
_COMPILED: dict[Hashable, Any] = {}  # the last used comes last
_COMPILED_LOCK = Lock()


class Executables:
    """Functions compiled ahead of time, each once, under a name; they refuse arguments of any other shape.

    of: all that the functions depend on beyond their names and arguments. What was compiled of an equal one serves the
    whole process: a run that is gone on with, another seed, the next fold. None: nothing is shared.
    """

    def __init__(self, clock: Clock, is_deterministic: bool = False, of: Hashable = None):
        self.clock, self._options, self._of = clock, compiler_options(is_deterministic), of
        self._compiled: dict[str, Callable[..., Any]] = {}
        self._lock = Lock()

    @computes
    def call(self, name: str, function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
        """The function's result, by the executable of that name."""
        with self._lock:  # threads may ask one classifier at a time
            if name not in self._compiled:
                with self.clock.measure("compile"), memory_errors(name):
                    compiled = self._shared(name, function, arguments, donate)
                check_call_fits(name, compiled)
                self._compiled[name] = compiled
        with memory_errors(name):
            return self._compiled[name](*arguments)

    def _shared(self, name: str, function: Callable[..., Any], arguments: tuple, donate: tuple[int, ...]) -> Any:
        settings = (*(self._options or {}).items(), *jax.config.values.items())  # JAX's own change programs too
        kinds = (jax.tree.structure(arguments), *map(_kind, jax.tree.leaves(arguments)))
        key = (self._of, name, donate, settings, kinds)
        with _COMPILED_LOCK:
            compiled = None if self._of is None else _COMPILED.pop(key, None)
        if compiled is None:
            compiled = jax.jit(function, donate_argnums=donate).lower(*arguments).compile(self._options)
        if self._of is not None:
            with _COMPILED_LOCK:
                _COMPILED[key] = compiled
                while len(_COMPILED) > MOST_SHARED:
                    del _COMPILED[next(iter(_COMPILED))]
        return compiled


def _kind(leaf: Any) -> Hashable:
    """What a compiled program expects of an argument."""
    return np.shape(leaf), jnp.result_type(leaf), getattr(leaf, "sharding", None)

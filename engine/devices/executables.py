"""Functions compiled ahead of time, shared by the runs of a process."""

import functools
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.devices.capacity import bytes_beside_arguments, check_call_fits, memory_errors
from engine.devices.precision import computes, products_outside
from engine.host.clock import Clock
from engine.host.collecting import without_collecting

MOST_SHARED = 64  # programs
_COMPILED: dict[Hashable, Any] = {}  # the last used comes last
_COMPILED_LOCK = Lock()
Name = str | tuple[Any, ...]


class Executables:
    """Functions compiled ahead of time, each once, under a name; they reject arguments of any other shape.

    of: everything that the functions depend on beyond their names and arguments. Functions compiled for an equal `of`
    are shared in the whole process: by a resumed run, another seed, the next cross-validation fold. None: not shared.
    """

    def __init__(self, clock: Clock, is_deterministic: bool = False, of: Hashable = None):
        self.clock, self._options, self._of = clock, compiler_options(is_deterministic), of
        self._compiled: dict[Name, Any] = {}
        self._lock = Lock()  # of compilations: several threads may query one classifier

    @computes
    def call(self, name: Name, function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
        """The function's result, from the executable of that name, which is or starts with its task in a word."""
        compiled = self._compiled.get(name) or self._compile(name, function, arguments, donate)
        try:
            return compiled(*arguments)
        except jax.errors.JaxRuntimeError:
            with memory_errors(_task(name)):  # entered only now: a small model answers in 0.1 ms, 4 % of which it takes
                raise

    def num_compiled(self, for_task: str) -> int:
        """Number of executables for one task."""
        return sum(_task(name) == for_task for name in self._compiled)

    def step_bytes(self, for_task: str) -> int | None:
        """Memory that the executables of a task need beside their arguments, the most of any; None if not known."""
        sizes = [compiled.memory_analysis() for name, compiled in self._compiled.items() if _task(name) == for_task]
        return max((bytes_beside_arguments(size) for size in sizes if size is not None), default=None)

    def _compile(self, name: Name, function: Callable[..., Any], arguments: tuple, donate: tuple[int, ...]) -> Any:
        with self._lock:
            if name not in self._compiled:
                with self.clock.measure("compile"), memory_errors(_task(name)), without_collecting():
                    compiled = self._shared(name, function, arguments, donate)
                check_call_fits(_task(name), compiled)
                self._compiled[name] = compiled
            return self._compiled[name]

    def _shared(self, name: Name, function: Callable[..., Any], arguments: tuple, donate: tuple[int, ...]) -> Any:
        settings = (*(self._options or {}).items(), *jax.config.values.items())  # JAX's own change programs too
        kinds = (jax.tree.structure(arguments), *map(_kind, jax.tree.leaves(arguments)))
        key = (self._of, name, donate, settings, kinds)
        with _COMPILED_LOCK:
            compiled = None if self._of is None else _COMPILED.pop(key, None)
        if compiled is None:
            with products_outside():
                compiled = jax.jit(function, donate_argnums=donate).lower(*arguments).compile(self._options)
        if self._of is not None:
            with _COMPILED_LOCK:
                _COMPILED[key] = compiled
                while len(_COMPILED) > MOST_SHARED:
                    del _COMPILED[next(iter(_COMPILED))]
        return compiled


def _task(name: Name) -> str:
    """The word in an executable's name, which messages show."""
    return name if isinstance(name, str) else name[0]


def _kind(leaf: Any) -> Hashable:
    """The properties of an argument that a compiled program depends on."""
    return np.shape(leaf), jnp.result_type(leaf), getattr(leaf, "sharding", None)


# Operations that YNNPACK runs: none from jax 0.11 on, where its bfloat16 products give NaN in nets (0.11.2, 0.12.0).
_YNNPACK = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE" if jax.__version_info__ < (0, 11) else ""


COMPILER_OPTIONS: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": _YNNPACK}
"""For programs on the CPU: convolutions by Eigen, which is twice as fast as YNNPACK."""


_IN_GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"
GPU_OPTIONS: tuple[dict[str, str | bool], ...] = tuple(
    {"xla_gpu_enable_command_buffer": kinds, "xla_gpu_graph_min_graph_size": "1"}
    for kinds in (f"{_IN_GRAPHS},CONVOLUTION", _IN_GRAPHS)
)
"""For programs on a GPU: the loop over steps is part of a CUDA graph, so that the host launches nothing within it.

The first that this version of XLA knows is used: in jax 0.10 no graph has convolutions of cuDNN.
"""


def compiler_options(is_deterministic: bool = False) -> dict[str, str | bool] | None:
    """The compiler options of this backend.

    is_deterministic: the same bits from run to run, on a GPU too, where XLA otherwise adds up by atomics and chooses
      algorithms by timing them.
    """
    if jax.default_backend() == "gpu":
        known = next(filter(_knows, range(len(GPU_OPTIONS))), None)
        options = {} if known is None else GPU_OPTIONS[known]
        return options | ({"xla_gpu_deterministic_ops": True} if is_deterministic else {}) or None
    return COMPILER_OPTIONS if jax.default_backend() == "cpu" else None


@functools.cache
def _knows(number: int) -> bool:
    """Whether this version of XLA has these GPU_OPTIONS, whose names are not stable."""
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=GPU_OPTIONS[number]).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

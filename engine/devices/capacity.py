"""Checks whether compiled calls fit into memory, and words the error if they do not."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from engine.errors import InputError, problem
from engine.host.memory import free_device_bytes

Tree = Any
_WORDS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")


class OutOfMemory(InputError):
    """A compiled function does not fit into memory. needed: its bytes, if known."""

    def __init__(self, message: str, needed: int | None = None):
        super().__init__(message)
        self.needed = needed


def num_bytes(tree: Tree) -> int:
    """Bytes of all arrays of a tree, which may be abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_call_fits(name: str, compiled: Any) -> None:
    """Raises OutOfMemory if a compiled function needs more memory, besides its arguments, than is free."""
    sizes, free = compiled.memory_analysis(), free_device_bytes()
    if sizes is None:
        return
    needed = bytes_beside_arguments(sizes)
    if needed > free:
        raise OutOfMemory(_call_text(name, _size(needed), free), needed)


def bytes_beside_arguments(sizes: Any) -> int:
    """The memory that a compiled function needs beside its arguments, by its `memory_analysis`."""
    return sizes.temp_size_in_bytes + max(0, sizes.output_size_in_bytes - sizes.alias_size_in_bytes)


@contextlib.contextmanager
def memory_errors(name: str) -> Iterator[None]:
    """Turns XLA's error when a call, or its compilation, runs out of memory into OutOfMemory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not any(word in str(error) for word in _WORDS):
            raise
        raise OutOfMemory(_call_text(name, "more", free_device_bytes())) from None


def _call_text(name: str, needed: str, free: int) -> str:
    remedy = "Close what else takes memory, or use a smaller model or smaller images."
    return problem("memory", f"{needed} for {name}", f"at most the {_size(free)} that are free", remedy)


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:,.1f} MiB"

"""Whether compiled calls fit into memory; and what is said where they do not."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from engine.errors import InputError, problem
from engine.host.memory import free_device_bytes

Tree = Any
_WORDS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")


class OutOfMemory(InputError):
    """A compiled function that memory does not hold. needed: the bytes, where they are known."""

    def __init__(self, message: str, needed: int | None = None):
        super().__init__(message)
        self.needed = needed


def num_bytes(tree: Tree) -> int:
    """Of all arrays of a tree, which may be abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_call_fits(name: str, compiled: Any) -> None:
    """Raises OutOfMemory where a compiled function takes more memory, beside its arguments, than is free."""
    sizes, free = compiled.memory_analysis(), free_device_bytes()
    if sizes is None:
        return
    needed = sizes.temp_size_in_bytes + max(0, sizes.output_size_in_bytes - sizes.alias_size_in_bytes)
    if needed > free:
        raise OutOfMemory(_call_text(name, _size(needed), free), needed)


@contextlib.contextmanager
def memory_errors(name: str) -> Iterator[None]:
    """Raises OutOfMemory for what XLA says when a call, or its compilation, finds no more memory."""
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

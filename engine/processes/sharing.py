"""Work of many parts that the processes of a run share out: each does every n-th, and all get the results of all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np

from engine.processes.together import are_several, gather

Tree = Any
_is_shared = ContextVar("is_shared", default=False)


@contextmanager
def shared_work() -> Iterator[None]:
    """A block that all processes enter, in their main thread, to do the same work: `compute_parts` shares it out."""
    token = _is_shared.set(are_several())
    try:
        yield
    finally:
        _is_shared.reset(token)


def is_shared() -> bool:
    """Whether this is such a block."""
    return _is_shared.get()


def compute_parts(num_parts: int, compute: Callable[[Sequence[int]], Tree]) -> Tree:
    """[parts …]: what `compute` returns for all parts, of the arrays [numbers …] that it returns for some of them."""
    if not is_shared():
        return compute(range(num_parts))
    size, own = jax.process_count(), range(jax.process_index(), num_parts, jax.process_count())
    each = -(-num_parts // size)  # in some processes the last part is padding

    def merge(found: Any) -> np.ndarray:
        found = np.asarray(found)
        missing = [(0, each - len(found)), *[(0, 0)] * (found.ndim - 1)]
        together = gather(np.pad(found, missing)).swapaxes(0, 1)  # [processes each …] → [each processes …]
        return together.reshape(each * size, *found.shape[1:])[:num_parts]

    return jax.tree.map(merge, compute(own or [0]))

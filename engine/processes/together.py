"""What the processes of a run decide and exchange. Without others, each function is that of one process.

All processes call each function, in the same order and in their main thread: it returns when all have. Small values go
through the coordination service of `jax.distributed`, arrays through a collective.
"""

import json
import socket
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

import jax
import numpy as np

from engine.errors import InputError, within

LONGEST_WAIT_SECONDS = 24 * 3600  # for others that decode data, say; that they are alive is watched elsewhere
Tree = Any
T = TypeVar("T")
_numbers = count()


def are_several() -> bool:
    """Whether this process is one of several that train one run."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, which alone writes and prints, or the only one."""
    return jax.process_index() == 0


def own_name() -> str:
    """`process 1 on node7`: this process in messages."""
    return f"process {jax.process_index()} on {socket.gethostname()}"


def exchange(value: Any, seconds: float = LONGEST_WAIT_SECONDS) -> list[Any]:
    """The JSON values of all processes, in their order.

    Raises TimeoutError, with the numbers of the processes that have not called it by then, after so many seconds.
    """
    if not are_several():
        return [value]
    client, number, rank = _client(), next(_numbers), jax.process_index()
    client.key_value_set(f"engine/{number}/{rank}", json.dumps(value))
    if rank == 0:
        texts = _collect(client, number, seconds)
        client.key_value_set(f"engine/{number}/all", json.dumps(texts))
        if number:  # all have read the values before these
            client.key_value_delete(f"engine/{number - 1}/")
    texts = json.loads(client.blocking_key_value_get(f"engine/{number}/all", _milliseconds(seconds + 10)))
    return [json.loads(text) for text in texts]


def from_first(make: Callable[[], Any], seconds: float = LONGEST_WAIT_SECONDS) -> Any:
    """What `make` returns in process 0, a JSON value, in all processes; an InputError there is raised in all."""
    return _results(make if is_first() else lambda: None, seconds)[0]


def all_succeed(make: Callable[[], T]) -> T:
    """What `make` returns in this process; an InputError in any is raised in all of them, and names the process."""
    found: list[T] = []
    _results(lambda: found.append(make()), LONGEST_WAIT_SECONDS)
    return found[0]


def agree(*values: float) -> tuple[float, ...]:
    """The largest of each value (of 24 bits) over all processes: what all of them act on."""
    if not are_several():
        return values
    from jax.experimental.multihost_utils import process_allgather

    return tuple(process_allgather(np.array(values, np.float32)).max(axis=0).tolist())


def gather(array: np.ndarray) -> np.ndarray:
    """[processes …]: the arrays [...] of all processes, of one shape and dtype."""
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(array) if are_several() else array[None]


def arrays_from_first(tree: Tree, like: Tree) -> Tree:
    """The host arrays of process 0 in all processes, bit by bit. like: their structure, shapes and dtypes."""
    if not are_several():
        return tree
    from jax.experimental.multihost_utils import broadcast_one_to_all

    def words(leaf: Any) -> np.ndarray:
        """As whole numbers, because the sum that sends them makes 0.0 of -0.0."""
        size = max(1, -(-leaf.size * leaf.dtype.itemsize // 4))
        if not is_first():
            return np.zeros(size, np.uint32)
        data = np.asarray(leaf).tobytes()
        return np.frombuffer(data.ljust(4 * size, b"\0"), np.uint32)

    def array(sent: np.ndarray, leaf: Any) -> np.ndarray:
        return np.frombuffer(sent.tobytes(), leaf.dtype, leaf.size).reshape(leaf.shape).copy()

    leaves = jax.tree.leaves(tree if is_first() else like)
    sent = broadcast_one_to_all([words(leaf) for leaf in leaves])
    return jax.tree.unflatten(jax.tree.structure(like), map(array, sent, jax.tree.leaves(like)))


def _results(make: Callable[[], Any], seconds: float) -> list[Any]:
    """What `make` returns in each process; raises InputError in all if it does so in one."""
    if not are_several():
        return [make()]
    try:
        own = {"value": make()}
    except InputError as error:
        own = {"problems": error.problems, "who": own_name()}
    found = exchange(own, seconds)
    failed = [each for each in found if "problems" in each]
    if failed:
        problems = InputError(*failed[0]["problems"])
        raise problems if len(failed) == len(found) or failed[0] is found[0] else within(failed[0]["who"], problems)
    return [each["value"] for each in found]


def _collect(client: Any, number: int, seconds: float) -> list[str]:
    texts, missing = [], []
    for rank in range(jax.process_count()):
        try:
            wait = 0.01 if missing else seconds  # one is late: who else is?
            texts.append(client.blocking_key_value_get(f"engine/{number}/{rank}", _milliseconds(wait)))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            missing.append(rank)
    if missing:
        raise TimeoutError(", ".join(map(str, missing)))
    return texts


def _client() -> Any:
    """The client of the coordination service, which JAX's own `multihost_utils` reach in the same way."""
    from jax._src import distributed

    return distributed.global_state.client


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)

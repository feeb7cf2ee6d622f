"""A run of several processes: its directory and checkpoints are those of process 0, its plan suits all of them."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from engine.checkpoints.record import Record
from engine.checkpoints.run_directory import claimed
from engine.checkpoints.steps import choose_step, find_steps, read_record, restore_arrays
from engine.config.plan import Plan
from engine.errors import InputError, Say, problem
from engine.host.storage import write_atomically
from engine.processes.together import all_succeed, are_several, arrays_from_first, exchange, from_first, is_first
from engine.records import from_json, to_json
from engine.report.progress import Mute, Reporter
from engine.runs.run_plan import make_plan

LARGE_BYTES = 10**9
"""States from here on are saved and restored by all processes: below, one needs less than a second for it."""


def as_one_voice(reporter: Reporter) -> Reporter:
    """The reporter in process 0; in all others one that says nothing."""
    return reporter if is_first() else Mute()


@contextmanager
def claim(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The directory of a run, claimed by process 0: the others need not see it, and neither read nor write there.

    Raises InputError for anything but a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(problem("run_dir", repr(path)[:80], "a path", 'Give it like "runs/mine".'))
    with ExitStack() as stack:
        yield Path(from_first(lambda: str(stack.enter_context(claimed(Path(path))))))


def report_other_views(directory: Path, say: Say) -> None:
    """Reports processes for which the run's directory contains other checkpoints than for process 0, whose count.

    Those that do not see the directory, as on a host of its own, are not reported.
    """
    own = None
    with suppress(OSError):  # not theirs to read
        own = find_steps(directory) if directory.is_dir() else None
    views = exchange([socket.gethostname(), own])
    for rank, (host, steps) in enumerate(views):
        if steps is not None and steps != views[0][1]:
            say(
                f"note: process {rank} on {host} sees {_name(steps)} in {directory}, process 0 {_name(views[0][1])}, "
                f"which is what counts: no other process reads or writes there"
            )


def _name(steps: Sequence[int] | None) -> str:
    """`2 checkpoints, up to step 240`."""
    count = len(steps or ())
    return f"{count or 'no'} checkpoint{'s' * (count != 1)}" + (f", up to step {max(steps):,}" if steps else "")


def record_from_first(make: Callable[[], Record | None]) -> Record | None:
    """The record that process 0 reads, in all processes."""
    if not are_several():
        return make()
    found = from_first(lambda: to_json(make()))
    return None if found is None else from_json(Record, found, "the record of process 0")


def row_from_first(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the history, as process 0 has it."""
    return from_first(lambda: to_json(row)) if are_several() else row


def find_best(directory: Path) -> Record:
    """The record of the best step."""
    best = record_from_first(lambda: read_record(directory, choose_step(directory, "best")))
    assert best is not None
    return best


def restore_together(directory: Path, record: Record, **items: Any) -> dict[str, Any]:
    """As `restore_arrays`: process 0 reads and sends the arrays to the others; large ones all read, if all see them."""
    if not are_several() or (_size_bytes(items) >= LARGE_BYTES and not find_blind(directory)):
        return all_succeed(lambda: restore_arrays(directory, record, **items))
    found: dict[str, Any] = {}
    from_first(lambda: found.update(restore_arrays(directory, record, **items)))  # an error is one of all processes
    return arrays_from_first(found, items)


def save_in_shares(directory: Path, state: Any, say: Say) -> bool:
    """Whether each process saves its share of a state: of a large one, if all see the directory. It is reported."""
    size = _size_bytes(state)
    if not are_several() or size < LARGE_BYTES:
        return False
    blind = find_blind(directory)
    how = f"process 0 alone, because {blind} cannot write into {directory}" if blind else "all processes, in shares"
    say(f"checkpoints of {size / 1e9:,.1f} GB are written by {how}")
    return not blind


def _size_bytes(tree: Any) -> int:
    """Of arrays or their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def find_blind(directory: Path) -> str:
    """The processes that do not see what process 0 writes into a directory, or cannot write there; "" for none."""
    place = Path(from_first(lambda: tempfile.mkdtemp(prefix=".seen-", dir=directory)))
    with suppress(OSError):
        write_atomically(place / str(jax.process_index()), "")
    hosts = exchange(socket.gethostname())  # after it all have written

    def look() -> str:
        blind = [rank for rank in range(len(hosts)) if not (place / str(rank)).exists()]
        shutil.rmtree(place)
        return ", ".join(f"process {rank} on {hosts[rank]}" for rank in blind)

    return from_first(look)


def state_from_first(state: Any) -> Any:
    """A state that each process has computed, as process 0 has: other processors may round otherwise."""
    if not are_several():
        return state
    return arrays_from_first(jax.tree.map(np.asarray, state) if is_first() else state, state)


def plan_together(*arguments: Any) -> Plan:
    """As `make_plan`: that of process 0, with no more in memory than the process that has least of it can hold."""
    if not are_several():
        return make_plan(*arguments)
    own = all_succeed(lambda: make_plan(*arguments))
    plans = [from_json(Plan, plan, f"the plan of process {rank}") for rank, plan in enumerate(exchange(to_json(own)))]
    is_streamed = any(plan.placement == "streamed" for plan in plans)
    return replace(
        plans[0],
        placement="streamed" if is_streamed else "resident",
        cache_megabytes=min(plan.cache_megabytes for plan in plans),
    )

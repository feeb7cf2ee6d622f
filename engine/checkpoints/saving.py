"""Saving: the checkpoints of a run in progress, when they are saved, and which of them are kept."""

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from engine.checkpoints.checksums import array_checksum, checksum_of_pieces, hash_own_pieces, write_sums
from engine.checkpoints.record import FORMAT_VERSION, Record
from engine.checkpoints.steps import (
    alone_with_orbax,
    check_location,
    check_step,
    checkpoints_of,
    find_steps,
    read_record,
    step_directories,
)
from engine.config import CheckpointConfig
from engine.errors import InputError, Say, ignore, problem
from engine.processes.lost import is_cut_off
from engine.processes.together import exchange, from_first, is_first
from engine.records import to_json

DEFAULTS = CheckpointConfig()
DAMAGED = "damaged"
FILE_BYTES = 8 * 2**20  # of a file of arrays: Orbax holds in memory what is to be in one; 2 GB by default
ROTATED = ".rotated"  # steps are moved here and then removed file by file: a kill leaves no half-removed step


class SaveTimes:
    """When a run is saved in the middle of an epoch: after a number of steps, or of seconds."""

    def __init__(self, config: CheckpointConfig):
        self.config, self._last = config, time.monotonic()

    def steps_left(self, step: int) -> int | None:
        """Steps until the next save by step number; None if there is no such rule."""
        every = self.config.every_steps
        return None if every is None else every - step % every

    def is_due(self, step: int) -> bool:
        """Whether to save now, after this step of the run."""
        every, seconds = self.config.every_steps, self.config.every_seconds
        is_time = seconds is not None and time.monotonic() - self._last >= seconds
        return is_time or (every is not None and step % every == 0)

    def is_due_after(self, epochs: int) -> bool:
        """Whether to save at the end of this epoch, counted from 1."""
        return epochs % self.config.every_epochs == 0

    def saved(self) -> None:
        """Records that the run was saved."""
        self._last = time.monotonic()


class Saves(Protocol):
    """What a run saves itself with. is_shared: it takes arrays on the devices, of which each process saves a share."""

    is_shared: bool

    def save(self, record: Record, **items: Any) -> None:
        """Starts to save host arrays and the record as one step."""
        ...

    def wait(self) -> None:
        """Returns when everything is on disk."""
        ...


class NoCheckpoints(contextlib.nullcontext[Any]):
    """Those of a process that saves nothing, because another one does."""

    is_shared = False

    def save(self, record: Record, **items: Any) -> None:
        """Nothing."""

    def wait(self) -> None:
        """For nothing."""


class Checkpoints:
    """The checkpoints of a run in progress: saves asynchronously, keeps the best and the last.

    say: gets reports of damaged steps. log: gets a line for each step once it is on disk.
    is_shared: all processes of a run save together, each the parts of the arrays that are on its devices and its share
      of those that are on all. The functions are then called by all of them, in their main thread.
    """

    def __init__(
        self,
        path: Path,
        config: CheckpointConfig = DEFAULTS,
        say: Say = ignore,
        log: Say = ignore,
        is_shared: bool = False,
    ):
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as policies

        check_location(path)
        self._ocp, self.path, self._log, self.is_shared = ocp, path, log, is_shared

        def prepare() -> list[Any]:
            _remove_rotated(path)
            set_damaged_aside(path, say)
            checkpoints_of(path).mkdir(exist_ok=True)
            return [(step, read_record(path, step).rank) for step in find_steps(path)]

        found = from_first(prepare) if is_shared else prepare()
        ranks = self._ranks = {step: None if rank is None else tuple(rank) for step, rank in found}
        self._under_way: int | None = None

        class BestAndLast(policies.PreservationPolicy):
            """Orbax's own policies forget the metrics of steps saved by an earlier process."""

            def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
                steps = [checkpoint.step for checkpoint in checkpoints]
                kept = kept_steps(steps, ranks, config.keep_last, config.keep_best)
                return [step in kept for step in steps]

        # The callback runs when all files of a step are written, before the step gets its name. Directories are created
        # immediately: if creation failed later, Orbax's threads, and so the process, would block for twenty minutes.
        options = ocp.AsyncOptions(post_finalization_callback=self._write_sums, create_directories_asynchronously=False)
        self._manager = ocp.CheckpointManager(
            checkpoints_of(path).resolve(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=BestAndLast(),
                cleanup_tmp_directories=True,
                async_options=options,
                todelete_subdir=ROTATED,
                create=False,
                multiprocessing_options=ocp.options.MultiprocessingOptions() if is_shared else alone_with_orbax(),
            ),
            item_names=("model", "optimizer", "best", "record"),
        )

    def save(self, record: Record, **items: Any) -> None:
        """Starts to save host arrays (model=…, optimizer=…) and the record as one step; an existing one is kept.

        The arrays are not copied: they stay as they are until `wait` returns, which `save` waits for if it is shared:
        the next compiled call writes over arrays on the devices.
        """
        if record.step in self._ranks:
            return
        with _failures_explained(self.path):
            self._wait()  # Orbax would do so too
            args, self._ranks[record.step], self._under_way = self._ocp.args, record.rank, record.step
            record = replace(record, checksums=self._compute_checksums(record, items))
            value = {"format_version": FORMAT_VERSION, **to_json(record)}
            arrays = {name: args.PyTreeSave(_uncopied(tree), None, FILE_BYTES) for name, tree in items.items()}
            composite = args.Composite(**arrays, record=args.JsonSave(value))
            if not self._manager.save(record.step, args=composite, force=True):
                raise RuntimeError(f"Orbax did not take step {record.step}")
            if self.is_shared:
                self._wait()

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with _failures_explained(self.path):
            self._wait()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind and self.is_shared:
            return  # the others may never come to close theirs
        with contextlib.suppress(*([InputError] if kind else [])):  # the first error is the one to report
            self.close()

    def close(self) -> None:
        """Waits and releases the directory."""
        with _failures_explained(self.path):
            self._wait()
            self._manager.close()

    def _wait(self) -> None:
        if self.is_shared and self._under_way is None:
            return
        self._manager.wait_until_finished()
        step, self._under_way = self._under_way, None
        if not is_first():
            return
        if step is not None and step in find_steps(self.path):  # missing after a failure, which Orbax reports once
            self._log(f"saved step {step}")
        _remove_rotated(self.path)

    def _compute_checksums(self, record: Record, items: Mapping[str, Any]) -> dict[str, str]:
        if not self.is_shared:
            return {name: array_checksum(tree) for name, tree in items.items()}
        by_member = record.config.train.members > 1
        found = exchange({name: hash_own_pieces(tree, by_member) for name, tree in items.items()})
        return {name: checksum_of_pieces({k: v for each in found for k, v in each[name].items()}) for name in items}

    def _write_sums(self) -> None:
        for directory in checkpoints_of(self.path).resolve().glob(f"{self._under_way}.orbax-checkpoint-tmp*"):
            write_sums(directory)


def _uncopied(tree: Any) -> Any:
    """The same arrays, which Orbax would copy once more before it writes: half of the memory that saving takes."""
    import jax
    import numpy as np

    class Uncopied(np.ndarray):
        def __deepcopy__(self, memo: Any) -> "Uncopied":
            return self

    return jax.tree.map(lambda leaf: leaf.view(Uncopied) if isinstance(leaf, np.ndarray) else leaf, tree)


def kept_steps(steps: Sequence[int], ranks: Mapping[int, Any], last: int, best: int) -> set[int]:
    """The `last` newest of the steps and the `best` with the highest ranks (Record.rank), the later of ties."""
    ranked = {step: rank for step in steps if (rank := ranks.get(step)) is not None}
    return {*sorted(steps)[-last:], *sorted(ranked, key=lambda step: (ranked[step], step))[-best:]}


def set_damaged_aside(path: Path, say: Say = ignore) -> None:
    """Moves steps with missing or changed files to `damaged/`, and reports it.

    Nothing is deleted; a run resumes from the steps that are left.
    """
    for directory in step_directories(path):
        try:
            check_step(path, int(directory.name))
        except InputError as error:
            target = path / DAMAGED / f"{directory.name}-{time.time_ns()}"
            target.parent.mkdir(exist_ok=True)
            shutil.move(directory, target)
            say(f"step {directory.name} is damaged and now in {target}. {error}")


def _remove_rotated(path: Path) -> None:
    shutil.rmtree(checkpoints_of(path) / ROTATED, ignore_errors=True)


@contextlib.contextmanager
def _failures_explained(path: Path) -> Iterator[None]:
    """Turns Orbax's exceptions when it cannot write into an InputError that lists the complete checkpoints."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if type(error).__module__.startswith("jax") and is_cut_off(error):
            raise  # no fault of the directory: another process that saves too is lost
        text = str(error)
        is_full = "No space left" in text or "RESOURCE_EXHAUSTED" in text
        reason = "no space left" if is_full else (text.splitlines() or [type(error).__name__])[0][:200]
        kept = f"step {steps}" if (steps := ", ".join(map(str, find_steps(path)))) else "none"
        advice = "Free some space" if is_full else "Fix the problem"
        remedy = f"Complete checkpoints there: {kept}. {advice}, then continue with --resume."
        raise InputError(problem("run_dir", f"{path} ({reason})", "a place that can be written", remedy)) from error

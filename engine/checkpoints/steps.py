"""Checkpoints: Orbax for arrays, one JSON record for everything else. No pickle anywhere.

`<run>/checkpoints/<step>/` contains `model` (params, model_state), `optimizer`, `record`, for an ensemble `best` (each
member's weights when it was best), and `B2SUMS`, the checksums of all these files. Orbax writes each step under a
temporary name and renames it when it is complete, so a kill while saving leaves the previous step intact. Reading the
record needs neither Orbax nor JAX.
"""

import re
from math import prod
from pathlib import Path
from typing import Any

from engine.checkpoints.checksums import SUMS, check_sums, matches
from engine.checkpoints.record import FORMAT_VERSION, Record, _contradictions, _from_version_1
from engine.errors import InputError, problem, remedy_for
from engine.host.json_files import read_json, shown
from engine.host.memory import free_host_bytes
from engine.records import from_json


def checkpoints_of(path: Path) -> Path:
    """The directory of a run's checkpoints, given that directory or the run's."""
    return path if path.name == "checkpoints" else path / "checkpoints"


def find_steps(path: Path) -> list[int]:
    """The steps with a complete checkpoint, in order; empty if there is none."""
    directory = checkpoints_of(path)
    return [int(d.name) for d in step_directories(path) if _record_file(directory, d.name).exists()]


def step_directories(path: Path) -> list[Path]:
    """The directories of all steps, complete or not, in order."""
    directory = checkpoints_of(path)
    entries = [d for d in directory.iterdir() if re.fullmatch(r"\d+", d.name)] if directory.is_dir() else []
    return sorted(entries, key=lambda entry: int(entry.name))


def check_step(path: Path, step: int) -> None:
    """Raises InputError naming the first file of a step that is missing or differs from what was saved.

    Steps of formats 1 and 2 have no checksums of files: only their record is read.
    """
    directory = checkpoints_of(path) / str(step)
    read_record(path, step)
    if (directory / SUMS).exists():
        check_sums(directory)


def choose_step(path: Path, step: int | str = "best") -> int:
    """The selected step: "best" by Record.rank (the last one if no step has a score), "last" or a number."""
    steps = find_steps(path)
    if not steps:
        raise InputError(_nothing_there(path))
    if step == "last":
        return steps[-1]
    if step == "best":
        best = best_step({s: read_record(path, s).rank for s in steps})
        return steps[-1] if best is None else best
    is_number = re.fullmatch(r"\d{1,18}", str(step), re.ASCII) is not None
    if step not in steps and not (is_number and (checkpoints_of(path) / str(step)).is_dir()):
        raise InputError(problem("step", step, f"one of {', '.join(map(str, steps))}", 'Or give "best" or "last".'))
    return int(step)


def best_step(ranks: dict[int, tuple[float, float] | None]) -> int | None:
    """The step with the highest rank, the later of ties; None if no step has one."""
    known = {step: rank for step, rank in ranks.items() if rank is not None}
    return max(known, key=lambda step: (known[step], step), default=None)


def read_record(path: Path, step: int) -> Record:
    """The record of one step; raises InputError if it is damaged or from a newer format."""
    directory = checkpoints_of(path)
    file = _record_file(directory, str(step))
    rule, remedy = "a complete record", "Use another step or run."
    value = read_json(file, rule, remedy)
    version = value.pop("format_version", None) if isinstance(value, dict) else None
    if not isinstance(version, int) or version < 1:
        raise InputError(problem(str(file), f"format {version!r}", f"1 to {FORMAT_VERSION}", remedy))
    if version > FORMAT_VERSION:
        rule = f"{FORMAT_VERSION} or older"
        raise InputError(problem(str(file), f"checkpoint format {version}", rule, "Install a newer engine."))
    if version > 2 or (directory / str(step) / SUMS).exists():
        check_sums(directory / str(step), "record")
    if version == 1:
        value = _from_version_1(value)
    record = from_json(Record, value, str(file))
    if problems := _contradictions(record):
        raise InputError(f"{file}: {problems[0]}")
    if record.step != step:
        raise InputError(problem(str(file), f"the record of step {record.step}", f"that of step {step}", remedy))
    return record


def check_location(path: Path) -> None:
    """Raises InputError for a path that Orbax would read as a pattern, and lose what it saves there."""
    bad = sorted(set("[]\\") & set(str(path.resolve())))
    if bad:
        rule = f"a path without {' '.join(bad)}"
        raise InputError(problem("run_dir", path.resolve(), rule, "Choose another with --run-dir."))


def restore_arrays(path: Path, record: Record, **items: Any) -> dict[str, Any]:
    """Host arrays of a step's items (model=…, optimizer=…), in the structure and shapes of the trees given.

    Nothing is placed on a device, so a checkpoint opens on any machine. Raises InputError if files are missing or
    damaged (by the record's checksums), or do not have the shapes.
    """
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    def on_host(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)

    directory = checkpoints_of(path).resolve() / str(record.step)
    rule, remedy = "complete files that fit the record", "Restore another step or run."
    if (directory / SUMS).exists():
        check_sums(directory, *items)
    for name in items:
        if not (directory / name / "_METADATA").exists():
            raise InputError(problem(str(directory / name), "missing files", rule, remedy))
    for name, tree in items.items():
        _check_stored(directory / name, tree)
    try:
        wanted = {name: ocp.args.StandardRestore(on_host(tree)) for name, tree in items.items()}
        options = alone_with_orbax()
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=options)
        )
        with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
            restored = dict(checkpointer.restore(directory, args=ocp.args.Composite(**wanted)).items())
    except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise InputError(problem(str(directory), _first_line(error), rule, remedy_for(error, remedy))) from error
    for name, tree in restored.items():
        if not matches(tree, record.checksums.get(name), record.config.train.members > 1):
            raise InputError(problem(str(directory / name), "arrays that are not those saved", rule, remedy))
    return restored


def alone_with_orbax() -> Any:
    """Orbax's option for one process alone: of several, the others do not know that it reads or writes."""
    import jax
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    rank = jax.process_index()
    return ocp.options.MultiprocessingOptions(rank, {rank}, barrier_sync_key_prefix="engine")


def _check_stored(directory: Path, tree: Any) -> None:
    """Raises InputError unless an item's arrays have the shapes and dtypes of a tree and fit into memory.

    Only metadata is read. No chunk may be larger than its array, so a small file cannot expand beyond it.
    """
    import orbax.checkpoint as ocp

    rule, remedy = "arrays of the shapes that the record describes", "Restore another step or run."
    read_json(directory / "_METADATA", rule, remedy)
    try:
        handler: Any = ocp.StandardCheckpointHandler()
        described = handler.metadata(directory)
    except Exception as error:  # libraries raise exceptions of any kind for damaged files
        raise InputError(problem(str(directory), _first_line(error), rule, remedy_for(error, remedy))) from None
    stored, needed = _by_path(described), 0
    for path, leaf in _by_path(tree).items():
        found, where = stored.get(path), f"{directory}: {'.'.join(path)}"
        if found is None:
            raise InputError(problem(where, "nothing", rule, remedy))
        if tuple(found.shape) != tuple(leaf.shape) or found.dtype != leaf.dtype:
            got = f"{shown(tuple(found.shape))} of {found.dtype}"
            raise InputError(problem(where, got, f"{tuple(leaf.shape)} of {leaf.dtype}, by the record", remedy))
        pieces = getattr(found.storage, "chunk_shape", None) or ()
        if any(piece > max(size, 1) for piece, size in zip(pieces, leaf.shape, strict=False)):
            raise InputError(problem(where, f"pieces of {shown(tuple(pieces))}", "none larger than the array", remedy))
        needed += prod(leaf.shape) * leaf.dtype.itemsize
    check_memory(str(directory), needed)


def check_memory(where: str, needed: int) -> None:
    """Raises InputError if fewer bytes than needed are free on this machine."""
    free = free_host_bytes()
    if needed > free:
        got, rule = (
            f"arrays of {needed / 2**30:,.1f} GiB",
            f"at most the {free / 2**30:,.1f} GiB of memory that are free",
        )
        raise InputError(problem(where, got, rule, "Free some, or use a smaller model."))


def check_model_fits(where: str, record: Record, copies: int = 1) -> None:
    """Raises InputError if the copies of a model's weights, or the output of one layer, do not fit into free memory.

    The size of a custom class is known only when it is built.
    """
    rows = record.config.model.with_outputs(record.num_outputs).rows(record.input_spec.shape)
    weights = sum(row.num_params for row in rows) * record.config.train.members
    check_memory(where, 4 * max([copies * weights, *(prod(row.output_shape) for row in rows)]))


def _by_path(tree: Any) -> dict[tuple[str, ...], Any]:
    import jax

    def name(key: Any) -> str:
        return str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)))

    return {tuple(map(name, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _record_file(directory: Path, step: str) -> Path:
    return directory / step / "record" / "metadata"


def _nothing_there(path: Path) -> str:
    if not path.exists():
        return problem(str(path), "no such directory", "the directory of a run", "Check the path.")
    directory = checkpoints_of(path)
    has_partial = directory.is_dir() and any(directory.iterdir())
    got = "only half-written checkpoints" if has_partial else "no checkpoint"
    return problem(str(path), got, "at least one complete checkpoint", "Start the run again, or use another one.")

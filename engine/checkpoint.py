"""Checkpoints: Orbax for arrays, one JSON record for everything else. No pickle anywhere.

`<run>/checkpoints/<step>/` holds `model` (params, model_state), `optimizer`, `record` and, of an ensemble, `best` (each
member's weights when it was best). Orbax writes each step
beside its place and renames it when it is complete, so a kill while saving leaves the previous one as it was.
Reading the record needs neither Orbax nor JAX.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.combination import Combination
from engine.config import RunConfig
from engine.data.images import InputSpec
from engine.errors import InputError, problem
from engine.plan import Alternative, Plan
from engine.records import from_json, to_json
from engine.stopping import has_stopped_early

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Record:
    """What is needed, beside the arrays, to use a model and to go on training it.

    score: the validation metric that decides which step is best, higher is better; None in the middle of an epoch.
    totals, epoch_seconds: metric sums and training time of the unfinished epoch. checksums: of the arrays of each item.
    failed_steps: of an ensemble, the step at which each member's loss was no finite number, None for the others.
    combination: of an ensemble, how its members are combined. alternatives: plans that were measured, fastest first.
    """

    config: RunConfig
    input_spec: InputSpec
    class_names: tuple[str, ...]
    num_outputs: int
    data_fingerprint: str
    step: int
    steps_per_epoch: int
    score: float | None
    plan: Plan
    validation_fingerprint: str = ""
    history: tuple[dict[str, Any], ...] = ()
    totals: dict[str, Any] | None = None
    epoch_seconds: float = 0.0
    versions: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    failed_steps: tuple[int | None, ...] = ()
    combination: Combination | None = None
    alternatives: tuple[Alternative, ...] = ()
    checksums: dict[str, Any] = field(default_factory=dict)

    @property
    def epochs_done(self) -> int:
        """Whole epochs trained."""
        return self.step // self.steps_per_epoch

    @property
    def is_complete(self) -> bool:
        """Whether the run had reached its last epoch."""
        return self.is_complete_for(self.config)

    def is_complete_for(self, config: RunConfig) -> bool:
        """Whether a run of this config would have nothing left to train."""
        return self.epochs_done >= config.train.epochs or has_stopped_early(config.train, self.history)


def checkpoints_of(path: Path) -> Path:
    """The directory of a run's checkpoints, given the run's directory or that one itself."""
    return path if path.name == "checkpoints" else path / "checkpoints"


def find_steps(path: Path) -> list[int]:
    """The steps with a complete checkpoint, in order; empty if there is none."""
    directory = checkpoints_of(path)
    if not directory.is_dir():
        return []
    complete = (
        d for d in directory.iterdir() if re.fullmatch(r"\d+", d.name) and _record_file(directory, d.name).exists()
    )
    return sorted(int(entry.name) for entry in complete)


def choose_step(path: Path, step: int | str = "best") -> int:
    """The step asked for: "best" by validation score (the last one if no step has any), "last" or a number."""
    steps = find_steps(path)
    if not steps:
        raise InputError(_nothing_there(path))
    if step == "last":
        return steps[-1]
    if step == "best":
        best = best_step({s: read_record(path, s).score for s in steps})
        return steps[-1] if best is None else best
    if step not in steps:
        raise InputError(problem("step", step, f"one of {', '.join(map(str, steps))}", 'Or give "best" or "last".'))
    return int(step)


def best_step(scores: dict[int, float | None]) -> int | None:
    """The step with the highest score, the later of equals; None if no step has one."""
    known = {step: score for step, score in scores.items() if score is not None}
    return max(known, key=lambda step: (known[step], step), default=None)


def read_record(path: Path, step: int) -> Record:
    """The record of one step; raises InputError if it is damaged or from a newer format."""
    file = _record_file(checkpoints_of(path), str(step))
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(problem(str(file), f"{error}", "a complete record", "Use another step or run.")) from None
    version = value.pop("format_version", None) if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            problem(
                str(path),
                f"checkpoint format {version}",
                f"{FORMAT_VERSION} or older",
                "Install a newer engine.",
            )
        )
    if version == 1:
        value = _from_version_1(value)
    elif version != FORMAT_VERSION:
        raise InputError(problem(str(file), f"format {version!r}", f"{FORMAT_VERSION}", "Use another checkpoint."))
    return from_json(Record, value, str(file))


def _from_version_1(value: dict[str, Any]) -> dict[str, Any]:
    """Records before there were ensembles: the plan was two fields."""
    plan = {"lowering": value.pop("lowering", None), "placement": value.pop("placement", "resident")}
    return {**value, "plan": plan}


class Checkpoints:
    """The checkpoints of a run that is under way: saves asynchronously, keeps the best and the last."""

    def __init__(self, path: Path):
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as policies

        check_location(path)
        _check_complete(path)
        self._ocp, self.path = ocp, path
        scores = self._scores = {step: read_record(path, step).score for step in find_steps(path)}

        class BestAndLast(policies.PreservationPolicy):
            """Orbax's own policies forget the metrics of steps saved by an earlier process."""

            def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
                steps = [checkpoint.step for checkpoint in checkpoints]
                kept = (best_step({step: scores.get(step) for step in steps}), max(steps, default=None))
                return [step in kept for step in steps]

        self._manager = ocp.CheckpointManager(
            checkpoints_of(path).resolve(),
            options=ocp.CheckpointManagerOptions(preservation_policy=BestAndLast(), cleanup_tmp_directories=True),
            item_names=("model", "optimizer", "best", "record"),
        )

    def save(self, record: Record, **items: Any) -> None:
        """Starts to save host arrays (model=…, optimizer=…) and the record as one step; one that is there is kept."""
        if record.step in self._manager.all_steps():
            return
        args, self._scores[record.step] = self._ocp.args, record.score
        record = replace(record, checksums={name: checksum(tree) for name, tree in items.items()})
        value = {"format_version": FORMAT_VERSION, **to_json(record)}
        arrays = {name: args.StandardSave(tree) for name, tree in items.items()}
        composite = args.Composite(**arrays, record=args.JsonSave(value))
        with _failures_explained(self.path):
            if not self._manager.save(record.step, args=composite, force=True):
                raise RuntimeError(f"Orbax did not take step {record.step}")

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with _failures_explained(self.path):
            self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        with contextlib.suppress(*([InputError] if kind else [])):  # what went wrong first is what is told
            self.close()

    def close(self) -> None:
        """Waits and lets go of the directory."""
        with _failures_explained(self.path):
            self._manager.close()


def check_location(path: Path) -> None:
    """Raises InputError for a path at which Orbax would lose what it saves: it takes it for a pattern."""
    bad = sorted(set("[]\\") & set(str(path.resolve())))
    if bad:
        rule = f"a path without {' '.join(bad)}"
        raise InputError(problem("run_dir", path.resolve(), rule, "Choose another with --run-dir."))


def checksum(tree: Any) -> str:
    """A hash of all arrays of a tree, with their shapes and types, in the order of its leaves."""
    import jax
    import numpy as np

    digest = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def restore_arrays(path: Path, record: Record, **items: Any) -> dict[str, Any]:
    """Host arrays of a step's items (model=…, optimizer=…), in the structure and shapes of the trees given.

    Nothing is placed on a device, so a checkpoint opens wherever it was written. Raises InputError if files are
    missing or damaged (by the record's checksums), or do not fit the shapes.
    """
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    def on_host(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)

    wanted = {name: ocp.args.StandardRestore(on_host(tree)) for name, tree in items.items()}
    directory = checkpoints_of(path).resolve() / str(record.step)
    rule, remedy = "complete files that fit the record", "Restore another step or run."
    for name in items:
        if not (directory / name / "_METADATA").exists():
            raise InputError(problem(str(directory / name), "missing files", rule, remedy))
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            restored = dict(checkpointer.restore(directory, args=ocp.args.Composite(**wanted)).items())
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(problem(str(directory), reason, rule, remedy)) from error
    for name, tree in restored.items():
        if checksum(tree) != record.checksums.get(name):
            raise InputError(problem(str(directory / name), "arrays that are not those saved", rule, remedy))
    return restored


@contextlib.contextmanager
def _failures_explained(path: Path) -> Iterator[None]:
    """Turns what Orbax raises when it cannot write into a message that says what is left."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        text = str(error)
        is_full = "No space left" in text or "RESOURCE_EXHAUSTED" in text
        reason = "no space left" if is_full else (text.splitlines() or [type(error).__name__])[0][:200]
        kept = ", ".join(map(str, find_steps(path))) or "none"
        advice = "Free some space" if is_full else "Mend that"
        remedy = f"Complete checkpoints there: step {kept}. {advice} and go on with --resume."
        raise InputError(problem("run_dir", f"{path} ({reason})", "a place that can be written", remedy)) from error


def _check_complete(path: Path) -> None:
    """Raises InputError for a step without a record: Orbax would count it, and save nothing before it."""
    directory, complete = checkpoints_of(path), find_steps(path)
    steps = [entry for entry in directory.glob("*") if entry.name.isdigit()] if directory.is_dir() else []
    for entry in steps:
        if int(entry.name) not in complete:
            raise InputError(problem(str(entry), "no record", "a complete checkpoint", "Remove or restore it."))


def _record_file(directory: Path, step: str) -> Path:
    return directory / step / "record" / "metadata"


def _nothing_there(path: Path) -> str:
    if not path.exists():
        return problem(str(path), "no such directory", "the directory of a run", "Check the path.")
    directory = checkpoints_of(path)
    has_partial = directory.is_dir() and any(directory.iterdir())
    got = "only half-written checkpoints" if has_partial else "no checkpoint"
    return problem(str(path), got, "at least one complete checkpoint", "Start the run again, or use another one.")

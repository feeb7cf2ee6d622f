"""What a run left, leaf by leaf, and how it differs from what the uninterrupted run left."""

import contextlib
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import engine
from engine.checkpoints.steps import choose_step, read_record
from engine.records import to_json
from tests.conftest import make_dataset

ONE_AT_A_TIME = threading.Lock()  # Orbax's event loops, and one compilation at a time
# Not what a run computed: times, memory that was free, and where it ran.
UNCOMPARED = ("epoch_seconds", "plan", "alternatives", "versions", "checksums")


@dataclass(frozen=True)
class Left:
    """A finished run: `last` and `best` steps, both as `step_content` gives them, results and the model's outputs."""

    steps: dict[str, int]
    content: dict[str, dict[str, Any]]
    metrics: Any
    outputs: np.ndarray


def step_content(run_dir: Path, step: int) -> dict[str, Any]:
    """Every array of a saved step as Orbax reads it, by item and path, and every field of its record but times."""
    directory = run_dir.resolve() / "checkpoints" / str(step)
    items = sorted(path.parent.name for path in directory.glob("*/_METADATA"))
    content: dict[str, Any] = {}
    for item in items:
        for path, leaf in jax.tree_util.tree_leaves_with_path(read_arrays(directory / item)):
            content[f"{item}{jax.tree_util.keystr(path)}"] = leaf
    record = to_json(read_record(run_dir, step))
    record["history"] = without_seconds(record["history"])
    record["config"] = {key: value for key, value in record["config"].items() if key not in ("checkpoint", "data")}
    content.update({f"record.{key}": value for key, value in record.items() if key not in UNCOMPARED})
    return content


def read_arrays(item: Path) -> Any:
    """All arrays of an item, as Orbax reads them, on whatever devices they were saved."""
    import orbax.checkpoint as ocp

    described: Any = ocp.StandardCheckpointHandler().metadata(item)
    like = jax.tree.map(lambda each: np.empty(each.shape, each.dtype), described)
    with contextlib.closing(ocp.StandardCheckpointer()) as reader:
        return reader.restore(item, like)


def left_by(run_dir: Path) -> Left:
    """What a finished run left."""
    with ONE_AT_A_TIME:
        steps = {which: choose_step(run_dir, which) for which in ("last", "best")}
        content = {which: step_content(run_dir, step) for which, step in steps.items()}
        outputs = engine.restore(run_dir).outputs(make_dataset(70, 2).images)
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    return Left(steps, content, {key: result[key] for key in ("best_step", "metrics")}, outputs)


def saved_content(run_dir: Path, steps: Iterable[int]) -> dict[int, dict[str, Any]]:
    """`step_content` of some steps of a run."""
    with ONE_AT_A_TIME:
        return {step: step_content(run_dir, step) for step in steps}


def differences(expected: Left, got: Left) -> list[str]:
    """What of two runs is not the same, to the last bit; empty if they are."""
    found = [f"{which} step: {expected.steps[which]} became {got.steps[which]}" for which in expected.steps
             if expected.steps[which] != got.steps[which]]  # fmt: skip
    for which, content in expected.content.items():
        found += [f"{which} step, {text}" for text in content_differences(content, got.content[which])]
    if expected.metrics != got.metrics:
        found.append(f"result: {expected.metrics} became {got.metrics}")
    if not same_bits(expected.outputs, got.outputs):
        found.append("the restored classifier's outputs")
    return found


def content_differences(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """The names of arrays and fields that one step has and the other has not, or has otherwise."""
    names = [f"{name} is in one only" for name in expected.keys() ^ got.keys()]
    for name in expected.keys() & got.keys():
        before, after = expected[name], got[name]
        is_same = same_bits(before, after) if isinstance(before, np.ndarray) else before == after
        if not is_same:
            names.append(name if isinstance(before, np.ndarray) else f"{name}: {before} became {after}"[:300])
    return sorted(names)


def same_bits(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and bytes: −0 is not 0, and NaN is NaN."""
    return (before.dtype, before.shape) == (after.dtype, after.shape) and before.tobytes() == after.tobytes()


def without_seconds(history: Any) -> list[dict[str, Any]]:
    """The rows of a history without what they took."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def best_by_rule(contents: dict[int, dict[str, Any]], steps: set[int], count: int) -> set[int]:
    """Of `steps` the `count` best by their contents, written apart from the engine's own rule.

    The highest score comes first, of equal scores the lower validation loss, and of these the later step.
    """
    scored = {step: content for step, content in contents.items() if content["record.score"] is not None}
    losses = {
        step: [row["validation_loss"] for row in content.get("record.history", [])] for step, content in scored.items()
    }
    ranked = [
        (scored[step]["record.score"], -losses[step][-1] if losses[step] else 0, step) for step in steps & {*scored}
    ]
    return {step for *_, step in sorted(ranked, reverse=True)[:count]}

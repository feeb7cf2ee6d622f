"""Records, plans and arrays from anybody: answered in one line, in time and memory of their own size."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import engine
from engine.checkpoints import steps
from engine.checkpoints.checksums import write_sums
from engine.checkpoints.steps import read_record
from engine.commands import plan as plan_module
from engine.host import json_files
from engine.host.json_files import parse_json, read_json, shown
from engine.models import Dense, Flatten, Sequential
from engine.runs.plan_search import read_plan
from tests.commands.test_data import mistake
from tests.conftest import make_dataset
from tests.further import further

Change = Callable[[dict[str, Any]], object]
RELU = {"kind": "Activation", "name": "relu"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = Sequential((Flatten(), Dense(6, activation="relu"), Dense()))
    result = engine.fit(model, make_dataset(80), epochs=1, batch_size=64, verbose=False)
    return result.save(tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run of one step, to be changed."""
    import shutil

    return Path(shutil.copytree(made, tmp_path / "run"))


def step_of(run: Path) -> Path:
    (step,) = (path for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    return step


def rewrite(run: Path, change: Change | str) -> None:
    """A record that was changed, or has a text in place of its device, with checksums that are right again."""
    file = step_of(run) / "record" / "metadata"
    value = json.loads(file.read_text())
    if isinstance(change, str):
        text = json.dumps({**value, "device": "@"}).replace('"@"', change)
    else:
        change(value)
        text = json.dumps(value)
    file.write_text(text)
    write_sums(step_of(run))


def put(path: str, value: Any) -> Change:
    """A change of one field, by its dotted path."""
    *way, last = path.split(".")

    def change(record: dict[str, Any]) -> None:
        for name in way:
            record = record[name]
        record[last] = value

    return change


def blocks(depth: int) -> dict[str, Any]:
    """Blocks within blocks."""
    return {"kind": "Paths", "paths": [[blocks(depth - 1)] if depth > 1 else []]}


SENSELESS: dict[str, Change | str] = {
    "kind that is a list": put("config.model.kind", []),
    "kind that is long": put("config.model.kind", "x" * 10**6),
    "unknown field that is long": put("x" * 10**6, 1),
    "activation that is an object": put("config.model.layers", [{"kind": "Activation", "name": {}}]),
    "old activation that is an object": put(
        "config.model",
        {"kind": "Sequential", "layers": [{"kind": "Activation", "name": {}}, {"kind": "Dense", "activation": []}, 3]},
    ),
    "version that is text": put("config.model.version", "2"),
    "old optimizer that is a list": put("config.optim", {"kind": "OptimConfig", "name": [], "momentum": {}}),
    "optimizer that is a list": put("config.optim.name", []),
    "list of 100,000 numbers for text": put("device", [0] * 10**5),
    "number of 400 digits": put("config.optim.learning_rate", 10**400),
    "number of 19 digits": put("config.train.batch_size", 2**63),
    "number of 5,000 digits": "9" * 5000,
    "infinity": put("config.optim.learning_rate", float("inf")),
    "half a surrogate": '"\\ud800',
    "depth of 1,000": "[" * 1000 + "]" * 1000,
    "depth of 100,000": "[" * 10**5 + "]" * 10**5,
    "history that is deep": '0, "history": [{"a": ' + "[" * 200 + "]" * 200 + "}]",
    "four million values": "[" + "0," * (json_files.MOST_VALUES + 1) + "0]",
    "fewer class names than outputs": put("class_names", ["a"]),
    "more class names than outputs": put("class_names", ["a", "b", "c", "d"]),
    "no outputs": put("num_outputs", 0),
    "a trillion outputs": put("num_outputs", 10**12),
    "dtype of objects": put("input_spec.dtype", "object"),
    "dtype of a gigabyte": put("input_spec.dtype", "V1000000000"),
    "input without axes": put("input_spec.shape", []),
    "input of negative size": put("input_spec.shape", [-5, 5, 1]),
    "input of a terapixel": put("input_spec.shape", [10**6, 10**6, 1]),
    "no steps an epoch": put("steps_per_epoch", 0),
    "step below zero": put("step", -1),
    "failures of others": put("failed_steps", [None, None, 3]),
    "30,000 layers in a block": put("config.model.layers", [{"kind": "Paths", "paths": [[RELU] * 30_000]}]),
    "30,000 paths": put("config.model.layers", [{"kind": "Paths", "paths": [[]] * 30_000}]),
    "blocks 15 deep": put("config.model.layers", [blocks(15)]),
    "blocks without paths": put("config.model.layers", [{"kind": "Paths"}]),
    "paths that are layers": put("config.model.layers", [{"kind": "Paths", "paths": [RELU]}]),
    "name that is long": put("config.model.layers", [{**RELU, "version": 2, "function": "relu", "name": "x" * 10**6}]),
    "30,000 layers": put("config.model.layers", [RELU] * 30_000),
}


# Counting the calls of these takes seconds.
COUNTED = ("30,000 layers in a block", "30,000 layers")
# Of functions, in place of seconds, which depend on the machine; "30,000 layers" takes 5 million.
MOST_CALLS = 20_000_000


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Counts the functions that this thread calls meanwhile, of Python and of C."""
    calls: Counter[str] = Counter()
    sys.setprofile(lambda frame, event, argument: calls.update([event]) if event.endswith("call") else None)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("name", [*(name for name in SENSELESS if name not in COUNTED), *further(COUNTED)])
def test_record_without_sense_is_answered_in_one_short_line_at_once(name: str, run: Path):
    rewrite(run, SENSELESS[name])
    with pytest.raises(engine.InputError) as told, counted_calls() as calls:
        read_record(run, int(step_of(run).name))
    assert "\n" not in str(told.value)
    assert len(str(told.value).replace(str(run), "")) < 1000
    assert calls.total() < MOST_CALLS


def test_layers_are_named_in_time_linear_in_their_number():
    names = Sequential((Flatten(), *[Dense(1)] * 1_998)).layer_names
    assert names[0] == "flatten_1"
    assert names[1:4] == ("dense_1", "dense_2", "dense_3")
    assert len(set(names)) == 1_999


@pytest.mark.parametrize(("path", "value"), [("config.train.members", 10**6), ("num_outputs", 5)])
def test_arrays_of_other_shapes_than_the_record_says_are_refused(path: str, value: Any, run: Path):
    def change(record: dict[str, Any]) -> None:
        put(path, value)(record)
        if path == "num_outputs":
            record["class_names"] = list("abcde")

    rewrite(run, change)
    with pytest.raises(engine.InputError, match=r"got \(.*\) of float32; expected \(.*\) of float32, by the record"):
        engine.restore(run)


def forge(run: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Arrays in place of a step's, with checksums that are right again."""
    import shutil

    from engine.checkpoints.checksums import array_checksum

    item = step_of(run) / "model"
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        given = checkpointer.restore(step_of(run), args=ocp.args.Composite(model=ocp.args.StandardRestore()))["model"]
    tree = jax.tree.map(change, given)
    shutil.rmtree(item)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        saved = ocp.args.Composite(model=ocp.args.StandardSave(tree))
        checkpointer.save(step_of(run).with_name("forged"), args=saved)
    shutil.move(step_of(run).with_name("forged") / "model", item)
    shutil.rmtree(step_of(run).with_name("forged"))
    rewrite(run, put("checksums.model", array_checksum(tree)))


@pytest.mark.parametrize(
    "change",
    [
        lambda leaf: np.zeros((*leaf.shape[:-1], leaf.shape[-1] * 1000), leaf.dtype),
        lambda leaf: leaf.astype(np.float64),
    ],
)
def test_arrays_that_would_unfold_are_refused_before_one_is_read(
    change: Callable[[np.ndarray], np.ndarray], run: Path, monkeypatch: pytest.MonkeyPatch
):
    forge(run, change)
    monkeypatch.setattr(ocp.CompositeCheckpointHandler, "restore", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(engine.InputError, match=r"expected \(.*\) of float32, by the record"):
        engine.restore(run)


def test_arrays_that_memory_does_not_hold_are_refused_before_one_is_read(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(steps, "free_host_bytes", lambda: 1000)
    with pytest.raises(engine.InputError, match=r"got arrays of .* memory that are free"):
        engine.restore(run)


@pytest.mark.parametrize("text", ["", "{}", '{"tree_metadata": 3}', "[" * 1000, '{"tree_metadata": {"a": {}}}'])
def test_description_of_arrays_that_is_none_is_told_in_one_line(text: str, run: Path):
    (step_of(run) / "model" / "_METADATA").write_text(text)
    write_sums(step_of(run))
    with pytest.raises(engine.InputError) as told:
        engine.restore(run)
    assert "\n" not in str(told.value)


def test_plan_of_a_model_that_memory_does_not_hold_is_told(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plan_module, "set_up_process", lambda *_: None)
    dense = {"kind": "Dense", "units": None, "activation": None, "use_bias": True}
    rewrite(run, put("config.model.layers", [{"kind": "Flatten"}, {**dense, "units": 10**12}, dense]))
    line = mistake(capsys, "plan", run)
    assert "GiB; expected at most" in line


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 10**5, "1e999", '{"kind": []}', "9" * 5000, "\0", '"\ud800"'])
def test_plan_file_that_is_none_is_told_in_one_line(text: str, tmp_path: Path):
    (tmp_path / "plan.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(engine.InputError) as told:
        read_plan(tmp_path / "plan.json", {})
    assert "\n" not in str(told.value)


def test_what_is_no_file_or_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(engine.InputError, match="expected a rule"):
            read_json(path, "a rule", "A remedy.")
    monkeypatch.setattr(json_files, "MOST_BYTES", 2**20)
    (tmp_path / "large").write_text("[" + " " * 2**20 + "]")
    with pytest.raises(engine.InputError, match="got more than 1 MiB"):
        read_json(tmp_path / "large", "a rule", "A remedy.")


def test_usual_json_is_read_as_by_the_library():
    text = '{"a": [1, -2.5, true, null, "ü"], "b": {"c": 9223372036854775807}}'
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), ("a", "'a'"), ([1, "b"], "[1, 'b']"), ({"a": 1}, "{'a': 1}"), ([[]] * 3, "a list of 3 values"),
     ("x" * 100, "'" + "x" * 80 + "'…"), (list(range(99)), "a list of 99 values")],
)  # fmt: skip
def test_values_are_shown_short(value: Any, text: str):
    assert shown(value) == text

"""Callbacks: called at the right times, with state that is saved and resumed; able to stop; named when they fail."""

import dataclasses
import json

import numpy as np
import pytest

import engine
from engine.checkpoints.steps import choose_step, read_record
from engine.errors import InputError
from engine.host.interrupts import Interrupted
from engine.runs.callbacks import HOOKS
from tests.conftest import TINY, make_dataset
from tests.runs.test_loop import StopsAt, all_arrays, start, without_seconds


class Noting(engine.Callback):
    """Notes each call; its state are the metrics at the end of epochs."""

    def __init__(self, stop_at: int | None = None, fail_in: str = ""):
        self.calls, self.losses, self.kept = [], [], []
        self.stop_at, self.fail_in = stop_at, fail_in

    def _note(self, hook, run):
        self.calls.append((hook, run.step))
        if hook == self.fail_in:
            raise KeyError("no such thing")
        if run.step == self.stop_at:
            run.stop("seen enough")

    def on_run_begin(self, run):
        assert run.metrics == {} or run.step
        self._note("on_run_begin", run)

    def on_step_chunk_end(self, run):
        assert "loss" in run.metrics
        self._note("on_step_chunk_end", run)

    def on_epoch_end(self, run):
        self.losses.append(run.metrics["validation_loss"])
        assert run.history[-1] == run.metrics
        self.kept.append(run.classifier)
        self._note("on_epoch_end", run)

    def on_save(self, run):
        assert choose_step(run.directory, "last") == run.step
        self._note("on_save", run)

    def on_run_end(self, run):
        self._note("on_run_end", run)

    def on_result(self, run):
        assert run.result.metrics
        self._note("on_result", run)

    def on_close(self, run):
        self._note("on_close", run)

    def get_state(self):
        return {"losses": self.losses, "best": float("inf")}

    def set_state(self, state):
        assert state["best"] == float("inf")
        self.losses = list(state["losses"])


@pytest.fixture
def config(tiny_config):
    """Two epochs of four steps, each a compiled call."""
    return dataclasses.replace(tiny_config, plan=engine.PlanConfig(chunk_steps=1))


def test_callbacks_are_called_in_order_and_see_metrics_and_classifier(config, splits, tmp_path):
    noting, other = Noting(), Noting()
    result = start(config, splits, tmp_path, callbacks=[noting, other])
    chunk = [("on_step_chunk_end", step) for step in range(1, 9)]
    ends = [("on_epoch_end", 4), ("on_save", 4)], [("on_epoch_end", 8), ("on_save", 8)]
    last = [(hook, 8) for hook in ("on_run_end", "on_result", "on_close")]
    assert noting.calls == [("on_run_begin", 0), *chunk[:4], *ends[0], *chunk[4:], *ends[1], *last]
    assert other.calls == noting.calls
    assert noting.losses == [row["validation_loss"] for row in result.history]
    for classifier, row in zip(noting.kept, result.history, strict=True):  # the arrays of a step outlive it
        assert classifier.evaluate(splits.validation)["loss"] == row["validation_loss"]
    stored = read_record(tmp_path, 8).callbacks
    assert list(stored) == [f"{Noting.__module__}:Noting", f"{Noting.__module__}:Noting#2"]


def test_state_is_resumed_as_if_never_stopped(config, splits, tmp_path):
    whole, first, second = Noting(), Noting(), Noting()
    start(config, splits, tmp_path / "whole", callbacks=[whole])
    with pytest.raises(Interrupted):
        start(config, splits, tmp_path / "parts", StopsAt(6), callbacks=[first])
    start(config, splits, tmp_path / "parts", callbacks=[second])
    assert first.losses == whole.losses[:1]
    assert second.losses == whole.losses
    stored = [read_record(tmp_path / name, 8) for name in ("whole", "parts")]
    assert stored[0].callbacks == stored[1].callbacks
    assert without_seconds(stored[0].history) == without_seconds(stored[1].history)
    said = []
    start(config, splits, tmp_path / "parts", Saying(said))
    assert f"callback {Noting.__module__}:Noting, which the run was trained with so far, is not among" in "".join(said)


class Saying(StopsAt):
    def __init__(self, said):
        super().__init__(10**9)
        self.said = said

    def say(self, message):
        self.said.append(str(message))


@pytest.mark.parametrize(("step", "num_epochs"), [(4, 1), (6, 1), (0, 0)])
def test_callback_stops_the_run_for_good_until_it_is_given_more_epochs(step, num_epochs, config, splits, tmp_path):
    result = start(config, splits, tmp_path, callbacks=[Noting(stop_at=step)])
    assert len(result.history) == num_epochs
    assert set(result.metrics) == {"validation", "test"}
    assert result.best_step == (4 if num_epochs else 0)
    record = read_record(tmp_path, choose_step(tmp_path, "last"))
    assert (record.step, record.is_complete) == (step, True)
    again = start(config, splits, tmp_path)
    assert again.best_step == result.best_step
    if step == 6:
        longer = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=3))
        parts, whole = start(longer, splits, tmp_path), start(longer, splits, tmp_path / "whole")
        assert without_seconds(parts.history) == without_seconds(whole.history)
        for one, other in zip(all_arrays(tmp_path, 12), all_arrays(tmp_path / "whole", 12), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("hook", HOOKS[:-1])
def test_failure_names_callback_and_line_and_leaves_the_run_saved(hook, config, splits, tmp_path):
    where = rf"callback {__name__}:Noting#2.{hook}: got KeyError: 'no such thing' \(.*test_callbacks.py, line \d+\)"
    saved = {"on_run_begin": None, "on_step_chunk_end": 1, "on_run_end": 8, "on_result": 8}.get(hook, 4)
    with pytest.raises(InputError, match=where) as caught:
        start(config, splits, tmp_path / "run", callbacks=[Noting(), Noting(fail_in=hook)])
    assert ("is saved in" in str(caught.value)) == (saved is not None)
    assert isinstance(caught.value.__cause__, KeyError)
    if saved is not None:
        assert choose_step(tmp_path / "run", "last") == saved
    if hook in ("on_step_chunk_end", "on_epoch_end"):
        resumed = start(config, splits, tmp_path / "run", callbacks=[Noting()])
        whole = start(config, splits, tmp_path / "whole")
        assert without_seconds(resumed.history) == without_seconds(whole.history)
        assert resumed.best_step == whole.best_step


class Stateful(engine.Callback):
    def __init__(self, *states):
        self.states = list(states)

    def on_epoch_end(self, run): ...

    def get_state(self):
        return self.states.pop(0)

    def set_state(self, state):
        raise ValueError(f"cannot take {state}")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"x": np.zeros(3)}, r"a state that is no JSON"),
        ({1: 2}, r"a dict whose keys are no texts"),
        ("x" * 2**21, r"2,097,154 bytes of state; expected at most 1,048,576"),
    ],
)
def test_state_that_no_record_can_hold_ends_the_run_with_the_last_good_one(state, message, config, splits, tmp_path):
    with pytest.raises(InputError, match=rf"Stateful.get_state: got {message}"):
        start(config, splits, tmp_path, callbacks=[Stateful({"good": (1, 2)}, state)])
    record = read_record(tmp_path, 8)
    assert record.callbacks == {f"{__name__}:Stateful": {"good": [1, 2]}}
    with pytest.raises(InputError, match=r"Stateful.set_state: got ValueError: cannot take {'good': \[1, 2\]}"):
        start(config, splits, tmp_path, callbacks=[Stateful()])


class Misspelt:
    def on_epoch_ended(self, run): ...


class Half(Misspelt):
    on_epoch_ended = None

    def on_epoch_end(self, run): ...

    def get_state(self): ...


class LikeKeras:
    def on_epoch_end(self, epoch, logs=None): ...


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([LikeKeras()], r"LikeKeras\.on_epoch_end: got parameters \(epoch, logs=None\); expected one, the run"),
        ([Noting], r"callbacks: got the class Noting; expected an object. Pass Noting\(\)."),
        ([Misspelt()], r"callbacks: Misspelt: got 'on_epoch_ended'; expected one of .* Did you mean 'on_epoch_end'\?"),
        ([object()], r"callbacks: got <object .* expected an object with one of the methods on_run_begin"),
        (Noting(), r"callbacks: got Noting; expected a list of callbacks"),
        (
            [engine.custom(make_dataset, size="big")],
            r"callbacks: got .*make_dataset: \w+Error: .*\(\S*conftest.py, line \d+\)",
        ),
    ],
)
def test_what_is_no_callback_is_refused_before_training(given, message, config, splits, tmp_path):
    with pytest.raises(InputError, match=message):
        start(config, splits, tmp_path, callbacks=given)


def test_experiment_names_callbacks_which_needs_no_trust_to_use_the_model(config, splits, tmp_path):
    config = dataclasses.replace(config, callbacks=(engine.custom(Noting, stop_at=4),))
    assert engine.RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(
        InputError, match=r"got an object of Noting; .*custom\(Noting\),\), or engine\.run\(config, callb"
    ):
        dataclasses.replace(config, callbacks=(Noting(),))
    result = start(config, splits, tmp_path)
    assert len(result.history) == 1
    engine.restore(tmp_path)
    plain = dataclasses.replace(config, callbacks=())
    assert "callbacks" not in plain.to_json()
    assert start(plain, splits, tmp_path).history == result.history  # callbacks may be other ones on resume
    record = json.loads((tmp_path / "checkpoints" / "4" / "record" / "metadata").read_text())
    assert {"callbacks", "is_stopped"} <= set(record)


def test_fit_calls_back_for_an_ensemble_too():
    noting = Noting(stop_at=2)
    result = engine.fit(TINY, make_dataset(100), epochs=3, members=2, callbacks=[noting], verbose=False)
    assert len(result.history) == 1
    assert len(noting.kept[0].members) == 2
    np.testing.assert_array_equal(
        noting.kept[0].outputs(make_dataset(9).images), result.classifier.outputs(make_dataset(9).images)
    )

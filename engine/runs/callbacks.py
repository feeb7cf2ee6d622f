"""Callbacks: code of the user's own that is called while a run trains, sees it, keeps state with it, and may stop it.

They are called between compiled calls. A run without any calls nothing.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from engine.checkpoints.record import Record
from engine.config import RunConfig, mesh_shape
from engine.errors import InputError, Say, error_text, problem, unknown
from engine.inference.classifier import Classifier
from engine.models.graph import Graph
from engine.models.specs import Sequential
from engine.processes.together import are_several, from_first, is_first
from engine.records import to_json
from engine.records.custom import Custom
from engine.runs.callback_state import state_problem
from engine.runs.result import Result
from engine.runs.session import Session
from engine.trackers.table import Log, make_trackers


class LiveRun:
    """A run as its callbacks see it; what is not listed here may change.

    config: its settings. directory: where it is kept. say: prints a line and logs it.
    result: of the finished run, in `on_result`; None before.
    """

    def __init__(self, session: Session, say: Say):
        self._session = session
        self.config: RunConfig = session.config
        self.directory: Path = session.directory
        self.say = say
        self.result: Result | None = None

    @property
    def step(self) -> int:
        """Steps trained."""
        return self._session.step

    @property
    def epoch(self) -> int:
        """Whole epochs trained."""
        return self._session.epoch

    @property
    def total_steps(self) -> int:
        """Steps of the run, if nothing stops it early."""
        return self._session.total_steps

    @property
    def history(self) -> tuple[dict[str, Any], ...]:
        """A row for each whole epoch, as in `Result.history`; copies."""
        return tuple(map(dict, self._session.history))

    @property
    def metrics(self) -> dict[str, Any]:
        """At the end of an epoch its row of the history; within one, the training metrics so far."""
        history = self._session.history
        if history and history[-1]["step"] == self.step:
            return dict(history[-1])
        found = self._session.training_metrics()
        return found if found.get("n") else {}

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The parameters as they are now, by path (`conv_1/kernel`); of an ensemble [m …], all members together.

        {} if several processes share the members, which only the run itself gathers.
        """
        if self._are_members_shared:
            return {}
        parts, params = self._session.setup.model.layers.parts, nnx.to_flat_state(self._session.whole_model[0])
        return {"/".join(map(str, parts(path))): leaf for path, leaf in jax.device_get(dict(params)).items()}

    @property
    def _are_members_shared(self) -> bool:
        return are_several() and mesh_shape(self._session.plan.mesh)[0] > 1

    @property
    def graph(self) -> Graph | None:
        """The model's layers and which feeds which; None of a class of the user's own."""
        model, spec = self.config.model, self._session.setup.model
        return model.graph(spec.inputs.network_shape, spec.num_outputs) if isinstance(model, Sequential) else None

    @property
    def classifier(self) -> Classifier:
        """The model as it is now, on a copy of its arrays: to evaluate, to predict with, or to keep.

        Raises InputError if several processes share the members: only the run itself gathers them.
        """
        if self._are_members_shared:
            rule = "metrics and history, where several processes share the members"
            raise InputError(
                problem("callbacks", "classifier", rule, "Use these, or split the batches: --mesh data=N.")
            )
        return self._session.classifier()

    def stop(self, reason: str = "") -> None:
        """Ends the run after the steps trained so far, as early stopping does: saved, evaluated and reported.

        reason: printed and logged, if there is one.
        """
        if reason:
            self.say(f"a callback stops the run: {reason}")
        self._session.is_stopped = True


class Callback:
    """What a callback may have, all of it optional; to be derived from, or imitated. An error in it ends the run.

    `metrics` and `classifier` of the run are computed when they are used. Of several processes, process 0 calls them.
    """

    def on_run_begin(self, run: LiveRun) -> None:
        """Before the first step, of a resumed run too."""

    def on_step_chunk_end(self, run: LiveRun) -> None:
        """After each compiled call: about a second of training, or the rest of an epoch if that is less.

        That is before `on_epoch_end`, if the epoch is over.
        """

    def on_epoch_end(self, run: LiveRun) -> None:
        """After an epoch is trained and validated, and before it is saved."""

    def on_save(self, run: LiveRun) -> None:
        """After a checkpoint is on disk; training waits for that. State that changes here is saved the next time."""

    def on_run_end(self, run: LiveRun) -> None:
        """After the last step is saved, unless an error or Ctrl-C ended the run."""

    def on_result(self, run: LiveRun) -> None:
        """After the run is evaluated and its pictures are drawn: `run.result`."""

    def on_close(self, run: LiveRun) -> None:
        """Last of all, whatever ended the run. An error in it is printed, and nothing else."""

    def get_state(self) -> Any:
        """What to save with each checkpoint, as JSON has it: None, numbers, texts, lists, and dicts with text keys."""

    def set_state(self, state: Any) -> None:
        """Takes what `get_state` returned, when a run is resumed and before `on_run_begin`."""


HOOKS = ("on_run_begin", "on_step_chunk_end", "on_epoch_end", "on_save", "on_run_end", "on_result", "on_close")


class CallbackFailed(InputError):
    """An error that a callback raised."""


class Callbacks:
    """The callbacks of a run, by the import path of their class.

    waits_for_saves: whether one is called after each save. states: of those that have any, as they were last read.
    Of several processes, process 0 has all of them, and says whether there are any: the others join each of its calls.
    """

    def __init__(self, callbacks: Sequence[Any], run: LiveRun, resumed: Record | None = None):
        self._run, self._by_name = run, dict[str, Any]()
        for callback in callbacks:
            name = f"{type(callback).__module__}:{type(callback).__qualname__}"
            same = sum(each.split("#")[0] == name for each in self._by_name)
            self._by_name[f"{name}#{same + 1}" if same else name] = callback
        waits = any(_overrides(each, "on_save") for each in callbacks)
        self._are_any, self.waits_for_saves = from_first(lambda: [bool(self._by_name), waits])
        self.states: dict[str, Any] = dict(resumed.callbacks or {}) if resumed else {}
        for name, state in self.states.items():
            if not is_first():
                continue
            if name in self._by_name:
                self._call(name, "set_state", state)
            else:
                run.say(f"callback {name}, which the run was trained with so far, is not among those given")

    def call(self, hook: str) -> None:
        """Calls them in order; raises CallbackFailed, naming the callback, for whatever one raises."""
        self._by_first(lambda: [self._call(name, hook, self._run) for name in self._by_name])

    def finish(self, result: Result) -> Result:
        """Hands the result to them, and on."""
        self._run.result = result
        if self._by_name:
            _ = result.directory  # which they may look into
        self.call("on_result")
        return result

    def close(self) -> None:
        """Lets each of them close, and prints the errors of those that cannot."""
        for name in self._by_name if is_first() else ():
            try:
                self._call(name, "on_close", self._run)
            except CallbackFailed as error:
                self._run.say(f"warning: {error}")

    def read_states(self) -> dict[str, Any] | None:
        """The state of each that has any; None if none has. Raises CallbackFailed."""
        self._by_first(self._read_states)
        return self.states or None

    def _read_states(self) -> None:
        for name, callback in self._by_name.items():
            if _overrides(callback, "get_state"):
                state = self._call(name, "get_state")
                if found := state_problem(state):
                    raise CallbackFailed(self._problem(name, "get_state", *found))
                self.states[name] = to_json(state)

    def _by_first(self, work: Callable[[], object]) -> None:
        """Lets process 0 do it; what fails there has failed in all."""
        if not self._are_any:
            return
        if not are_several():
            work()
            return
        try:
            from_first(lambda: bool(work()))
        except InputError as error:
            raise CallbackFailed(*error.problems) from None

    def _call(self, name: str, method: str, *arguments: Any) -> Any:
        function = getattr(self._by_name[name], method, None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except Exception as error:  # whatever the user's code raises
            raise CallbackFailed(self._problem(name, method, error_text(error), "no error")) from error

    def _problem(self, name: str, method: str, got: str, rule: str) -> str:
        go_on = "correct it, then resume the run (resume=True, --resume)"
        saved = f"Step {self._run.step:,} is saved in {self._run.directory}: {go_on}."
        return problem(f"callback {name}.{method}", got, rule, saved if self._run.step else "Correct it.")


def make_callbacks(config: RunConfig, given: Sequence[Any], log: Log = (), has_directory: bool = True) -> list[Any]:
    """Those that the config names, made, those at hand, and in the first process the trackers to log to.

    Raises InputError for what is no callback, and what make_trackers raises.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(problem("callbacks", type(given).__name__, "a list of callbacks", "Put it in brackets."))
    made = [each.make("callbacks") if isinstance(each, Custom) else each for each in (*config.callbacks, *given)]
    for callback in made:
        if found := _callback_problem(callback):
            raise InputError(found)
    return [*made, *(make_trackers(log, has_directory) if is_first() else ())]


def _callback_problem(callback: Any) -> str | None:
    name, rule = type(callback).__name__, f"an object with one of the methods {', '.join(HOOKS)}"
    if isinstance(callback, type):
        return problem("callbacks", f"the class {callback.__name__}", "an object", f"Pass {callback.__name__}().")
    hooks = [each for each in dir(type(callback)) if each.startswith("on_")]
    if wrong := [each for each in hooks if each not in HOOKS]:
        return unknown(f"callbacks: {name}", wrong[0], HOOKS)
    if not any(_overrides(callback, each) for each in HOOKS):
        return problem("callbacks", repr(callback)[:80], rule, "Derive it from engine.Callback.")
    if wrong := next((each for each in HOOKS if not _takes_run(getattr(callback, each, None))), None):
        taken = inspect.signature(getattr(callback, wrong))
        remedy = f"Write {wrong}(self, run): it has run.epoch, run.metrics, run.history, run.stop()."
        return problem(f"callbacks: {name}.{wrong}", f"parameters {taken}", "one, the run", remedy)
    if _overrides(callback, "get_state") != _overrides(callback, "set_state"):
        return problem(f"callbacks: {name}", "one of get_state and set_state", "both or none", "Write the other.")
    return None


def _takes_run(hook: Any) -> bool:
    """Whether a hook can be called with the run alone, and does not take it for an epoch, as those of Keras would."""
    try:
        parameters = inspect.signature(hook).parameters if callable(hook) else {"run": None}
        if callable(hook):
            inspect.signature(hook).bind(None)
    except TypeError:
        return False
    except ValueError:  # no signature to be seen
        return True
    return "logs" not in parameters


def _overrides(callback: Any, name: str) -> bool:
    """Whether a callback has a method of its own of this name."""
    return getattr(type(callback), name, None) not in (None, getattr(Callback, name))

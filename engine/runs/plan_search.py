"""Planning: by which plan a run is executed. By rule where the rule is clear, by a short measurement where it is not.

What was measured is kept in the cache, for this device, these versions, this model and batch.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np

from engine.augment.config import AugmentConfig
from engine.config import EnsembleConfig, PlanConfig, RunConfig
from engine.config.finetune import FineTuneConfig
from engine.config.matters import PLAN
from engine.config.plan import Alternative, Plan, PlanFile
from engine.data.decoded.dataset import Dataset, Splits
from engine.devices.precision import computes
from engine.errors import InputError, Say, problem
from engine.host.clock import Clock
from engine.host.json_files import read_json
from engine.host.storage import cache_directory, expanded, write_atomically
from engine.host.versions import device_text, versions
from engine.kernels import direct
from engine.kernels.lowerings import choose_lowering
from engine.models.specs import Model
from engine.processes.together import are_several, from_first
from engine.records import differences, from_json, to_json
from engine.runs.session import Session
from engine.runs.setup import splits_by_hand

# Examples that all members train on together; a shorter run is over before it has paid.
WORTH_MEASURING = 200_000
WORTH_MEASURING_ON_GPU = 20_000_000  # which trains a hundred times as many a second
MEASURED_STEPS = 8
MEASURED_SECONDS = 0.5
ROUNDS = 3
MOST_SHARE = 0.1  # of a run, that measuring may take: members multiply both


def search_plan(config: RunConfig, train: Dataset, say: Say) -> PlanFile | None:
    """The plan of a run that starts; None means the one by rule.

    Raises InputError for a file that holds no plan, or one made for another model or device.
    """
    mode = config.plan.mode
    if mode == "safe":
        return None
    if mode not in ("auto", "fast"):
        made_for = circumstances(config, train)
        found = from_first(lambda: to_json(read_plan(expanded(mode), made_for)))
        return from_json(PlanFile, found, mode)
    if are_several():  # which would measure, each for itself, what others train with
        if mode == "fast":
            rule, remedy = "auto, safe or a file, in several processes", "Measure in one: engine plan RUN --out FILE."
            raise InputError(problem("plan", "fast", rule, remedy))
        return None
    examples = len(train) * config.train.epochs * config.train.members
    if mode == "auto" and (_rule_is_clear(config) or examples < _worth_measuring(config)):
        return None
    return measured(config, train, say)


def choice_text(config: RunConfig, was_measured: bool) -> str:
    """By what a run's plan was chosen; `was_measured`: the run has rates of its own, from before it started."""
    mode = config.plan.mode
    if mode == "safe":
        return "by --plan safe"
    if mode not in ("auto", "fast"):
        return f"by --plan {mode}"
    if was_measured:
        return "by a measurement before the run started, whose rates were others or which left out what the config pins"
    if _rule_is_clear(config):
        return "by rule and by the config, which leave nothing open to be measured"
    least = f"{_worth_measuring(config):,} training examples (of all epochs and members)"
    return f"by rule, without measuring, which pays from {least} on; --plan fast measures before a run of any length"


def _worth_measuring(config: RunConfig) -> int:
    """Training examples, of all epochs and members, from which on it pays to measure."""
    usual = WORTH_MEASURING_ON_GPU if jax.default_backend() == "gpu" else WORTH_MEASURING
    sample = MEASURED_STEPS * config.train.batch_size * config.train.members
    return max(usual, round(sample * (1 + ROUNDS) * len(_candidates(config)) / MOST_SHARE))


@computes
def measured(config: RunConfig, train: Dataset, say: Say, again: bool = False) -> PlanFile:
    """The fastest plan for a model and data like these, by measurement; from the cache unless `again`."""
    made_for, candidates = circumstances(config, train), _candidates(config)
    key = json.dumps([made_for, versions(), to_json(tuple(candidates))], sort_keys=True)
    directory = cache_directory(config.data.cache_dir) / "plans"
    file = directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(InputError):
        if not again:
            return read_plan(file, made_for)
    say(f"measuring {len(candidates)} ways to run this model …")
    rates = _rates(config, train.take(np.arange(min(len(train), MEASURED_STEPS * config.train.batch_size)), train.name))
    plans = dict(sorted(rates.items(), key=lambda item: -item[1]))
    found = tuple(Alternative(plan, round(rate, 1)) for plan, rate in plans.items())
    result = PlanFile(made_for, found[0].plan, found)
    directory.mkdir(parents=True, exist_ok=True)
    write_plan(file, result)
    return result


def read_plan(path: Path, made_for: dict[str, Any]) -> PlanFile:
    """The plan in a file; raises InputError if there is none, or if it was made for something else."""
    rule = "auto, fast, safe, or a file that `engine plan RUN --out FILE` wrote"
    found = from_json(PlanFile, read_json(path, rule, "Choose one of these."), str(path))
    found_differences = differences(_in_todays_fields(found.made_for), made_for)
    if found_differences:
        shown = "; ".join(each.text("made for", "this is") for each in found_differences)
        rule, remedy = "one for this model, batch and device", "Use --plan fast to measure here."
        raise InputError(problem("plan", f"{path}, a plan for another ({shown})", rule, remedy))
    return found


def write_plan(path: Path, plan: PlanFile) -> None:
    """Leaves a plan in a file that `--plan FILE` takes."""
    write_atomically(path, json.dumps(to_json(plan), indent=2) + "\n")


def circumstances(config: RunConfig, train: Dataset) -> dict[str, Any]:
    """What a plan is made for, as JSON."""
    paths = [path for path, mark in config.marks().items() if PLAN in mark]
    return {
        "device": device_text(),
        "inputs": [train.images.dtype.name, *train.input_shape],
        "classes": train.num_classes,
        **{path[-1]: to_json(reduce(getattr, path, config)) for path in paths},
    }


def _in_todays_fields(made_for: dict[str, Any]) -> dict[str, Any]:
    """Circumstances, perhaps of an earlier version, with the fields that models and augmentation have today."""
    kinds = {"model": Model, "augment": AugmentConfig}
    return {name: to_json(from_json(kinds[name], v, name)) if name in kinds else v for name, v in made_for.items()}


def _rule_is_clear(config: RunConfig) -> bool:
    has_one_lowering = config.plan.lowering != "auto" or jax.default_backend() == "cpu"
    return has_one_lowering and (config.train.members == 1 or config.plan.member_mapping != "auto")


def _candidates(of_run: RunConfig) -> list[PlanConfig]:
    """What is worth comparing on this platform: everything that the config leaves open."""
    config, num_members = of_run.plan, of_run.train.members
    is_cpu = jax.default_backend() == "cpu"
    on_gpu = ["xla", "matrix", *(["direct"] if direct.is_available() and config.mesh is None else [])]
    lowerings = [choose_lowering(config, "cpu", is_by_hand=splits_by_hand(of_run))] if is_cpu else on_gpu
    mappings = ["outer", "vmap"] if num_members > 1 else ["outer"]
    open_fields = {
        "lowering": lowerings if config.lowering == "auto" else [config.lowering],
        "member_mapping": mappings if config.member_mapping == "auto" else [config.member_mapping],
    }
    rows = product(*open_fields.values())
    return [replace(config, mode="auto", **dict(zip(open_fields, row, strict=True))) for row in rows]


def _rates(config: RunConfig, sample: Dataset) -> dict[Plan, float]:
    """Images a second by each plan. The plans take turns, so that a slow moment of the machine hits them all."""
    trainings: dict[Plan, Callable[[], float]] = {}
    for candidate in _candidates(config):
        plan, training = _training(replace(config, plan=candidate), sample)
        trainings.setdefault(plan, training)
    rounds = [{plan: training() for plan, training in trainings.items()} for _ in range(ROUNDS)]
    return {plan: float(np.median([row[plan] for row in rounds])) for plan in trainings}


def _training(config: RunConfig, sample: Dataset) -> tuple[Plan, Callable[[], float]]:
    """(plan, a function that trains a while and says how many images a second that were) of a config."""
    session = make_probe(config, sample)

    def rate() -> float:
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < MEASURED_SECONDS / ROUNDS:
            images += train_sample(session)
        return images / (time.perf_counter() - start)

    train_sample(session)  # compiles
    return session.plan, rate


def make_probe(config: RunConfig, sample: Dataset) -> Session:
    """A session that trains on a sample to see how long that takes: whatever does not change this is left out."""
    train, optim = replace(config.train, epochs=1, patience=None, min_delta=0.0, start_epoch=0), config.optim
    if optim.schedule == "plateau":  # which needs validation data
        optim = replace(optim, schedule="constant")
    data, rest = replace(config.data, standardize=None), {"ensemble": EnsembleConfig(), "finetune": FineTuneConfig()}
    changed = replace(config, train=train, optim=optim, data=data, **rest)
    return Session(changed, Splits(sample), Clock(), Path("nowhere"))


def train_sample(session: Session) -> int:
    """Trains on all examples of the sample once; returns how many they are, of all members."""
    end = session.step + session.steps_per_epoch
    while session.step < end:
        session.train_chunk()
    return session.images_per_epoch

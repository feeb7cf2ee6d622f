"""`restore` opens what a run has saved; `join` makes one ensemble of several runs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from engine.checkpoints.packing import opened
from engine.checkpoints.record import Record
from engine.checkpoints.steps import check_model_fits, choose_step, read_record, restore_arrays
from engine.config import CombinationKind
from engine.data.classes.matching import match
from engine.data.classes.names import names_text
from engine.devices.precision import computes
from engine.errors import InputError, problem
from engine.host.console import tell
from engine.host.storage import expanded
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier, _joined_levels, combination_of, member_of, members_of
from engine.inference.single import SingleClassifier
from engine.kernels.lowerings import evaluation_lowering
from engine.metrics.combination import fit
from engine.models.specs import Sequential
from engine.networks.network import abstract_arrays, network_of
from engine.records import differences, to_json
from engine.records.custom import NOTEBOOK, Custom, check_trust, custom
from engine.text import counted

Restorable = Classifier | str | PathLike[str]


def restore(
    path: str | PathLike[str],
    step: int | str = "best",
    trust: bool = False,
    member: int | None = None,
    model: Callable[..., Any] | None = None,
) -> Classifier:
    """The Classifier of a run, in its directory or packed: its best step by default, or "last", or a step by number.

    trust: allow the import of the classes and functions of its author's own that the run names, which runs their code.
    model: the class of the author's own that the run's model is of, in place of the one that it names: of a run from a
      notebook, which has its class in no file. It needs no trust, other code of the author's own does.
    Of an ensemble an EnsembleClassifier, each member by default as it was when it was best, or one `member` by number.
    Opens on any device kind. Raises InputError if there is no complete checkpoint that this version can read.
    """
    if not isinstance(path, str | PathLike):
        rule = "the directory or packed file of a run"
        raise InputError(problem("path", type(path).__name__, rule, "Pass its path."))
    with opened(expanded(path)) as directory:
        return _restored(directory, step, trust, member, model)


@computes
def _restored(directory: Path, step: int | str, trust: bool, member: int | None, model: Any) -> Classifier:
    record = read_record(directory, choose_step(directory, step))
    config = record.config.without_source
    if model is None:
        is_lost = isinstance(config.model, Custom) and config.model.path.startswith(f"{NOTEBOOK}:")
        ways = "Define it again, and pass it, model=…, or pass trust=True" if is_lost else "Pass trust=True (--trust)"
        check_trust(config, str(directory), trust, ways)
    else:
        record = _with_class(record, model)
        check_trust(replace(config, model=Sequential(())), str(directory), trust)
    check_model_fits(str(directory), record)
    train, spec = record.config.train, record.input_spec
    index = None if member is None else _index_of(member, record)
    lowering = evaluation_lowering(record.config.plan)
    of_record = (spec.network_shape, record.num_outputs, lowering, spec.whiten, train.precision)
    network, _ = network_of(record.config.model, *of_record)
    abstract = abstract_arrays(record.config.model, *of_record[:-1])
    if train.members == 1:
        arrays = restore_arrays(directory, record, model=abstract)["model"]
        return SingleClassifier(record, network, *jax.device_put(arrays))
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((train.members, *leaf.shape), leaf.dtype), abstract)
    item = "best" if step == "best" and "best" in record.checksums else "model"
    restored = restore_arrays(directory, record, **{item: stacked})[item]
    one = SingleClassifier(record, network, *abstract)
    if index is not None:
        return member_of(one, restored, index)
    return EnsembleClassifier(members_of(one, restored), combination_of(record), record)


def _with_class(record: Record, model: Any) -> Record:
    """The record with a class at hand in place of the one that it names; raises InputError for a model of layers."""
    stored = record.config.model
    if not isinstance(stored, Custom):
        rule, remedy = "none: the run's model is made of layers", "Leave it out."
        raise InputError(problem("model", getattr(model, "__name__", repr(model)), rule, remedy))
    given = model if isinstance(model, Custom) else custom(model)
    return replace(record, config=replace(record.config, model=replace(stored, path=given.path)))


def classifier_of(given: Restorable, field: str, trust: bool = False) -> Classifier:
    """A classifier at hand as it is, or that of a run, opened. Raises InputError for anything else."""
    if isinstance(given, Classifier):
        return given
    if isinstance(given, str | PathLike):
        return restore(given, trust=trust)
    rule = "a classifier, or the directory or packed file of a run"
    raise InputError(problem(field, type(given).__name__, rule, "Pass one of these."))


def join(parts: Sequence[Restorable], combine: CombinationKind = "mean", trust: bool = False) -> EnsembleClassifier:
    """The members of several classifiers, or runs in directories or packed, as one that weighs them all the same.

    They may be of different architectures; input contract and class names must agree, these in any order: that of the
    first is the ensemble's.
    combine: mean (of probabilities), logits or vote. Members that an ensemble leaves out stay out.
    trust: as for `restore`.
    Raises InputError, showing both sides, if they do not go together.
    """
    if isinstance(parts, str | PathLike | Classifier):
        raise InputError(problem("parts", "one alone", "a list of them", "Put it in brackets."))
    classifiers = [classifier_of(part, "parts", trust) for part in parts]
    if not classifiers:
        raise InputError(problem("parts", "none", "at least one classifier or directory of a run", "Name them."))
    if combine not in ("mean", "logits", "vote"):
        rule = "mean, logits or vote, for which nothing need be fitted"
        raise InputError(problem("combine", repr(combine), rule, "Choose one of these."))
    if combine != "mean" and not classifiers[0].class_names:
        raise InputError(problem("combine", repr(combine), "the mean, of regressions", "Leave it out."))
    for other in classifiers[1:]:
        _check_same(classifiers[0], other)
    members = [member for part in classifiers for member in _counted_members(part)]
    return EnsembleClassifier(members, fit(combine, None, None, False, np.ones(len(members), bool)))


def _counted_members(classifier: Classifier) -> list[SingleClassifier]:
    if isinstance(classifier, SingleClassifier):
        return [classifier]
    assert isinstance(classifier, EnsembleClassifier)
    weighed = zip(classifier.members, classifier.combination.weights, strict=True)
    return [member for member, weight in weighed if weight > 0]


def _check_same(ours: Classifier, theirs: Classifier) -> None:
    if len(ours.class_names) != len(theirs.class_names):
        got, rule = _classes_text(theirs), f"{_classes_text(ours)}, as the first part"
        remedy = "Train all on the same classes: a model cannot give a probability to a class that it does not know."
        raise InputError(problem("parts", got, rule, remedy))
    if note := match(theirs.class_names, ours.class_names, "parts", "the first part").note:
        tell(note)
    if not ours.class_names and ours.record.num_outputs != theirs.record.num_outputs:
        got, rule = f"{theirs.record.num_outputs} outputs", f"{ours.record.num_outputs}, as the first part"
        raise InputError(problem("parts", got, rule, "Join models of the same targets."))
    if ours.record.task != theirs.record.task:
        several, one = "several labels a picture", "one class a picture"
        got, rule = (several, one) if theirs.record.task == "labels" else (one, several)
        raise InputError(problem("parts", got, f"{rule}, as the first part", "Join models of the same targets."))
    spec = theirs.input_spec
    spec = replace(spec, levels=_joined_levels(ours.input_spec.levels, spec.levels))
    if ours.input_spec != spec:
        stored, given = to_json(ours.input_spec), to_json(spec)
        lines = [each.text("first", "other") for each in differences(stored, given)]
        got = f"another input contract ({'; '.join(lines)})"
        raise InputError(problem("parts", got, "that of the first part", "Join models trained for the same inputs."))


def _classes_text(classifier: Classifier) -> str:
    names = classifier.class_names
    return f"{counted(len(names), 'class')} ({names_text(names)})" if names else "a regression"


def _index_of(member: int, record: Record) -> int:
    train = record.config.train
    numbers = range(train.first_member, train.first_member + train.members)
    if member not in numbers:
        rule = f"a member of the run: {numbers[0]} to {numbers[-1]}" if train.members > 1 else "none: a single model"
        raise InputError(problem("member", member, rule, "Leave it out, or give one of these."))
    return numbers.index(member)

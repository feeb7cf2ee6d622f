"""EnsembleClassifier: several models that answer together; and `restore`, which opens what a run has saved."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from engine.augment.config import AugmentConfig
from engine.calibration import scores
from engine.checkpoint import Record, choose_step, read_record, restore_arrays
from engine.combination import LEAST_PROBABILITY, Combination, fit
from engine.config import CombinationKind
from engine.data.dataset import Dataset, names_text
from engine.data.stored import StoredImages
from engine.errors import InputError, problem
from engine.models.specs import Custom
from engine.predict import EVALUATION_LOWERING, Classifier
from engine.records import differences, to_json
from engine.state import Tree, network_of

Restorable = Classifier | str | PathLike[str]


class EnsembleClassifier(Classifier):
    """Members with one input contract and the same classes, combined. Asked like any Classifier."""

    def __init__(self, members: Sequence[Classifier], combination: Combination, record: Record | None = None):
        self.members, self.combination = tuple(members), combination
        self.record = record or self.members[0].record

    def outputs(self, images: np.ndarray | StoredImages, tta: int | AugmentConfig = 0) -> np.ndarray:
        """float32[n k] for an array [n …] that fits the input contract: probabilities, or a regression's outputs."""
        return self.combined(self.member_outputs(images, tta)).astype(np.float32)

    def member_outputs(
        self, images: np.ndarray | StoredImages, tta: int | AugmentConfig = 0, everyone: bool = False
    ) -> np.ndarray:
        """float32[m n k]: the outputs of each member, 0 for one that is left out.

        everyone: also of members whose weight is 0, unless their training failed.
        """
        failed = self.record.failed_steps or (None,) * len(self.members)
        found = [
            member.outputs(images, tta) if weight > 0 or (everyone and failed_step is None) else None
            for member, weight, failed_step in zip(self.members, self.combination.weights, failed, strict=True)
        ]
        like = next(each for each in found if each is not None)
        return np.stack([np.zeros_like(like) if each is None else each for each in found])

    def combined(self, outputs: np.ndarray) -> np.ndarray:
        """[n k] of the members' outputs [m n k]."""
        if not self.class_names:
            return np.tensordot(np.asarray(self.combination.weights), outputs, axes=1)
        return self.combination.combine(logarithms(outputs))

    def evaluate(self, dataset: Dataset) -> dict[str, Any]:
        """n, loss (negative log-likelihood), accuracy, Brier score and calibration error over every example."""
        return self.scores_of(self.member_outputs_on(dataset), dataset)

    def member_outputs_on(self, dataset: Dataset) -> np.ndarray:
        """float32[m n k]: `member_outputs` of a dataset that fits."""
        self.check_fits(dataset)
        return self.member_outputs(dataset.images)

    def scores_of(self, outputs: np.ndarray, dataset: Dataset) -> dict[str, Any]:
        """What `evaluate` says, from the members' outputs [m n k]."""
        combined = self.combined(outputs)
        if self.class_names:
            found = scores(combined, dataset.labels)
            return {"n": found["n"], "loss": found["nll"], **{k: v for k, v in found.items() if k not in ("n", "nll")}}
        squared = np.square(combined - dataset.labels).mean()
        return {"n": len(dataset), "loss": float(squared)}


def logarithms(probabilities: np.ndarray) -> np.ndarray:
    """float32 natural logarithms, of 0 that of the smallest normal float32."""
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY, dtype=np.float32))


def restore(
    path: str | PathLike[str], step: int | str = "best", trust: bool = False, member: int | None = None
) -> Classifier:
    """The Classifier of a run's directory: its best step by default, or "last", or a step by number.

    trust: allow the import of the user's own model class that the run names; opening runs that code.
    Of an ensemble an EnsembleClassifier, each member by default as it was when it was best, or one `member` by number.
    Opens on any device kind. Raises InputError if there is no complete checkpoint that this version can read.
    """
    directory = Path(path).expanduser()
    record = read_record(directory, choose_step(directory, step))
    if isinstance(record.config.model, Custom) and not trust:
        got = f"a model of the class {record.config.model.path}"
        remedy = "Pass trust=True (--trust) to import that class, which runs its module's code."
        raise InputError(problem(str(directory), got, "a model made of layer specs, or trust", remedy))
    train, spec = record.config.train, record.input_spec
    index = None if member is None else _index_of(member, record)
    network, init = network_of(record.config.model, spec.shape, record.num_outputs, EVALUATION_LOWERING, spec.whiten)
    abstract = jax.eval_shape(init, np.uint32(0))
    if train.members == 1:
        model = restore_arrays(directory, record, model=abstract)["model"]
        return Classifier(record, network, *jax.device_put(model))
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((train.members, *leaf.shape), leaf.dtype), abstract)
    item = "best" if step == "best" and "best" in record.checksums else "model"
    restored = restore_arrays(directory, record, **{item: stacked})[item]
    one = Classifier(record, network, *abstract)
    if index is not None:
        return member_of(one, restored, index)
    return EnsembleClassifier(members_of(one, restored), combination_of(record), record)


def members_of(like: Classifier, stacked: tuple[Tree, Tree]) -> list[Classifier]:
    """The classifiers of an ensemble's stacked (params, model_state), sharing what `like` has compiled."""
    return [member_of(like, stacked, index) for index in range(like.record.config.train.members)]


def member_of(like: Classifier, stacked: tuple[Tree, Tree], index: int) -> Classifier:
    """One of `members_of`."""
    record = like.record
    own = jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[index], stacked))
    return like.with_weights(replace(record, config=record.config.of_member(index)), *own)


def combination_of(record: Record) -> Combination:
    """The combination that was saved; before there is one, the members that are left count the same."""
    if record.combination is not None:
        return record.combination
    alive = np.array([step is None for step in record.failed_steps])
    return fit("mean", None, None, False, alive)


def join(parts: Sequence[Restorable], combine: CombinationKind = "mean") -> EnsembleClassifier:
    """The members of several classifiers, or directories of runs, as one that weighs them all the same.

    They may be of different architectures; input contract and class names must agree.
    combine: mean (of probabilities), logits or vote. Members that an ensemble leaves out stay out.
    Raises InputError, showing both sides, if they do not go together.
    """
    classifiers = [part if isinstance(part, Classifier) else restore(part) for part in parts]
    if not classifiers:
        raise InputError(problem("parts", "none", "at least one classifier or directory of a run", "Name them."))
    if combine not in ("mean", "logits", "vote"):
        rule = "mean, logits or vote, for which nothing need be fitted"
        raise InputError(problem("combine", repr(combine), rule, "Choose one of these."))
    for other in classifiers[1:]:
        _check_same(classifiers[0], other)
    members = [member for part in classifiers for member in _counted_members(part)]
    return EnsembleClassifier(members, fit(combine, None, None, False, np.ones(len(members), bool)))


def _counted_members(classifier: Classifier) -> list[Classifier]:
    if not isinstance(classifier, EnsembleClassifier):
        return [classifier]
    weighed = zip(classifier.members, classifier.combination.weights, strict=True)
    return [member for member, weight in weighed if weight > 0]


def _check_same(ours: Classifier, theirs: Classifier) -> None:
    if ours.class_names != theirs.class_names:
        rule = f"the classes of the first part ({names_text(ours.class_names)})"
        got = f"classes {names_text(theirs.class_names)}"
        raise InputError(problem("parts", got, rule, "Join models of the same classes."))
    if ours.input_spec != theirs.input_spec or ours.record.num_outputs != theirs.record.num_outputs:
        stored, given = to_json(ours.input_spec), to_json(theirs.input_spec)
        lines = [line.replace("stored", "first").replace("given", "other") for line in differences(stored, given)]
        got = f"another input contract ({'; '.join(lines)})"
        raise InputError(problem("parts", got, "that of the first part", "Join models trained for the same inputs."))


def _index_of(member: int, record: Record) -> int:
    train = record.config.train
    numbers = range(train.first_member, train.first_member + train.members)
    if member not in numbers:
        rule = f"a member of the run: {numbers[0]} to {numbers[-1]}" if train.members > 1 else "none: a single model"
        raise InputError(problem("member", member, rule, "Leave it out, or give one of these."))
    return numbers.index(member)

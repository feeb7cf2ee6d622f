"""EnsembleClassifier: several models that answer together; and `restore`, which opens what a run has saved."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from engine.augment.config import AugmentConfig
from engine.checkpoints.record import Record
from engine.config import MemberMapping, RunConfig
from engine.config.decoding import Levels
from engine.data.arrays.stored import StoredImages
from engine.data.classes.matching import match
from engine.data.classes.names import Names
from engine.data.decoded.dataset import Dataset
from engine.errors import InputError, problem
from engine.host.console import tell
from engine.inference.classifier import Classifier
from engine.inference.pictures_in import checked_array
from engine.inference.single import SingleClassifier
from engine.kernels.lowerings import evaluation_lowering
from engine.keys import stream_key
from engine.metrics.combination import FITTED_WEIGHTS, LEAST_PROBABILITY, Combination, fit
from engine.metrics.several import as_pairs
from engine.networks.build import build
from engine.networks.network import Network, Tree, Whitened
from engine.networks.stacked import Stacked
from engine.training.evaluate import Look

SIXTEEN_BITS = (0.0, 65535.0)


class EnsembleClassifier(Classifier):
    """Members with one input contract and the same classes, combined. Asked like any Classifier.

    orders: for each member, where it has each of the classes among its own outputs, int[k]; None where in this order.
    mapping: how members of one run are queried: one after another (outer), or all by one call, side by side (vmap)
      or in turn (map). None: outer on the CPU, whose convolution has no threads inside loops, vmap elsewhere.
    """

    def __init__(
        self,
        members: Sequence[SingleClassifier],
        combination: Combination,
        record: Record | None = None,
        mapping: MemberMapping | None = None,
    ):
        self.members, self.combination = tuple(members), combination
        alive = (None,) * len(self.members)
        super().__init__(record or replace(self.members[0].record, failed_steps=alive, combination=combination))
        self.orders = tuple(_order(member, self.class_names) for member in self.members)
        self._together = _asked_together(self.members, mapping or _mapping_here())

    def with_weights(self, record: Record, params: Tree, model_state: Tree) -> "EnsembleClassifier":
        """Other members of the same run, whose arrays are stacked [m …]; they share what is compiled."""
        other = copy(self)
        other.record, other.combination = record, combination_of(record)
        like = self.members[0].with_weights(record, None, None)
        # The config of a member takes a millisecond to make and check, and a run of them is validated after each epoch.
        known = [member.record.config for member in self.members] if record.config is self.record.config else None
        other.members = tuple(members_of(like, (params, model_state), known))
        if self._together is not None:
            other._together = self._together.with_weights(record, *_stacked(other.members))
        return other

    def fitting_outputs(self, images: np.ndarray | StoredImages, tta: int | AugmentConfig, first: int) -> np.ndarray:
        """float32[n k], see `Classifier.outputs`: what the members say, combined."""
        return self.combined(self._member_outputs(images, tta, None, first)).astype(np.float32)

    def _one_network(self, asked: str) -> SingleClassifier:
        """Raises InputError: each member has layers of its own, so ask one: `members[0].features(…)`."""
        rule = f"one of its {len(self.members)} members"
        raise InputError(problem(asked, "an ensemble", rule, f"Ask members[0].{asked}(…)."))

    def member_outputs(
        self,
        images: np.ndarray | StoredImages,
        tta: int | AugmentConfig = 0,
        wanted: np.ndarray | None = None,
        first: int = 0,
    ) -> np.ndarray:
        """float32[m n k]: the outputs of the members that are wanted, 0 of the others; tta and first as of `outputs`.

        wanted: bool[m], at least one of them; None: those that count in the combination.
        """
        return self._member_outputs(checked_array(images, self.input_spec), tta, wanted, first)

    def _member_outputs(
        self, images: np.ndarray | StoredImages, tta: int | AugmentConfig, wanted: np.ndarray | None, first: int
    ) -> np.ndarray:
        wanted = np.asarray(self.combination.weights) > 0 if wanted is None else wanted
        if self._together is not None and len(images):
            found = np.moveaxis(self._together.fitting_outputs(images, tta, first), 1, 0)  # [n m k] → [m n k]
            return np.where(wanted[:, None, None], found, 0)
        pairs = [(i, *pair) for i, pair in enumerate(zip(self.members, self.orders, strict=True)) if wanted[i]]
        found = {i: _ordered(member.fitting_outputs(images, tta, first), order) for i, member, order in pairs}
        like = next(iter(found.values()))
        return np.stack([found.get(i, np.zeros_like(like)) for i in range(len(self.members))])

    def combined(self, outputs: np.ndarray) -> np.ndarray:
        """[n k] of the members' outputs [m n k]."""
        if not self.class_names:
            return np.tensordot(np.asarray(self.combination.weights), outputs, axes=1)
        if self.record.task == "labels":
            return self.combination.combine(logarithms(as_pairs(outputs)))[:, 1].reshape(outputs.shape[1:])
        return self.combination.combine(logarithms(outputs))

    def evaluate_fitting(self, dataset: Dataset, look: Look | None = None) -> dict[str, Any]:
        """As of `Classifier`; of classes the Brier score and the calibration error too."""
        combined = self.combined(self._member_outputs(dataset.images, 0, None, 0))
        if look is not None:
            look(0, combined)
        return self.scoring.score(combined, dataset.labels, dataset.weights)

    def scores_of(self, outputs: np.ndarray, dataset: Dataset) -> dict[str, Any]:
        """What `evaluate` says, from the members' outputs [m n k]."""
        return self.scoring.score(self.combined(outputs), dataset.labels, dataset.weights)


def logarithms(probabilities: np.ndarray) -> np.ndarray:
    """float32 natural logarithms, of 0 that of the smallest normal float32."""
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY, dtype=np.float32))


def members_of(
    like: SingleClassifier, stacked: tuple[Tree, Tree], configs: Sequence[RunConfig] | None = None
) -> list[SingleClassifier]:
    """The classifiers of an ensemble's stacked (params, model_state), sharing what `like` has compiled.

    configs: those of the members, where they are at hand.
    """
    stacked = jax.tree.map(np.asarray, stacked)
    numbers = range(like.record.config.train.members)
    return [member_of(like, stacked, index, configs[index] if configs else None) for index in numbers]


def member_of(
    like: SingleClassifier, stacked: tuple[Tree, Tree], index: int, config: RunConfig | None = None
) -> SingleClassifier:
    """One of `members_of`."""
    record, failed_steps = like.record, like.record.failed_steps[index : index + 1]
    own = jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[index], stacked))
    config = config or record.config.of_member(index)
    return like.with_weights(replace(record, config=config, failed_steps=failed_steps, combination=None), *own)


def combination_of(record: Record) -> Combination:
    """The combination that was saved; without one, for want of validation data, that of the config, if it needs none.

    The members that are left then count the same.
    """
    if record.combination is not None:
        return record.combination
    method = record.config.ensemble.combine
    alive = np.array([step is None for step in record.failed_steps])
    return fit("mean" if method in FITTED_WEIGHTS or not record.class_names else method, None, None, False, alive)


def _joined_levels(ours: Levels, theirs: Levels) -> Levels:
    """How a joined part reads pictures of more than 8 bits: as the first, unless both have a range and these differ.

    None says no range, and "type" is that of older runs, nearly all of 8 bits; if it may not be, this is reported.
    """
    if "type" in (ours, theirs) and not {ours, theirs} <= {"type", None, SIXTEEN_BITS}:
        tell(f"parts: pictures of more than 8 bits are read by the levels {ours} of the first part, not by {theirs}")
    return theirs if isinstance(ours, tuple) and isinstance(theirs, tuple) else ours


def _order(member: Classifier, class_names: Names) -> np.ndarray | None:
    """Where a member has each of the classes among its own, int[k]; None where it has them in this order."""
    if member.class_names == class_names:
        return None
    return np.argsort(match(member.class_names, class_names, "a member", "the first one").positions)


def _ordered(outputs: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    return outputs if order is None else outputs[:, order]


def _mapping_here() -> MemberMapping:
    return "outer" if jax.default_backend() == "cpu" else "vmap"


def _asked_together(members: Sequence[SingleClassifier], mapping: MemberMapping) -> SingleClassifier | None:
    """One that gives the outputs of all members [n m k]; None if they are queried one by one."""
    like = members[0]
    if mapping == "outer" or any(member.network is not like.network for member in members):
        return None
    record, spec = like.record, like.input_spec

    def make_member(seed: jax.Array) -> nnx.Module:
        rngs = nnx.Rngs(stream_key(seed, "init"))
        lowering = evaluation_lowering(record.config.plan)
        return build(record.config.model, spec.network_shape, record.num_outputs, rngs, lowering)

    seeds = np.zeros(len(members), np.uint32)
    module = nnx.eval_shape(lambda: Stacked(make_member, seeds, mapping, out_axis=1))
    network = Network(module, record.config.train.precision, gives=record.config.model.gives)
    return SingleClassifier(record, Whitened(network) if spec.whiten else network, *_stacked(members))


def _stacked(members: Sequence[SingleClassifier]) -> tuple[Tree, Tree]:
    """(params, model_state) of a Stacked of these members; a whitening is that of the run, the same for all."""
    params, model_state = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        for trees in zip(*((member.params, member.model_state) for member in members), strict=True)
    )
    if not members[0].input_spec.whiten:
        return _as_ensemble(params), _as_ensemble(model_state)
    whitening, inner_state = model_state
    return _as_ensemble(params), (jax.tree.map(lambda leaf: leaf[0], whitening), _as_ensemble(inner_state))


def _as_ensemble(tree: Tree) -> Tree:
    """The arrays of stacked members in the place where a Stacked has them."""
    return nnx.State({"members": tree.raw_mapping} if jax.tree.leaves(tree) else {})

"""Setup: what stays the same throughout a run: its config, data, model and plan."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from engine.checkpoints.steps import find_steps
from engine.config import Lowering, RunConfig
from engine.config.contract import InputSpec
from engine.config.plan import Alternative, Plan
from engine.data.decoded.dataset import Splits
from engine.data.weighing import balanced_weights, class_draws, class_weights
from engine.devices.executables import Executables
from engine.devices.mesh import Devices
from engine.errors import InputError, defined_at, problem
from engine.host.clock import Clock
from engine.kernels.lowerings import evaluation_lowering
from engine.metrics.sums import Scoring, make_scoring
from engine.models.layer import CustomLayer
from engine.models.specs import Sequential
from engine.networks.layer_names import Layers
from engine.networks.network import WHOLE, AnyNetwork, NetworkPart, Tree, layers_in, network_of, num_params
from engine.records.custom import Custom, find_custom
from engine.training.batches import OrderSeeds, Subsets, num_batches
from engine.training.member_settings import MemberSettings, make_order_seeds, read_settings

Model = tuple[Tree, Tree]  # (params, model_state)


class NotFinite(InputError):
    """A loss or weight that is no finite number: the run stops, and its last good checkpoint stays."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """The model of a run as pure functions.

    inputs: the input contract. lowering: of the convolutions that train.
    """

    config: RunConfig
    inputs: InputSpec
    num_outputs: int
    lowering: Lowering

    def make_network(self, lowering: Lowering, part: NetworkPart = WHOLE) -> AnyNetwork:
        """The network, or a part of it, with its convolutions in a lowering."""
        return self._make(lowering, part)[0]

    @cached_property
    def init(self) -> Callable[[Any], Model]:
        """Traceable: the fresh (params, model_state) of a seed, or stacked of seeds [m]."""
        return self._make(self.lowering, WHOLE)[1]

    @cached_property
    def shapes(self) -> Model:
        """The shapes of one model's (params, model_state)."""
        return jax.eval_shape(self.init, np.uint32(0))

    @cached_property
    def num_params(self) -> int:
        """Parameters of one model."""
        return num_params(self.shapes[0])

    @cached_property
    def layers(self) -> Layers:
        """The layers by name."""
        return layers_in(self.config.model, self.inputs.network_shape, self.num_outputs)

    def _make(self, lowering: Lowering, part: NetworkPart) -> tuple[AnyNetwork, Callable[[Any], Model]]:
        of_inputs = self.inputs.network_shape, self.num_outputs, lowering, self.inputs.whiten
        return network_of(self.config.model, *of_inputs, self.config.train.precision, part)


def splits_by_hand(config: RunConfig) -> bool:
    """Whether each device of a mesh runs the step on its examples, see `Devices.is_by_hand`: on CPUs.

    A class, layer, loss or metric of the user's own may look at the whole batch, which only the compiler can then
    split; unless each device trains by itself for some steps.
    """
    if jax.default_backend() != "cpu" or config.plan.mode == "safe":
        return False
    model = config.model
    are_ours = isinstance(model, Sequential) and all(
        type(each.layer).__module__.startswith("engine.") and not isinstance(each.layer, CustomLayer)
        for each in model.named
    )
    judged_by = (config.train.loss, *config.train.metrics)
    are_ours = are_ours and not any(isinstance(each, Custom) for each in judged_by)
    return are_ours or config.train.average_every > 1


@dataclass(frozen=True, eq=False)
class Setup:
    """What a run is made of. alternatives: plans that were measured, fastest first.

    steps_ahead: as in Record: added to the steps of the run, makes them count epochs of the present batch size.
    """

    config: RunConfig
    splits: Splits
    clock: Clock
    directory: Path
    model: Architecture
    plan: Plan
    alternatives: tuple[Alternative, ...] = ()
    steps_ahead: int = 0

    @cached_property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, the last one padded; of folds, of the member that has the most examples."""
        return self.order_seeds.num_batches(len(self.splits.train), self.config.train.batch_size)

    @cached_property
    def epoch_steps(self) -> tuple[int, ...]:
        """How many batches epochs of the members have, ascending; the last is `steps_per_epoch`."""
        if self.subsets is None:
            return (self.steps_per_epoch,)
        size = self.config.train.batch_size
        return tuple(sorted({num_batches(count, size) for count in self.subsets.counts.tolist()}))

    @cached_property
    def settings(self) -> MemberSettings:
        """The seed and the hyperparameters of each member."""
        settings = read_settings(self.config, self.subsets)
        if self.subsets is None or self.config.train.class_weight != "balanced":
            return settings
        own = [balanced_weights(self.splits.train, rows) for rows in self.subsets.examples]
        return replace(settings, class_weights=np.array(own, np.float32))

    @cached_property
    def subsets(self) -> Subsets | None:
        """What each member trains on, all folds but its own; None without folds."""
        folds, members = self.splits.folds, range(self.config.train.members)
        return None if folds is None else Subsets(tuple(np.flatnonzero(folds != k).astype(np.int32) for k in members))

    @cached_property
    def order_seeds(self) -> OrderSeeds:
        """What decides the order of the examples."""
        draws = class_draws(self.splits.train) if self.config.train.sampling == "balanced" else None
        return make_order_seeds(self.config, self.subsets, draws)

    @cached_property
    def class_weights(self) -> tuple[float, ...] | None:
        """What the training loss of each class is multiplied by."""
        return class_weights(self.config.train.class_weight, self.splits.train)

    @cached_property
    def scoring(self) -> Scoring:
        """The loss and the metrics."""
        return make_scoring(
            self.config.train, self.model.num_outputs, self.splits.train.task, self.splits.train.class_names
        )

    @cached_property
    def devices(self) -> Devices:
        """Where states are placed."""
        return Devices(self.plan.mesh, splits_by_hand(self.config) and self.config.train.average_every == 1)

    @cached_property
    def network(self) -> AnyNetwork:
        """The whole network as it is evaluated."""
        return self.model.make_network(evaluation_lowering(self.config.plan))

    @cached_property
    def executables(self) -> Executables:
        """The functions compiled of whole models."""
        return self.make_executables("whole models")

    def make_executables(self, part: Hashable) -> Executables:
        """The compiled functions for a part of the run, shared with every run of the process with equal settings."""
        config, splits, shared_by = self.config, self.splits, None
        own = [each for each in find_custom(config.as_computed()) if not each.path.startswith("engine.")]
        if not own:  # in a notebook the code behind a path may change
            sizes = len(splits.train), len(splits.validation or ()), self.epoch_steps, self.model.num_outputs
            computed = config.as_computed(), self.model.inputs, self.plan, self.class_weights, self.scoring.thresholds
            shared_by = (part, *computed, *sizes, self.steps_ahead)
        return Executables(self.clock, config.train.deterministic, shared_by)

    def not_finite(self, quantity: str, step: int) -> NotFinite:
        """The error for a quantity that is no finite number at a step."""
        epoch = (step + self.steps_ahead - 1) // self.steps_per_epoch + 1
        kept = f"The last good checkpoint in {self.directory} is kept. " if find_steps(self.directory) else ""
        remedy = f"{kept}Lower --optim.learning-rate or set --optim.clip-norm 1."
        got, loss = f"no finite number at step {step} (epoch {epoch})", self.config.train.loss
        if isinstance(loss, Custom):
            got += f" of {loss.path}{defined_at(loss.load('train.loss'))}"
        return NotFinite(problem(quantity, got, "a finite number", remedy))

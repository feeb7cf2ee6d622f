"""Trainer: what trains a run's state, made anew for each phase in which other layers train."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.config import Lowering, RunConfig, mesh_shape
from engine.config.contract import InputSpec
from engine.config.finetune import name_problems
from engine.config.plan import Plan, given_plan, keeps_lowering
from engine.data.decoded.dataset import Dataset, Splits
from engine.data.fitting import whitening
from engine.devices.executables import Executables
from engine.devices.mesh import Devices
from engine.errors import InputError, Say, problem
from engine.host.clock import Clock
from engine.inference.classifier import Classifier
from engine.kernels.lowerings import choose_lowering, evaluation_lowering, runs_here
from engine.metrics.losses import kernel_penalty
from engine.metrics.sums import Metrics
from engine.networks.network import WHOLE, AnyNetwork, NetworkPart, Tree, layers_in, network_of, num_params
from engine.records.custom import find_custom
from engine.runs.feature_cache import Features, cache_features, cache_megabytes, features_megabytes, may_cache
from engine.runs.start import Start, start_from, start_text
from engine.training.evaluate import eval_batch_size, evaluate
from engine.training.feed import Feed, choose_placement, make_feed
from engine.training.freezing import Phase, carried_over
from engine.training.member_settings import MemberSettings, make_order_seeds, read_settings, tuned
from engine.training.members_in_turn import OneByOne, program_of
from engine.training.memory import check_model_fits
from engine.training.optim import optimizer
from engine.training.program import Program, choose_plan
from engine.training.state import TrainState, init_state
from engine.training.step import Objective

Model = tuple[Tree, Tree]


class Trainer:
    """The plan of a run, its state at the start, and in each phase a program and what feeds it.

    inputs: the input contract. given: the plan of the run that goes on, or one that was measured; is_resumed: which.
    num_params: of the whole model. devices: where states are placed. phase: what trains now.
    """

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        inputs: InputSpec,
        num_outputs: int,
        steps_per_epoch: int,
        clock: Clock,
        given: Plan | None = None,
        is_resumed: bool = False,
        epoch: int = 0,
    ):
        self.config, self.splits, self.inputs, self.clock = config, splits, inputs, clock
        self._num_outputs, self._steps_per_epoch = num_outputs, steps_per_epoch
        self._say: Say | None = None
        self._unsaid: list[str] = []
        self._settings, self._order_seeds = read_settings(config), make_order_seeds(config)
        platform = jax.default_backend()
        self._lowering: Lowering = self._choose_lowering(given, platform)
        network, self._init = self._network_of(self._lowering)
        self._of_one = jax.eval_shape(self._init, np.uint32(0))
        self.num_params = num_params(self._of_one[0])
        layers = layers_in(config.model, inputs.network_shape, num_outputs)
        if problems := name_problems(config.finetune, layers.names, layers.are_ordered):
            raise InputError(*problems)
        self._set_phase(Phase(config.finetune, layers, epoch))
        if self.num_params and not self.num_trained:
            rule, remedy = "at least one that trains from the start", "Leave out the last one."
            raise InputError(problem("finetune.freeze", "all layers with weights", rule, remedy))
        self._check_memory()
        objective, placement = replace(self._objective, network=network), choose_placement(config.plan, splits.train)
        self.plan = choose_plan(config.plan, self._lowering, platform, objective, self._of_one, placement)
        if given:
            self.plan = replace(given_plan(config.plan, self.plan, given), lowering=self._lowering)
        if may_cache(config) and not (given and is_resumed):
            self.plan = replace(self.plan, cache_megabytes=self._affordable_megabytes())
        self.devices = Devices(self.plan.mesh)
        self._executables = self.executables(self.phase.part)

    def _check_memory(self) -> None:
        """Raises InputError where a model in training does not fit into memory; nothing is allocated for that."""
        params, model_state = self.phase.apart_trees(*self._of_one)
        shares = 1 if jax.default_backend() == "cpu" else mesh_shape(self.config.plan.mesh)[0]
        kept = [model_state, jax.eval_shape(self._objective.optimizer.init, params)]
        if self._objective.average_decay is not None:
            kept.append(params)
        check_model_fits(
            self.phase.layers, self.inputs.network_shape, params, kept, self.config.train.members // shares
        )

    def executables(self, of_what: Hashable) -> Executables:
        """What is compiled of a part of the run, which all runs of this process share that compute the same."""
        config, splits, of = self.config, self.splits, None
        if not any(find_custom(config)):  # in a notebook the code behind a path may change
            sizes = (len(splits.train), len(splits.validation or ()), self._steps_per_epoch, self._num_outputs)
            of = (of_what, config.as_computed(), self.inputs, self.plan, *sizes)
        return Executables(self.clock, config.train.deterministic, of)

    @property
    def num_trained(self) -> int:
        """How many parameters train in this phase."""
        return num_params(self.phase.apart_trees(*self._of_one)[0])

    def abstract(self) -> TrainState:
        """The shapes of a state of whole models, as it is saved in this phase."""
        return self.phase.whole(jax.eval_shape(lambda s: self._begun(s, *self._init(s.seed)), self._settings))

    def first_state(self, executables: Executables, source: Classifier | None) -> TrainState:
        """The state before the first step: fresh, or from the weights of a source, which is told."""
        train = self.splits.train
        start = start_from(source, self.config, self.phase.layers, self._of_one, train) if source else None
        fitted = None
        if self.inputs.whiten and source is None:
            fitted = whitening(train, self.config.data)

        def make(settings: MemberSettings, start: Start | None, fitted: Any) -> TrainState:
            params, model_state = self._init(settings.seed)
            if fitted is not None:
                empty, inner_state = model_state
                of_all = jax.tree.map(lambda leaf, own: jnp.broadcast_to(leaf, own.shape), fitted, empty)
                model_state = (of_all, inner_state)
            return self._begun(settings, *(start.onto((params, model_state)) if start else (params, model_state)))

        state = executables.call("init", make, self._settings, start, fitted)
        if source and start:
            self._tell(start_text(source, start, train))
        return self.placed(state)

    def placed(self, state: TrainState) -> TrainState:
        """The state on the devices."""
        return self.devices.place(state, self.config.train.members > 1)

    def entered(self, state: TrainState, epoch: int) -> TrainState:
        """The state for an epoch. Where more layers train than before, what was known of the others stays as it was.

        Their own optimizer state starts from nothing.
        """
        phase = replace(self.phase, epoch=epoch)
        now_trained = (self.phase.part.frozen or frozenset()) - (phase.part.frozen or frozenset())
        if not now_trained:
            return state
        whole = self.phase.whole(state)
        self.close()
        self._set_phase(phase)
        self._executables = self.executables(self.phase.part)
        fresh = self._executables.call("init", self._begun, self._settings, whole.params, whole.model_state)
        self._tell(f"from epoch {epoch + 1} on these train too: {', '.join(sorted(now_trained))}")
        return self.placed(carried_over(fresh, state))

    def ready(self, model: Callable[[], Model]) -> tuple[Program | OneByOne, Feed]:
        """The program of this phase and what feeds it; `model` gives the whole model, to compute features with."""
        if self._made is None:
            with self.clock.measure("data"):
                self._features = self._cached(model)
            objective, plan, train = self._objective, self.plan, self.splits.train
            if self._features:
                part = replace(self.phase.part, first=self._features.num_layers)
                objective = replace(
                    objective, network=self._network_of(self._lowering, part)[0], inputs=self._features.inputs
                )
                plan, train = replace(plan, placement="resident"), self._features.train
            size, executables = self.config.train.batch_size, self._executables
            program = Program(
                objective, plan, self._settings, self._order_seeds, size, executables, self._tune, self.devices
            )
            feed = make_feed(plan.placement, train, self._order_seeds, size, self.config.plan.readers, self.devices)
            self._made = program_of(program, executables), feed
        return self._made

    def metrics_on_features(self, model: Model) -> Metrics | None:
        """Metric sums over the validation data, from their features; None where these are not kept."""
        if self._features is None or self._features.validation is None:
            return None
        network, _ = self._network_of(
            evaluation_lowering(self.config.plan), NetworkPart(first=self._features.num_layers)
        )
        objective = replace(self._objective, network=network, inputs=self._features.inputs)
        return evaluate(self._executables, objective, *model, self._features.validation)

    def close(self) -> None:
        """Stops reading ahead."""
        if self._made is not None:
            self._made[1].close()

    def report_to(self, say: Say) -> None:
        """Prints the messages collected so far; later ones are printed immediately."""
        self._say = say
        while self._unsaid:
            say(self._unsaid.pop(0))

    def _tell(self, text: str) -> None:
        (self._say or self._unsaid.append)(text)

    def _choose_lowering(self, given: Plan | None, platform: str) -> Lowering:
        if given is None or not keeps_lowering(self.config.plan, given):
            return self._lowering_by_rule(platform)
        if runs_here(given.lowering):
            return given.lowering
        chosen = self._lowering_by_rule(platform)
        self._tell(f"the run's {given.lowering} convolutions do not run here: going on with {chosen}")
        return chosen

    def _lowering_by_rule(self, platform: str) -> Lowering:
        return choose_lowering(self.config.plan, platform, self.config.train.precision, self.inputs.shape)

    def _network_of(self, lowering: Lowering, part: NetworkPart = WHOLE) -> tuple[AnyNetwork, Callable[[Any], Model]]:
        of_inputs = (self.inputs.network_shape, self._num_outputs, lowering, self.inputs.whiten)
        return network_of(self.config.model, *of_inputs, self.config.train.precision, part)

    def _set_phase(self, phase: Phase) -> None:
        config, steps = self.config, self._steps_per_epoch
        chain = optimizer(config.optim, steps, config.train.epochs, layers=phase.rates)
        network, _ = self._network_of(self._lowering, phase.part)
        loss, smoothing = config.train.loss, config.train.label_smoothing
        self._objective = Objective(
            network, loss, smoothing, chain, self.inputs, config.augment, config.optim.average_decay,
            kernel_penalty(config.model),
        )  # fmt: skip
        self._tune = partial(tuned, config, steps, phase.rates)
        self.phase = phase
        self._features: Features | None = None
        self._made: tuple[Program | OneByOne, Feed] | None = None

    def _begun(self, settings: MemberSettings, params: Tree, model_state: Tree) -> TrainState:
        """The state at the start of the phase, from the arrays of whole models; traceable."""

        def of_one(settings: MemberSettings, params: Tree, model_state: Tree) -> TrainState:
            is_averaged, chain = (
                self._objective.average_decay is not None,
                self._tune(self._objective, settings).optimizer,
            )
            return init_state(*self.phase.apart_trees(params, model_state), chain, is_averaged)

        of_all = jax.vmap(of_one) if settings.seed.ndim else of_one
        return of_all(settings, params, model_state)

    def _needed_megabytes(self, phase: Phase) -> int:
        """What it takes to keep what the frozen layers of a phase give; 0 where there is nothing to keep."""
        spec = self.config.model
        if not (may_cache(self.config) and phase.cut):
            return 0
        row = spec.with_outputs(self._num_outputs).rows(self.inputs.network_shape)[phase.cut - 1]
        return features_megabytes(len(self.splits.train) + len(self.splits.validation or ()), row.output_shape)

    def _affordable_megabytes(self) -> int:
        """The largest of what the phases need that the memory allows now: a run taken up again keeps to that."""
        epochs = {0, *(epoch for epoch, _ in self.config.finetune.unfreezings)}
        needs, allowed = [self._needed_megabytes(replace(self.phase, epoch=e)) for e in epochs], cache_megabytes()
        return max((megabytes for megabytes in needs if megabytes <= allowed), default=0)

    def _cached(self, model: Callable[[], Model]) -> Features | None:
        """What the frozen layers give, computed here; None where that cannot be kept."""
        cut, splits, needed = self.phase.cut, self.splits, self._needed_megabytes(self.phase)
        if not needed:
            return None
        if needed > self.plan.cache_megabytes:
            reason = f"its {needed:,} MB are more than half of the memory that was free"
            self._tell(f"what the first {cut} layers give is computed anew in each epoch: {reason}")
            return None
        arrays, executables = model(), self._executables

        def of(dataset: Dataset, lowering: Lowering, size: int) -> tuple[Dataset, float]:
            network, _ = self._network_of(lowering, NetworkPart(end=cut))
            name = f"features by {lowering} of {size}"
            return cache_features(dataset, self.inputs, network, arrays, size, executables, name)

        with self.clock.measure("features"):
            train, seconds = of(splits.train, self._lowering, self.config.train.batch_size)
            size, lowering = eval_batch_size(splits.train.input_shape), evaluation_lowering(self.config.plan)
            validation = of(splits.validation, lowering, size)[0] if splits.validation else None
        self._tell(
            f"what the first {cut} layers give for {len(train):,} training examples is kept, {needed:,} MB; "
            f"saves {seconds:.2g} s an epoch"
        )
        return Features(train, validation, cut)

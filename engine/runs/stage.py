"""Stage: the epochs of a run in which the same layers train; and the program and feed that train them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.config import mesh_shape
from engine.config.finetune import name_problems
from engine.data.fitting import whitening
from engine.devices.executables import Executables
from engine.errors import InputError, Say, problem
from engine.inference.classifier import Classifier
from engine.metrics.losses import kernel_penalty
from engine.metrics.sums import Metrics
from engine.networks.network import Tree, num_params
from engine.runs.feature_cache import Features, cache_features
from engine.runs.setup import Model, Setup
from engine.runs.start import Start, start_from, start_text
from engine.runs.together import state_from_first
from engine.training.feed import Feed, make_feed
from engine.training.freezing import Phase, carried_over
from engine.training.member_settings import MemberSettings, tuned
from engine.training.members_in_turn import OneByOne, program_of
from engine.training.memory import check_model_fits
from engine.training.optim import optimizer
from engine.training.program import Program
from engine.training.state import TrainState, find_finite, init_state, make_items
from engine.training.step import Objective


@dataclass(frozen=True, eq=False)
class Stage:
    """What is trained in a phase of a run, and how."""

    setup: Setup
    phase: Phase

    @cached_property
    def executables(self) -> Executables:
        """The functions compiled for this stage."""
        return self.setup.make_executables(self.phase.part)

    @cached_property
    def objective(self) -> Objective:
        """What is minimized, by which optimizer."""
        config, model = self.setup.config, self.setup.model
        counts = self.setup.steps_per_epoch, config.train.epochs
        return Objective(
            network=model.make_network(model.lowering, self.phase.part),
            scoring=self.setup.scoring,
            label_smoothing=config.train.label_smoothing,
            optimizer=optimizer(
                config.scaled_optim, *counts, layers=self.phase.rates, steps_ahead=self.setup.steps_ahead
            ),
            inputs=model.inputs,
            augment=config.augment,
            average_decay=config.optim.average_decay,
            penalty=kernel_penalty(config.model),
            num_parts=config.train.accumulate,
            unrolls=self.setup.plan.is_stepwise,
            sam_radius=config.optim.sam_radius,
            class_weights=self.setup.class_weights,
            average_every=config.train.average_every,
        )

    @property
    def num_trained(self) -> int:
        """How many parameters train."""
        return num_params(self.phase.apart_trees(*self.setup.model.shapes)[0])

    def check_memory(self) -> None:
        """Raises InputError where a model in training does not fit into memory; nothing is allocated for that."""
        config, model = self.setup.config, self.setup.model
        params, model_state = self.phase.apart_trees(*model.shapes)
        shares = 1 if jax.default_backend() == "cpu" else mesh_shape(config.plan.mesh)[0]
        kept = [model_state, jax.eval_shape(self.objective.optimizer.init, params)]
        if self.objective.average_decay is not None:
            kept.append(params)
        check_model_fits(model.layers, model.inputs.network_shape, params, kept, config.train.members // shares)

    def tune(self, objective: Objective, settings: MemberSettings) -> Objective:
        """The objective with the hyperparameters of one member; traceable."""
        setup = self.setup
        counts = setup.epoch_steps, setup.steps_ahead
        return tuned(setup.config, *counts, self.phase.rates, objective, settings)

    def begin(self, settings: MemberSettings, params: Tree, model_state: Tree) -> TrainState:
        """The state at the start of the stage, from the arrays of whole models; traceable."""

        def begin_one(settings: MemberSettings, params: Tree, model_state: Tree) -> TrainState:
            is_averaged, chain = self.objective.average_decay is not None, self.tune(self.objective, settings).optimizer
            return init_state(*self.phase.apart_trees(params, model_state), chain, is_averaged)

        begin_all = jax.vmap(begin_one) if settings.seed.ndim else begin_one
        return begin_all(settings, params, model_state)

    def abstract_state(self) -> TrainState:
        """The shapes of a state of whole models, as it is saved in this stage."""
        init = self.setup.model.init
        return self.phase.whole(jax.eval_shape(lambda s: self.begin(s, *init(s.seed)), self.setup.settings))

    def place(self, state: TrainState) -> TrainState:
        """The state on the devices."""
        return self.setup.devices.place(state, self.setup.config.train.members > 1)

    def items_to_save(self, state: TrainState, extra: dict[str, Any], is_shared: bool) -> tuple[dict[str, Any], Any]:
        """(items of a checkpoint, with the extra ones; bool[] or bool[m], whether the weights are finite).

        is_shared: of arrays on the devices, which the next compiled call writes over; else host copies of them.
        """
        devices, by_member = self.setup.devices, self.setup.config.train.members > 1
        items = make_items(self.phase.whole(state))
        if not is_shared:
            items = jax.tree.map(np.array, devices.at_hand(items))
            return {**items, **extra}, find_finite(items["model"], by_member)
        items = devices.place({**items, **extra}, by_member)
        is_finite = jax.jit(find_finite, static_argnums=1)(items["model"], by_member)
        return items, np.asarray(devices.at_hand(is_finite))

    def make_first_state(self, source: Classifier | None, say: Say) -> TrainState:
        """The state before the first step: freshly initialised, or from the source's weights (reported to the user)."""
        setup, model = self.setup, self.setup.model
        train, start, fitted = setup.splits.train, None, None
        if source:
            start = start_from(source, setup.config, model.layers, model.shapes, train)
        elif model.inputs.whiten:
            fitted = whitening(train, setup.config.data)

        def make(settings: MemberSettings, start: Start | None, fitted: Any) -> TrainState:
            params, model_state = model.init(settings.seed)
            if fitted is not None:
                empty, inner_state = model_state
                of_all = jax.tree.map(lambda leaf, own: jnp.broadcast_to(leaf, own.shape), fitted, empty)
                model_state = (of_all, inner_state)
            return self.begin(settings, *(start.onto((params, model_state)) if start else (params, model_state)))

        state = setup.executables.call("init", make, setup.settings, start, fitted)
        if source and start:
            say(start_text(source, start, train))
        return self.place(state_from_first(state))

    def layers_unfrozen_by(self, epoch: int) -> frozenset[str]:
        """The layers that are frozen here and train in that epoch, counted from 0."""
        later = replace(self.phase, epoch=epoch)
        return (self.phase.part.frozen or frozenset()) - (later.part.frozen or frozenset())

    def advance(self, epoch: int, state: TrainState) -> tuple["Stage", TrainState]:
        """(stage, state) from an epoch on: layers that start to train get fresh optimizer state."""
        stage, whole = Stage(self.setup, replace(self.phase, epoch=epoch)), self.phase.whole(state)
        fresh = stage.executables.call("init", stage.begin, self.setup.settings, whole.params, whole.model_state)
        return stage, stage.place(carried_over(fresh, state))


@dataclass(frozen=True)
class Equipment:
    """What trains a stage: its program, what feeds it, and the outputs of frozen layers if these are cached."""

    stage: Stage
    program: Program | OneByOne
    feed: Feed
    features: Features | None

    def evaluate_features(self, model: Model) -> Metrics | None:
        """Metric sums over the validation data from cached outputs of frozen layers; None if there are none."""
        stage = self.stage
        return self.features and self.features.evaluate(stage.setup, stage.objective, stage.executables, model)


def equip(stage: Stage, model: Callable[[], Model], say: Say) -> Equipment:
    """The equipment of a stage; `model` gives the arrays of the whole model, to compute features with."""
    setup, executables = stage.setup, stage.executables
    objective, plan, train = stage.objective, setup.plan, setup.splits.train
    size, devices = setup.config.train.batch_size, setup.devices
    with setup.clock.measure("data"):
        features = cache_features(setup, stage.phase, executables, model, say)
    if features:
        part = replace(stage.phase.part, first=features.num_layers)
        objective = replace(
            objective, network=setup.model.make_network(setup.model.lowering, part), inputs=features.inputs
        )
        plan, train = replace(plan, placement="resident"), features.train
    own = (setup.settings, setup.order_seeds, size, executables, stage.tune, devices, setup.steps_ahead)
    program = Program(objective, plan, *own)
    source = (plan.placement, train, setup.order_seeds, size, setup.config.plan.readers, devices)
    feed = make_feed(*source, setup.config.train.average_every, program.padded_size)
    return Equipment(stage, program_of(program, executables), feed, features)


def start_stage(setup: Setup, epoch: int) -> Stage:
    """The stage of an epoch; raises InputError if the config freezes unknown layers, or all that have weights."""
    layers = setup.model.layers
    if problems := name_problems(setup.config.finetune, layers.all, layers.are_ordered):
        raise InputError(*problems)
    stage = Stage(setup, Phase(setup.config.finetune, layers, epoch))
    if setup.model.num_params and not stage.num_trained:
        rule, remedy = "at least one that trains from the start", "Leave out the last one."
        raise InputError(problem("finetune.freeze", "all layers with weights", rule, remedy))
    stage.check_memory()
    return stage

"""Phase: what of a model trains from one epoch on; and a run's state, taken apart by that and put together again."""

from dataclasses import dataclass, replace

import jax

from engine.config.finetune import FineTuneConfig, first_epoch, frozen_layers, rate_factor
from engine.networks.layer_names import Layers, joined, key_path
from engine.networks.network import NetworkPart, Tree
from engine.training.optim import LayerRates
from engine.training.state import TrainState


@dataclass(frozen=True)
class Phase:
    """An epoch (counted from 0) of a run, as far as its layers go. A function of the config and the epoch alone."""

    config: FineTuneConfig
    layers: Layers
    epoch: int

    @property
    def part(self) -> NetworkPart:
        """What of the network trains."""
        frozen = frozen_layers(self.config, self.layers.names, self.epoch)
        return NetworkPart(frozen if self.config.freezes else None)

    @property
    def rates(self) -> LayerRates:
        """What sets the layers that train apart."""
        config, layers = self.config, self.layers

        def first_epoch_of(path: tuple) -> int:
            return first_epoch(config, layers.names, layers.of(key_path(path))) or 0

        return LayerRates(
            lambda path: rate_factor(config, layers.of(key_path(path))),
            first_epoch_of,
            bool(config.learning_rates),
            config.freezes and bool(config.unfreeze),
        )

    def apart(self, state: TrainState) -> TrainState:
        """A state of the whole model as it is trained: parameters of frozen layers are model state."""
        params, model_state = self.apart_trees(state.params, state.model_state)
        averaged = None if state.averaged is None else self.apart_trees(state.averaged, None)[0]
        return replace(state, params=params, model_state=model_state, averaged=averaged)

    def apart_trees(self, params: Tree, model_state: Tree) -> tuple[Tree, Tree]:
        """(params, model_state) as they are trained."""
        frozen = self.part.frozen
        if frozen is None:
            return params, model_state
        still = self.layers.kept(params, frozen.__contains__)
        return self.layers.kept(params, lambda name: name not in frozen), (still, model_state)

    def whole(self, state: TrainState) -> TrainState:
        """The state of the whole model, as it is evaluated and saved."""
        if self.part.frozen is None:
            return state
        still, model_state = state.model_state
        averaged = None if state.averaged is None else joined(state.averaged, still)
        return replace(state, params=joined(state.params, still), model_state=model_state, averaged=averaged)

    @property
    def cut(self) -> int:
        """How many of the first layers are frozen and not random, and all that is below them too.

        0 if none of them has weights, and for a user's own class, whose layers have no known order.
        """
        frozen, spec = self.part.frozen, self.layers.spec
        if not frozen or not spec.layers:
            return 0
        named = zip(self.layers.names, spec.layers, strict=True)
        is_live = [name not in frozen and (layer.has_params or layer.is_random) for name, layer in named]
        cut = is_live.index(True) if True in is_live else len(is_live)
        has_weights = any(layer.has_kernel for layer in spec.layers[:cut])
        return cut if has_weights else 0


def carried_over(fresh: Tree, old: Tree) -> Tree:
    """The fresh tree with the arrays that the old one has at the same place."""
    known = dict(jax.tree_util.tree_leaves_with_path(old))
    return jax.tree.map_with_path(lambda path, leaf: known.get(path, leaf), fresh)

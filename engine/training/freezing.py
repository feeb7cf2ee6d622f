"""Phase: the layers that train from one epoch on; it splits a run's state accordingly, and merges it again."""

from dataclasses import dataclass, replace

import jax

from engine.config.finetune import FineTuneConfig, first_epochs, frozen_layers, rate_factor
from engine.networks.layer_names import Layers, joined, key_path
from engine.networks.network import NetworkPart, Tree
from engine.training.optim import LayerRates
from engine.training.state import TrainState


@dataclass(frozen=True)
class Phase:
    """Which layers train in an epoch (counted from 0) of a run. A function of the config and the epoch alone."""

    config: FineTuneConfig
    layers: Layers
    epoch: int

    @property
    def part(self) -> NetworkPart:
        """The part of the network that trains."""
        frozen = frozen_layers(self.config, self.layers.all, self.epoch)
        return NetworkPart(frozen if self.config.freezes else None)

    @property
    def rates(self) -> LayerRates:
        """The learning rates and first epochs of the layers that train."""
        config, layers = self.config, self.layers

        starts = first_epochs(config, layers.all)
        return LayerRates(
            lambda path: rate_factor(config, layers.by_name.get(layers.of(key_path(path)))),
            lambda path: starts.get(layers.of(key_path(path))) or 0,
            bool(config.learning_rates),
            config.freezes and bool(config.unfreeze),
        )

    def apart(self, state: TrainState) -> TrainState:
        """The state of the whole model in the form for training: parameters of frozen layers become model state."""
        params, model_state = self.apart_trees(state.params, state.model_state)
        averaged = None if state.averaged is None else self.apart_trees(state.averaged, None)[0]
        return replace(state, params=params, model_state=model_state, averaged=averaged)

    def apart_trees(self, params: Tree, model_state: Tree) -> tuple[Tree, Tree]:
        """(params, model_state) in the form for training."""
        frozen = self.part.frozen
        if frozen is None:
            return params, model_state
        still = self.layers.kept(params, frozen.__contains__)
        return self.layers.kept(params, lambda name: name not in frozen), (still, model_state)

    def whole(self, state: TrainState) -> TrainState:
        """The state of the whole model, in the form for evaluation and saving."""
        if self.part.frozen is None:
            return state
        still, model_state = state.model_state
        averaged = None if state.averaged is None else joined(state.averaged, still)
        return replace(state, params=joined(state.params, still), model_state=model_state, averaged=averaged)

    @property
    def cut(self) -> int:
        """The number of first layers that, with all layers before them, are frozen and not random.

        0 if none of them has weights, and for a custom class, whose layers have no known order.
        """
        cut = self.layers.num_still(self.part.frozen or frozenset())
        has_weights = any(layer.has_kernel for layer in self.layers.spec.layers[:cut])
        return cut if has_weights else 0


def carried_over(fresh: Tree, old: Tree) -> Tree:
    """The fresh tree with the arrays that the old tree has at the same path."""
    known = dict(jax.tree_util.tree_leaves_with_path(old))
    return jax.tree.map_with_path(lambda path, leaf: known.get(path, leaf), fresh)

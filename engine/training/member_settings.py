"""What sets the members of an ensemble apart: a seed each, and on request hyperparameters of their own.

A member of number m is the run whose seed is `member_seeds(seed, m, 1)`: nothing that it draws depends on how many
others there are. Member 0 has the seed of the run itself, so a single model is member 0 of any ensemble.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from engine.config import RunConfig
from engine.training.batches import OrderSeeds
from engine.training.optim import LayerRates, optimizer
from engine.training.step import Objective


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MemberSettings:
    """A member's own: the uint32 seed of everything it draws; float32 hyperparameters, or None for those of all.

    Scalars, or arrays [m] for the members of an ensemble.
    """

    seed: Any
    learning_rate: Any = None
    weight_decay: Any = None
    label_smoothing: Any = None


def member_seeds(seed: int, first: int, count: int) -> np.ndarray:
    """uint32[count]: the seeds of the members numbered from `first`."""
    seeds = (_hashed(f"seed {seed}, member {number}") if number else seed for number in range(first, first + count))
    return np.fromiter(seeds, np.uint32, count)


def read_settings(config: RunConfig) -> MemberSettings:
    """The settings of a run's members, arrays [m]; of a single model scalars."""
    train, ensemble = config.train, config.ensemble
    seeds = member_seeds(train.seed, train.first_member, train.members)
    own = (ensemble.learning_rates, ensemble.weight_decays, ensemble.label_smoothings)
    settings = MemberSettings(seeds, *(None if each is None else np.array(each, np.float32) for each in own))
    return settings if train.members > 1 else jax.tree.map(lambda leaf: leaf[0], settings)


def make_order_seeds(config: RunConfig) -> OrderSeeds:
    """What decides the order of the data: a seed for each member, unless all share it."""
    seeds = tuple(member_seeds(config.train.seed, config.train.first_member, config.train.members).tolist())
    is_one = config.train.members == 1 or config.ensemble.shared_order
    seed = config.train.seed if config.ensemble.shared_order else seeds[0]
    return OrderSeeds(seed if is_one else seeds, config.ensemble.bootstrap)


def tuned(
    config: RunConfig, steps_per_epoch: int, layers: LayerRates | None, objective: Objective, settings: MemberSettings
) -> Objective:
    """The task with a member's own hyperparameters in place of those that all share; traceable."""
    if settings.learning_rate is not None or settings.weight_decay is not None:
        own = (settings.learning_rate, settings.weight_decay, layers)
        objective = replace(objective, optimizer=optimizer(config.optim, steps_per_epoch, config.train.epochs, *own))
    if settings.label_smoothing is not None:
        objective = replace(objective, label_smoothing=settings.label_smoothing)
    return objective


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")

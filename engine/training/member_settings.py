"""Settings per member of an ensemble: a seed each and, if configured, separate hyperparameters.

Member m equals the run with seed `member_seeds(seed, m, 1)`: its random draws do not depend on the number of members.
Member 0 has the seed of the run itself, so a single model is member 0 of any ensemble.
"""

import hashlib
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.config import RunConfig
from engine.data.weighing import ClassDraws
from engine.training.batches import OrderSeeds, Subsets, num_batches
from engine.training.optim import LayerRates, optimizer
from engine.training.schedules import EpochSteps, OwnSteps
from engine.training.step import Objective


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MemberSettings:
    """The uint32 seed of everything a member draws; float32 hyperparameters, or None for the shared ones.

    num_examples: how many examples a member has of its own; None: all of them.
    numbers: other fields of the optimizer by name, those of `EnsembleConfig.numbers`.
    class_weights: [k], where members train on different examples, by which they are balanced.
    Scalars, or arrays [m] for the members of an ensemble.
    rate_factor: of the plateau schedule, see `engine.metrics.plateau`; in the calls of a program alone.
    """

    seed: Any
    learning_rate: Any = None
    weight_decay: Any = None
    label_smoothing: Any = None
    rate_factor: Any = None
    num_examples: Any = None
    numbers: dict[str, Any] | None = None
    class_weights: Any = None


def member_seeds(seed: int, first: int, count: int) -> np.ndarray:
    """uint32[count]: the seeds of the members numbered from `first`."""
    seeds = (_hashed(f"seed {seed}, member {number}") if number else seed for number in range(first, first + count))
    return np.fromiter(seeds, np.uint32, count)


def read_settings(config: RunConfig, subsets: Subsets | None = None) -> MemberSettings:
    """The settings of a run's members, arrays [m]; of a single model scalars. subsets: as of OrderSeeds."""
    train, ensemble = config.train, config.ensemble
    seeds = _draw_seeds(config)
    own = (ensemble.learning_rates, ensemble.weight_decays, ensemble.label_smoothings)
    numbers = [None if each is None else np.array(each, np.float32) for each in own]
    if ensemble.learning_rates is not None:
        rates = [replace(config.optim, learning_rate=each) for each in ensemble.learning_rates]
        numbers[0] = np.array([each.scaled_to(train.batch_size).learning_rate for each in rates], np.float32)
    others = {each.name: np.array(each.values, np.float32) for each in ensemble.numbers}
    counts = None if subsets is None else subsets.counts
    settings = MemberSettings(seeds, *numbers, num_examples=counts, numbers=others or None)
    return settings if train.members > 1 else jax.tree.map(lambda leaf: leaf[0], settings)


def make_order_seeds(config: RunConfig, subsets: Subsets | None = None, draws: ClassDraws | None = None) -> OrderSeeds:
    """The seeds of the data order: one for each member, unless all share it; draws: of balanced sampling."""
    seeds = tuple(_draw_seeds(config).tolist())
    is_one = config.train.members == 1 or config.ensemble.shared_order or config.ensemble.shared_seed
    seed = config.train.seed if config.ensemble.shared_order else seeds[0]
    if subsets is not None and is_one:
        return OrderSeeds((int(seed),) * config.train.members, config.ensemble.bootstrap, subsets, draws)
    return OrderSeeds(seed if is_one else seeds, config.ensemble.bootstrap, subsets, draws)


def tuned(
    config: RunConfig,
    epoch_steps: tuple[int, ...],
    steps_ahead: int,
    layers: LayerRates | None,
    objective: Objective,
    settings: MemberSettings,
) -> Objective:
    """The objective with a member's hyperparameters in place of the shared ones; traceable.

    epoch_steps: how many steps epochs of members have, ascending; several with folds of unlike sizes.
    """
    rate, decay, factor = settings.learning_rate, settings.weight_decay, settings.rate_factor
    if factor is not None:
        rate = (config.scaled_optim.learning_rate if rate is None else rate) * factor
    optim, numbers = config.scaled_optim, settings.numbers or {}
    if numbers:
        optim = copy(optim)
        for name, value in numbers.items():
            object.__setattr__(optim, name, value)  # traced, so no config that checks itself
        ours = {name: value for name, value in numbers.items() if name in ("average_decay", "sam_radius")}
        objective = replace(objective, **ours)
    steps: EpochSteps = epoch_steps[-1]
    if len(epoch_steps) > 1 and not optim.is_flat:
        steps = OwnSteps(jnp.asarray(num_batches(settings.num_examples, config.train.batch_size)), epoch_steps)
    if rate is not None or decay is not None or numbers or isinstance(steps, OwnSteps):
        own = optimizer(optim, steps, config.train.epochs, rate, decay, layers, steps_ahead)
        objective = replace(objective, optimizer=own)
    if settings.label_smoothing is not None:
        objective = replace(objective, label_smoothing=settings.label_smoothing)
    if settings.class_weights is not None:
        objective = replace(objective, class_weights=settings.class_weights)
    return objective


def _draw_seeds(config: RunConfig) -> np.ndarray:
    """uint32[m]: the seed of each member, or that of the run for all."""
    train = config.train
    if config.ensemble.shared_seed:
        return np.full(train.members, train.seed, np.uint32)
    return member_seeds(train.seed, train.first_member, train.members)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
